"""Committed files as a stream: byte ranges through a cache of bounded size, and results made ahead of their use.

So training starts after a few requests, however large the corpus is, and a step rarely waits for the store.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from contract.errors import StoreError
from contract.private import private_lock

if TYPE_CHECKING:
    from contract.manifest import File
    from training.engine.scratch import Scratch

T = TypeVar("T")

CHUNK = 2 << 20  # bytes of a request: an object store's answer begins after about 30 ms, these take as long again
CACHE = 2 << 30  # bytes of chunks on this machine's disk
REQUESTS = 8  # that a process has under way at once
AHEAD = 8  # steps
LOCKS = 64
STALE = 600  # seconds after which a chunk that is still being fetched belongs to a killed process
WAIT = 900  # seconds for room in the cache; longer than STALE, so that what killed processes left is gone by then


class Ranges:
    """Byte ranges of committed files.

    Files of a local store are read in place. Of others, chunks lie in the attempt's scratch folder, at most `limit`
    bytes of them; the oldest go first. The processes of a machine share the chunks, because all of them read the same
    few blocks at the same time: each chunk crosses the network once per machine, and lies once in its page cache.
    """

    def __init__(self, scratch: "Scratch", limit: int = CACHE, chunk: int = CHUNK) -> None:
        """`limit` holds for the chunks of all processes of this machine."""
        self._scratch, self._store, self._limit, self._chunk = scratch, scratch.store, limit, chunk
        self._pool = ThreadPoolExecutor(REQUESTS, "chunk")
        self._checked: set[str] = set()

    def fetch(self, wanted: Iterable[tuple["File", int, int]]) -> None:
        """Bring the chunks of these (file, start, stop) into the cache, several at once.

        Raises DamagedError for a file that is not as it was committed, StoreError if the store goes on failing.
        """
        if self._store.is_s3:
            missing = {
                (file, at): None
                for file, start, stop in wanted
                for at in range(start // self._chunk, -(-stop // self._chunk))
                if not self._place(file, at).exists()
            }
            list(self._pool.map(lambda one: self._bring(*one), missing))

    def read(self, file: "File", start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`. Raises as `fetch` does."""
        if not self._store.is_s3:
            if file.path not in self._checked:
                file.open(self._store).close()
                self._checked.add(file.path)
            return _read(self._store.local(file.path), start, stop - start)
        parts = []
        while start < stop:
            at, offset = divmod(start, self._chunk)
            parts.append(self._part(file, at, offset, min(stop - start, self._chunk - offset)))
            start += len(parts[-1])
        return b"".join(parts)

    def _part(self, file: "File", at: int, offset: int, length: int) -> bytes:
        while True:
            try:
                return _read(self._place(file, at), offset, length)
            except FileNotFoundError:  # never fetched, or dropped for newer ones
                self._bring(file, at)

    def _place(self, file: "File", at: int) -> Path:
        return self._scratch.folder / "chunks" / f"{_digest(file.path)}-{at}"

    def _bring(self, file: "File", at: int) -> None:
        """Fetch one chunk, unless another process or thread does so at the moment: then wait for that."""
        place = self._place(file, at)
        place.parent.mkdir(parents=True, exist_ok=True)
        with private_lock(place.with_name(f"{int(_digest(place.name), 16) % LOCKS}.lock")):
            if place.exists():
                return
            part = place.with_name(place.name + ".part")
            start, stop = at * self._chunk, min((at + 1) * self._chunk, file.bytes)
            self._reserve(part, stop - start)
            try:
                with file.open(self._store) as source, part.open("r+b") as sink:
                    sink.write(self._store.read_range(file.path, source, start, stop - start))
                os.replace(part, place)
            finally:
                part.unlink(missing_ok=True)

    def _reserve(self, part: Path, size: int) -> None:
        """Make an empty file of that size, after the oldest chunks made room for it.

        Parts that killed processes left go too. Raises StoreError if there is no room for WAIT seconds.
        """
        give_up = time.monotonic() + WAIT
        while True:
            with private_lock(part.with_name("room.lock")), suppress(FileNotFoundError):  # a part that became a chunk
                entries = [entry for entry in os.scandir(part.parent) if not entry.name.endswith(".lock")]
                stale = time.time_ns() - STALE * 10**9
                held = sorted((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path) for entry in entries)
                over = sum(length for _, length, _ in held) + size - self._limit
                for changed, length, path in held:
                    if changed < stale if path.endswith(".part") else over > 0:
                        os.unlink(path)
                        over -= length
                if over <= 0:
                    with part.open("wb") as file:
                        file.truncate(size)
                    return
            if time.monotonic() > give_up:
                raise StoreError(
                    f"{part.parent}: the cache of {self._limit:,} bytes had no room for {size:,} for {WAIT:,} seconds, "
                    "because other processes filled it with what they fetch; run the task again"
                )
            time.sleep(0.01)  # other processes fill the whole cache at this moment


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), length, start)


@contextmanager
def ahead(make: Callable[[int], T], first: int, end: int, depth: int = AHEAD) -> Iterator[Iterator[T]]:
    """An iterator over make(first) to make(end - 1), which a thread of its own calls up to `depth` steps ahead.

    It begins at once. An error of `make` is raised by the step that asks for its result. The thread ends with the
    context.
    """
    with ThreadPoolExecutor(1, "ahead") as pool:
        waiting: deque[Future[T]] = deque()

        def fill(step: int) -> None:
            while len(waiting) < min(depth, end - step):
                waiting.append(pool.submit(make, step + len(waiting)))

        def results() -> Iterator[T]:
            for step in range(first, end):
                fill(step)
                yield waiting.popleft().result()

        fill(first)
        try:
            yield results()
        finally:
            pool.shutdown(cancel_futures=True)
