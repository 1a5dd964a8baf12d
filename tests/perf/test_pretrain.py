"""What benches of pretraining start in processes of their own: how these end is looked at."""

import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from perf.bars import Bars
from perf.pretrain import speed, survival
from perf.pretrain.forked import forked


def test_the_code_of_a_child_is_returned() -> None:
    def die() -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert forked(lambda: 7) == 7
    assert forked(die) == -signal.SIGKILL


def test_an_error_in_a_child_stays_there(capfd: pytest.CaptureFixture[str]) -> None:
    """It ends there: what a parent would do after an error, a child must not do."""
    parent = os.getpid()
    with TemporaryDirectory() as folder:
        Path(folder, "kept").touch()

        def fail() -> list[float]:
            raise ValueError(f"in the child of {parent}")

        try:
            with pytest.raises(AssertionError, match="fail ended with 1"):
                speed.alone(fail)
        finally:
            if os.getpid() != parent:
                os._exit(0)
        assert Path(folder, "kept").exists()
    assert f"ValueError: in the child of {parent}" in capfd.readouterr().err


def test_what_a_child_returns_comes_back() -> None:
    assert speed.alone(lambda *given: [*given, 1.5], 2.0) == [2.0, 1.5]


@pytest.mark.parametrize(
    ("codes", "why"),
    [
        ([[1, 1]], r"the first run was to die .* ended with \[1, 1\]"),
        ([[9, 1], [0, 1]], r"the second run was to end well; .* ended with \[0, 1\]"),
    ],
)
def test_a_run_that_ends_otherwise_than_it_should_survives_nothing(
    codes: list[list[int]], why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = iter(codes)
    monkeypatch.setattr(survival, "_prepare", lambda folder: None)
    monkeypatch.setattr(survival, "_start", lambda *given, **environment: next(left))
    with pytest.raises(AssertionError, match=why):
        survival.run(Bars(), tmp_path)


def test_both_processes_of_a_run_say_how_they_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(survival, "SPOILED", "import os; os._exit(3 + int(os.environ['RANK']))")
    made: Any = SimpleNamespace(uri="unused")
    assert survival._start(made, tmp_path) == [3, 4]
