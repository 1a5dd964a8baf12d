"""Work behind the steps: one piece at a time, its error raised once where the loop asks, its time remembered."""

import threading
import time

import pytest

from contract.errors import StoreError
from training.engine import behind
from training.engine.behind import Behind


def test_the_loop_goes_on_until_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    now, gate = [100.0], threading.Event()
    monkeypatch.setattr(behind.time, "monotonic", lambda: now[0])
    work = Behind()
    work.wait()
    assert (work.busy, work.left_s, work.took_s) == (False, 0, 0)
    work.start("checkpoint of step 4", gate.wait)
    assert (work.busy, work.left_s, work.what) == (True, 0, "checkpoint of step 4")
    now[0] += 8
    gate.set()
    work.wait()
    assert (work.busy, work.left_s, work.took_s) == (False, 0, 8)
    gate.clear()
    work.start("checkpoint of step 8", gate.wait)
    now[0] += 3
    assert work.left_s == 5
    now[0] += 9
    assert work.left_s == 0
    gate.set()
    work.wait()


@pytest.mark.parametrize("ask", [Behind.check, Behind.wait])
def test_an_error_is_raised_once(ask: object) -> None:
    def fail() -> None:
        raise StoreError("503 Slow Down")

    work = Behind()
    work.start("checkpoint of step 4", fail)
    assert work._thread is not None
    work._thread.join()
    with pytest.raises(StoreError, match="503 Slow Down"):
        ask(work)  # type: ignore[operator]
    assert work.took_s == 0, "what failed says nothing of how long an upload takes"
    work.check()
    work.wait()


def test_an_error_in_the_stage_waits_for_the_work_under_way_on_every_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    work, gate, there = Behind(), threading.Event(), threading.Event()
    done: list[str] = []

    def upload() -> None:
        gate.wait(60)
        done.append("own part")

    work.start("checkpoint of step 4", upload, there.is_set)
    threading.Timer(0.2, gate.set).start()
    threading.Timer(0.5, there.set).start()
    with pytest.raises(ValueError, match="out of memory"), work.ended(None):
        raise ValueError("out of memory")
    assert (done, there.is_set()) == (["own part"], True)
    assert (
        capsys.readouterr().out == "the checkpoint of step 4 is still being uploaded; the error is reported after it\n"
    )


def test_an_error_in_the_stage_waits_no_longer_than_the_grace_period() -> None:
    for hangs in (True, False):
        work, gate = Behind(), threading.Event()
        work.start("checkpoint of step 4", lambda hangs=hangs, gate=gate: hangs and gate.wait(60), lambda: False)
        began = time.monotonic()
        with pytest.raises(ValueError, match="first"), work.ended(0.4):
            raise ValueError("first")
        assert 0.4 <= time.monotonic() - began < 10
        gate.set()


@pytest.mark.parametrize("fails", [True, False])
def test_an_error_in_the_stage_waits_for_nothing_where_nothing_is_under_way(fails: bool) -> None:
    def upload() -> None:
        if fails:
            raise StoreError("503")

    work, began = Behind(), time.monotonic()
    with pytest.raises(ValueError, match="first"), work.ended(None):
        raise ValueError("first")

    def stage() -> None:
        with work.ended(None):
            work.start("checkpoint of step 4", upload, lambda: False)
            work.wait()
            raise ValueError("nothing is left of it")

    with pytest.raises(StoreError if fails else ValueError):
        stage()
    assert time.monotonic() - began < 10
