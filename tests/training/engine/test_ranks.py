"""Where ranks meet, and what they tell each other."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from training.engine import ranks as meeting
from training.engine.ranks import Ranks, StopFlag


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
        places = [meeting._meeting_place(starter) for starter in (os.getpid(), os.getpid(), other.pid)]
        other.kill()
    assert places[0] == places[1] != places[2]
    assert {place.parent for place in places} == {scratch}
    assert scratch.stat().st_mode & 0o777 == 0o700


def test_the_meeting_place_of_killed_ranks_goes_and_that_of_living_ones_stays(scratch: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as living, subprocess.Popen(["sleep", "60"]) as killed:
        places = [meeting._meeting_place(one.pid) for one in (living, killed)]
        for place in places:
            place.touch()
        here = places[0].name.rsplit("-", 2)[0]
        reused = scratch / f"{here}-{living.pid}-1"  # a process of that number, started at another time
        elsewhere = scratch / f"01234567-1-{killed.pid}-1"  # of another machine or container
        reused.touch(), elsewhere.touch()
        killed.kill()
        killed.wait()
        meeting._meeting_place(os.getpid())
        assert sorted(scratch.iterdir()) == sorted([places[0], elsewhere])
        living.kill()


def launch(script: str, scratch: Path, processes: int = 2) -> list[str]:
    """The sorted lines that the ranks of one machine print; each runs the script."""
    group = f"""
import os, subprocess, sys
ranks = [subprocess.Popen([sys.executable, '-c', {script!r}], env={{**os.environ, 'RANK': str(n), 'LOCAL_RANK': str(n)}}) for n in range({processes})]
sys.exit(max(one.wait() for one in ranks))
"""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MASTER_", "GLOO_", "NCCL_"))}
    clean |= {"WORLD_SIZE": str(processes), "LOCAL_SIZE": str(processes)}
    clean |= {"DS_ACCELERATOR": "cpu", "GRISTMILL_SCRATCH": str(scratch)}
    done = subprocess.run([sys.executable, "-c", group], env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


EXCHANGING = """
import os
from training.engine.ranks import join
ranks = join()
said = [
    ranks.share(['step-2', 'Zürich'] if ranks.rank == 0 else []),
    ranks.share('' if ranks.rank == 0 else 'another'),
    ranks.gather(None if ranks.rank else 5),
    ranks.rows({1: ([7, 0], 1.5)} if ranks.rank == 0 else {0: ([], 0.1), 2: ([9], -2.0)}),
    ranks.rows({}),
    ranks.sum(0.5, ranks.rank),
]
os.write(1, f'{ranks.rank} {said}\\n'.encode())
ranks.barrier()
os._exit(0)
"""


def test_what_ranks_tell_each_other_arrives_whole_and_in_order(tmp_path: Path) -> None:
    expected = "[['step-2', 'Zürich'], '', [5, None], [([], 0.1), ([7, 0], 1.5), ([9], -2.0)], [], [1.0, 1.0]]"
    assert launch(EXCHANGING, tmp_path) == [f"{rank} {expected}" for rank in range(2)]


def test_one_process_hears_itself() -> None:
    ranks = Ranks()
    assert (ranks.share("a"), ranks.gather(7)) == ("a", [7])
    assert ranks.rows({2: "c", 0: "a"}) == ["a", "c"]


LISTENING = """
import glob, os
from training.engine.ranks import join
import torch
ranks = join()
total = torch.ones(1)
torch.distributed.all_reduce(total)
own = {os.readlink(path) for path in glob.glob('/proc/self/fd/*') if os.path.lexists(path)}
rows = [line.split() for name in ('tcp', 'tcp6') for line in open(f'/proc/net/{name}')]
held = [row[1].partition(':')[0] for row in rows if row[3] == '0A' and f'socket:[{row[9]}]' in own]
os.write(1, f'{ranks.rank} of {ranks.world}: {total.item():g} {sorted(set(held))}\\n'.encode())
ranks.leave()
assert not torch.distributed.is_initialized()
os._exit(0)
"""


def test_the_ranks_of_one_machine_meet_in_a_file_and_listen_on_loopback_alone(tmp_path: Path) -> None:
    assert launch(LISTENING, tmp_path) == [f"{rank} of 2: 2 ['0100007F']" for rank in range(2)]
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_all_stop_where_one_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(stop=StopFlag())
    assert not ranks.stopping()
    ranks.stop._raise(signal.SIGTERM, None)
    assert ranks.stopping()
    unasked = Ranks(1, 1, 2)
    monkeypatch.setattr(unasked, "sum", lambda *values: [value + 1 for value in values])  # the other's flag is raised
    assert unasked.stopping()


def test_the_second_interrupt_ends_the_process_at_once() -> None:
    flag = StopFlag()
    flag._raise(signal.SIGINT, None)
    flag._raise(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        flag._raise(signal.SIGINT, None)
