"""Pages are made in a few threads of their own, with a limit of time and of how many may wait."""

import asyncio
import threading
import time

import pytest

from reports.cockpit.desk import Desk
from reports.cockpit.visitor import Refused


def test_work_is_done_in_a_thread_of_its_own():
    name = asyncio.run(Desk().do(lambda: threading.current_thread().name))
    assert name.startswith("cockpit")


def test_an_error_of_the_work_is_raised():
    with pytest.raises(ZeroDivisionError):
        asyncio.run(Desk().do(lambda: 1 // 0))


def test_work_that_takes_too_long_is_refused_and_waits_no_longer():
    desk, done = Desk(threads=1, limit_s=0.05), threading.Event()

    async def ask():
        with pytest.raises(Refused, match=r"longer than 0.05 seconds") as error:
            await desk.do(lambda: done.wait(10))
        assert error.value.status == 503
        dropped = []
        with pytest.raises(Refused, match="longer"):
            await desk.do(lambda: dropped.append(1))
        done.set()
        for _ in range(100):
            try:
                return await desk.do(lambda: dropped)
            except Refused:
                await asyncio.sleep(0.01)

    assert asyncio.run(ask()) == [], "what waited when its reader was gone is not begun"


def test_a_full_queue_is_refused_at_once_and_takes_work_again_later():
    desk, done = Desk(threads=1, waiting=1, limit_s=5), threading.Event()

    async def ask():
        first, second = (asyncio.create_task(desk.do(done.wait)) for _ in range(2))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        with pytest.raises(Refused, match="Too many pages") as error:
            await desk.do(lambda: 1)
        assert error.value.status == 503
        assert time.monotonic() - began < 1
        done.set()
        await asyncio.gather(first, second)
        return await desk.do(lambda: 3)

    assert asyncio.run(ask()) == 3


def test_late_work_that_goes_on_has_a_sentence_of_its_own() -> None:
    """What still waited is dropped, so there is nothing that goes on."""
    desk, free = Desk(threads=1, limit_s=0.2), threading.Event()

    async def both() -> list[BaseException]:
        late = "Goes on after {:g} s."
        return await asyncio.gather(desk.do(free.wait, late), desk.do(free.wait, late), return_exceptions=True)  # type: ignore[return-value]

    first, second = asyncio.run(both())
    free.set()
    assert str(first) == "Goes on after 0.2 s."
    assert str(second) == "This page takes longer than 0.2 seconds. Ask for less, or load it again."
    assert isinstance(first, Refused)
