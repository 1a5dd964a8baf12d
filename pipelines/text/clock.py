"""A limit of processor time on the work for one document.

Python's own code and its patterns look for signals while they run, so a timer ends them. Compiled kernels look for none; each is a loop
that reads its text a fixed number of times.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class TooSlow(BaseException):
    """The work took longer than it may. No `except Exception` of a library takes it for its own."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooSlow within the block once it has used so many seconds of processor time outside the kernel, and each second after that.

    Works in a process's main thread alone.
    """
    over = False

    def end(*_: object) -> None:
        if not over:
            raise TooSlow(f"{seconds:g} s")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1.0)
    try:
        try:
            yield
        finally:
            over = True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
