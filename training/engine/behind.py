"""Work that goes on behind the training steps: the upload of a checkpoint."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from torch import Tensor

PATIENCE_S = 600.0  # after an error, for the work under way, where nobody said how long a stop may take
ASK_S = 0.2


class Behind:
    """At most one piece of work at a time, in a thread of its own. Its error is raised where the loop asks for it."""

    def __init__(self) -> None:
        self.what = ""
        """The work under way, or the last one, as messages name it."""
        self.took_s = 0.0
        """Seconds that the last finished work took, also before a resume; 0 before the first."""
        self.copied: dict[str, Tensor] = {}
        """What the work reads. It stays for the next copy: the system takes longer to give memory than to fill it."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._began = 0.0
        self._settled: Callable[[], bool] = lambda: True

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def left_s(self) -> float:
        """Seconds that the work under way still takes if it is as fast as the last one; 0 if none is under way."""
        return max(0.0, self.took_s - (time.monotonic() - self._began)) if self.busy else 0.0

    def start(self, what: str, work: Callable[[], None], settled: Callable[[], bool] = lambda: True) -> None:
        """Start the work. Call `wait` first: two pieces of work never run at a time.

        `settled` tells whether other processes have done their part of it too.
        """
        assert not self.busy, self.what
        self.what, self._began, self._settled = what, time.monotonic(), settled
        self._thread = threading.Thread(target=self._run, args=(work,), name=what, daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
            self.took_s = time.monotonic() - self._began
        except BaseException as error:  # it belongs to the loop, which raises it
            self._error, self._settled = error, lambda: True

    def check(self) -> None:
        """Raise the error of work that has failed, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait for the end of the work under way, and raise its error."""
        if self._thread is not None:
            self._thread.join()
        self._settled = lambda: True
        self.check()

    @contextlib.contextmanager
    def ended(self, grace_s: float | None) -> Iterator[None]:
        """Context for a stage: an error in it leaves no work half done, if that ends within the grace period.

        Without this, hours of training since the last checkpoint would be lost because of a minute.
        """
        try:
            yield
        except Exception:
            until = time.monotonic() + (PATIENCE_S if grace_s is None else grace_s)
            if self.busy:
                print(f"the {self.what} is still being uploaded; the error is reported after it", flush=True)
            self._leave(until)
            raise

    def _leave(self, until: float) -> None:
        if self._thread is None:
            return
        self._thread.join(max(0.0, until - time.monotonic()))
        while time.monotonic() < until:
            with contextlib.suppress(Exception):  # the error that ends the stage is the one to report
                if self._settled():
                    return
            time.sleep(ASK_S)
