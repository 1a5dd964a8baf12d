"""A limit of processor time on the work for one document.

A timer signal interrupts Python code and regular expressions, because the interpreter checks for signals while it runs
them. Compiled kernels do not check for signals, but each reads its text a fixed number of times.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class TooSlow(BaseException):
    """The work exceeded its limit. A BaseException, so that no library's `except Exception` catches it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block once it has used `seconds` of user-mode processor time, and every second after that.

    Works only in the main thread of a process.
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
