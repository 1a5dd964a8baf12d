"""A file of millions of names, each with its list, which every worker maps into memory. A look-up takes constant time.

The file has three arrays: the 64-bit hashes of the names, ascending; the number of the list of each name; and a
directory with, for every value of the leading bits of a hash, the index of the first hash with these bits. The
directory has about as many entries as there are names, so a look-up reads one entry and compares one or two hashes,
however many names there are. UT1's 4.6 million domains take 80 MB, which the workers of a machine share through its
page cache. A name that is in no list is found with probability n / 2^64, here 3e-13.
"""

import json
import mmap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xxhash

from contract.errors import InputError

MAGIC = b"GMLIST01"


def digest(name: bytes) -> int:
    """The 64-bit hash of a name."""
    return xxhash.xxh3_64_intdigest(name)


class Table:
    """One mapped table. `find` returns the number of the list that contains a name, or None."""

    def __init__(self, hashes: memoryview, lists: memoryview, directory: memoryview) -> None:
        self._hashes, self._lists, self._directory = hashes, lists, directory
        self._shift = 65 - (len(directory) - 1).bit_length()

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, name: str) -> int | None:
        wanted = digest(name.encode("utf-8", "replace"))
        bucket = wanted >> self._shift
        for place in range(self._directory[bucket], self._directory[bucket + 1]):
            if self._hashes[place] == wanted:
                return int(self._lists[place])
        return None


class Blocklists:
    """A compiled file, mapped read-only: the names of the lists, a table of domains and a table of URLs.

    Raises InputError if the file was not written by `save`.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        view = memoryview(self._mapped)
        if bytes(view[:8]) != MAGIC:
            raise InputError(f"{path}: is not a compiled block list; delete it and start the task again")
        size = int.from_bytes(view[8:16], "little")
        head = json.loads(bytes(view[16 : 16 + size]))
        self.names: tuple[str, ...] = tuple(head["names"])
        base = _aligned(16 + size)
        self.domains, self.urls = (
            Table(*(view[base + start : base + end].cast(kind) for start, end, kind in parts))
            for parts in head["tables"]
        )


def build(hashes: Iterable[np.ndarray], numbers: Iterable[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Build one table from the hashes and the number of each list. Returns its arrays (hashes, lists, directory).

    A name in several lists belongs to the first of them.
    """
    pieces = [np.empty(0, np.uint64), *hashes]
    lists = np.repeat(np.array([0, *numbers], np.uint16), [len(piece) for piece in pieces])
    ordered, first = np.unique(np.concatenate(pieces), return_index=True)
    bits = max(1, (len(ordered) - 1).bit_length())
    leading = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
    directory = np.append(np.searchsorted(ordered, leading), len(ordered)).astype(np.uint32)
    return ordered, lists[first], directory


def save(path: Path, names: list[str], tables: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """Write the file that `Blocklists` maps: magic, length of the head, head, arrays.

    The head is JSON: the names of the lists, and start, end and type of each array, in bytes from the end of the head.
    """
    start = 0
    places: list[list[tuple[int, int, str]]] = []
    arrays: list[tuple[int, np.ndarray]] = []
    for table in tables:
        places.append([])
        for array, kind in zip(table, "QHI", strict=True):
            places[-1].append((start, start + array.nbytes, kind))
            arrays.append((start, array))
            start = _aligned(start + array.nbytes)
    head = json.dumps({"names": names, "tables": places}).encode()
    base = _aligned(16 + len(head))
    with path.open("wb") as file:
        file.write(MAGIC + len(head).to_bytes(8, "little") + head)
        for offset, array in arrays:
            file.seek(base + offset)
            file.write(array.data)
        file.truncate(base + start)


def _aligned(size: int) -> int:
    return -(-size // 8) * 8
