"""A limit of processor time on the work for one document.

Python's own code and its patterns look for signals while they run, so a timer ends them. Compiled kernels look for none; each is a loop
that reads its text a fixed number of times.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class TooSlow(Exception):
    """The work took longer than it may."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooSlow within the block once it has used so many seconds of processor time. Works in a process's main thread alone."""

    def end(*_: object) -> None:
        raise TooSlow(f"{seconds:g} s")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
