"""The threads in which pages are made: a few of the cockpit's own, so that a slow page cannot hold up Airflow's."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from reports.cockpit.visitor import Refused

T = TypeVar("T")
THREADS = 4
WAITING = 100
LIMIT_S = 15.0


class Desk:
    """Runs work in threads of its own. waiting: how much may wait for a thread; limit_s: seconds that it may take."""

    def __init__(self, threads: int = THREADS, waiting: int = WAITING, limit_s: float = LIMIT_S) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="cockpit")
        self._most, self._limit_s = threads + waiting, limit_s
        self._lock, self._busy = threading.Lock(), 0

    async def do(self, work: Callable[[], T], late: str = "") -> T:
        """What `work` returns. Raises Refused if too much waits already, or if it is not done in time.

        Work that has begun cannot be stopped, so it keeps its thread to its end; work that still waits is dropped.
        late: the sentence for work that has begun and is not done in time, with `{}` for the limit in seconds.
        """
        with self._lock:
            if self._busy >= self._most:
                raise Refused(503, "Too many pages are being made at this moment. Load this page again in a minute.")
            self._busy += 1
        begun = self._pool.submit(work)
        begun.add_done_callback(self._free)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(begun), self._limit_s)
        except TimeoutError:
            usual = "This page takes longer than {:g} seconds. Ask for less, or load it again."
            said = late if late and not begun.cancelled() else usual
            raise Refused(503, said.format(self._limit_s)) from None

    def _free(self, _: Future[Any]) -> None:
        with self._lock:
            self._busy -= 1
