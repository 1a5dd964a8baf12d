"""Writes files that a manifest will list: their sizes and checksums are taken on the way to the store."""

import hashlib
import io
from typing import Any

from contract.kinds import Kind
from contract.manifest import File
from contract.store import Store


class Writer(io.RawIOBase):
    """A binary file in the store, for libraries that write to file objects."""

    def __init__(self, store: Store, path: str) -> None:
        super().__init__()
        self._path, self._sink = path, store.open_output(path)
        self._digest, self._bytes = hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._sink.write(data)
        self._digest.update(data)
        size = memoryview(data).nbytes
        self._bytes += size
        return size

    def tell(self) -> int:
        return self._bytes

    def close(self) -> None:
        if not self.closed:
            self._sink.close()
        super().close()

    def file(self, kind: Kind, rows: int = 0, part: int | None = None) -> File:
        """The written file, for a manifest; close the writer first."""
        digest = self._digest.hexdigest()
        return File(path=self._path, kind=kind, bytes=self._bytes, rows=rows, sha256=digest, part=part)


def write_file(store: Store, path: str, kind: Kind, data: bytes, rows: int = 0, part: int | None = None) -> File:
    """Write a whole file and return it, for a manifest."""
    with Writer(store, path) as writer:
        writer.write(data)
    return writer.file(kind, rows, part)
