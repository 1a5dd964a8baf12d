"""Work that goes on behind the training steps: the upload of a checkpoint."""

import threading
import time
from collections.abc import Callable


class Behind:
    """At most one piece of work at a time, in a thread of its own. Its error is raised where the loop asks for it."""

    def __init__(self) -> None:
        self.what = ""
        """The work under way, or the last one, as messages name it."""
        self.took_s = 0.0
        """Seconds that the last finished work took; 0 before the first."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._began = 0.0

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def left_s(self) -> float:
        """Seconds that the work under way still takes if it is as fast as the last one; 0 if none is under way."""
        return max(0.0, self.took_s - (time.monotonic() - self._began)) if self.busy else 0.0

    def start(self, what: str, work: Callable[[], None]) -> None:
        """Start the work. Call `wait` first: two pieces of work never run at a time."""
        assert not self.busy, self.what
        self.what, self._began = what, time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(work,), name=what, daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
            self.took_s = time.monotonic() - self._began
        except BaseException as error:  # it belongs to the loop, which raises it
            self._error = error

    def check(self) -> None:
        """Raise the error of work that has failed, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait for the end of the work under way, and raise its error."""
        if self._thread is not None:
            self._thread.join()
        self.check()
