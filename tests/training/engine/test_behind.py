"""Work behind the steps: one piece at a time, its error raised once where the loop asks, its time remembered."""

import threading

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
