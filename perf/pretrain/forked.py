"""Runs a part of a bench in a process of its own that has imported everything already."""

import os
import sys
import traceback
from collections.abc import Callable


def forked(work: Callable[[], int]) -> int:
    """The exit code of `work` in a child process, negative if a signal ended it.

    An exception ends the child, with its traceback and code 1. If it climbed on, the child would run its parent's code to
    the end, and delete its parent's temporary folders.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
