"""Where ranks meet, and what is said of a machine that lacks the plane's libraries."""

import os
import subprocess
from pathlib import Path
from unittest.mock import MagicMock, Mock

import pytest

from training import __main__ as main


def test_deepspeed_still_has_the_switch_that_join_turns_off() -> None:
    """Were it gone, every start would compile C++ without a word."""
    import deepspeed
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    assert ShareMemCommBuilder.NAME == "deepspeed_shm_comm"
    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRISTMILL_SCRATCH", str(tmp_path))
    return tmp_path / f"ranks-{os.getuid()}"


def test_ranks_of_one_starter_meet_at_one_place_and_others_elsewhere(scratch: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        places = [main._meeting_place(starter) for starter in (os.getpid(), os.getpid(), other.pid)]
        other.kill()
    assert places[0] == places[1] != places[2]
    assert {place.parent for place in places} == {scratch}
    assert scratch.stat().st_mode & 0o777 == 0o700


def test_the_meeting_place_of_killed_ranks_goes_and_that_of_living_ones_stays(scratch: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as living, subprocess.Popen(["sleep", "60"]) as killed:
        places = [main._meeting_place(one.pid) for one in (living, killed)]
        for place in places:
            place.touch()
        here = places[0].name.rsplit("-", 2)[0]
        reused = scratch / f"{here}-{living.pid}-1"  # a process of that number, started at another time
        elsewhere = scratch / f"01234567-1-{killed.pid}-1"  # of another machine or container
        reused.touch(), elsewhere.touch()
        killed.kill()
        killed.wait()
        main._meeting_place(os.getpid())
        assert sorted(scratch.iterdir()) == sorted([places[0], elsewhere])
        living.kill()


def test_a_missing_library_is_one_line_that_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "open_run", MagicMock())
    monkeypatch.setattr(main, "find", Mock(return_value=None))
    monkeypatch.setattr(main, "_run", Mock(side_effect=ModuleNotFoundError("No module named 'torch'", name="torch")))
    monkeypatch.setattr(main.StopFlag, "install", lambda flag: flag)
    assert main.main(["pretrain", "--recipe", "x"]) == 78
    said = 'error: the library torch is not installed; in Gristmill\'s checkout: pip install ".[train]"\n'
    assert capsys.readouterr().err == said
