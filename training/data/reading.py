"""The packed tokens, as training reads them."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import File
from contract.shards import (
    Index,
    Read,
    Rows,
    ShardFiles,
    read_index,
    read_rows,
    read_rows_header,
    read_tokens,
    shards_of,
    source_of,
)
from training.data.batch import Batch, Row, collate
from training.data.order import share_of
from training.data.stream import Ranges
from training.engine.job import Job

WINDOW = 4096  # rows whose places are read at once, as many as are drawn before others
WINDOWS, INDEXES = 64, 16  # held in memory at least: 32 bytes a row and piece, 8 bytes a document
WINDOWS_OF_EACH, INDEXES_OF_EACH = 4, 3  # of every source, because the sources take turns


class TokenData:
    """The rows of one kind and sequence length. Only what rows need is read of the store, when they need it.

    The manifest says how many rows there are. Sizes and places are checked on the way; that the bytes of a range are
    those that were committed is not, because a digest covers a whole file: `python -m contract verify` checks that.
    """

    def __init__(self, job: Job, kind: Kind, seq_len: int, boundaries: bool = True) -> None:
        """`kind` is `tokens` or `heldout_tokens`. Raises InputError if there is no row of kind `tokens`."""
        manifest = job.manifest("pack")
        self.seq_len, self._boundaries = seq_len, boundaries
        self._store, self._ranges = job.store, Ranges(job.scratch)
        self._shards = sorted(shards_of(manifest, kind), key=source_of)
        self.sources: dict[str, int] = {}
        """The number of rows of each source."""
        self._first: dict[str, int] = {}
        ends = [0]
        for shard in self._shards:
            source, count = source_of(shard), self._rows_file(shard).rows
            self._first.setdefault(source, ends[-1])
            self.sources[source] = self.sources.get(source, 0) + count
            ends.append(ends[-1] + count)
        self._ends = np.array(ends)
        if kind == Kind.TOKENS and not len(self):
            raise InputError(f"{job.store.full(manifest.path)}: lists no token; the corpus is empty, check the funnel")
        self._index = lru_cache(max(INDEXES, INDEXES_OF_EACH * len(self.sources)))(self._read_index)
        self._window = lru_cache(max(WINDOWS, WINDOWS_OF_EACH * len(self.sources)))(self._read_window)

    def __len__(self) -> int:
        """The number of rows."""
        return int(self._ends[-1])

    def sample(self, count: int) -> list[int]:
        """The numbers of `count` rows, or of all if there are fewer, evenly spaced: each source has its share."""
        count = min(count, len(self))
        return [at * len(self) // count for at in range(count)]

    def batch(self, draws: Sequence[tuple[str, int]], rank: int = 0, world: int = 1) -> Batch:
        """One process's share of a step's draws, (source, row) each; `count` covers only these."""
        return self.rows([self.number(source, row) for source, row in share_of(list(draws), rank, world)])

    def number(self, source: str, row: int) -> int:
        """The number of a source's row. Raises IndexError if the source has no such row."""
        if row >= self.sources.get(source, 0):
            raise IndexError(f"{source} has no row {row}")
        return self._first[source] + row

    def source(self, number: int) -> str:
        """The source of a row."""
        return next(source for source, first in reversed(self._first.items()) if first <= number)

    def rows(self, numbers: list[int]) -> Batch:
        """These rows, on the CPU; `count` covers only these."""
        return collate(self.read(numbers), self.seq_len, self._boundaries)

    def read(self, numbers: list[int]) -> list[Row]:
        """The tokens of these rows, and where documents begin in them."""
        places = [self._place(number) for number in numbers]
        self._ranges.fetch(
            (self._shards[shard].tokens, *_bytes(self._index(shard), start, length))
            for shard, pieces in places
            for start, length in pieces
        )
        return [self._row(shard, pieces) for shard, pieces in places]

    def _place(self, number: int) -> tuple[int, list[tuple[int, int]]]:
        """(shard, its pieces) of a row."""
        shard = int(np.searchsorted(self._ends, number, side="right")) - 1
        window, row = divmod(number - int(self._ends[shard]), WINDOW)
        return shard, self._window(shard, window).pieces(row)

    def _row(self, shard: int, pieces: list[tuple[int, int]]) -> Row:
        """A row, whose documents begin where the index says, and where a piece begins."""
        index, file = self._index(shard), self._shards[shard].tokens
        tokens = [read_tokens(self._reader(file), index, start, length, self._where(file)) for start, length in pieces]
        begins: list[npt.NDArray[np.int64]] = []
        jumps, at, end = [], 0, pieces[0][0]
        for start, length in pieces:
            if start != end:
                jumps.append(at)
            inside = index.starts[slice(*np.searchsorted(index.starts, (start + 1, start + length)))]
            begins += [np.array([at]), inside - start + at]
            at, end = at + length, start + length
        return Row(np.concatenate(tokens), np.concatenate(begins), np.array(jumps, np.int64))

    def _read_index(self, shard: int) -> Index:
        files = self._shards[shard]
        index = read_index(self._reader(files.index), files.index.bytes, self._where(files.index))
        if files.tokens.bytes != index.tokens * index.type.itemsize:
            raise InputError(f"{self._where(files.tokens)}: its index is of {index.tokens} tokens; run pack again")
        return index

    def _read_window(self, shard: int, window: int) -> Rows:
        file = self._rows_file(self._shards[shard])
        header = read_rows_header(self._reader(file), file.bytes, self._where(file))
        if (header.seq_len, header.rows, header.tokens) != (self.seq_len, file.rows, self._index(shard).tokens):
            raise InputError(f"{self._where(file)}: contradicts its name, its manifest or its index; run pack again")
        end = min((window + 1) * WINDOW, header.rows)
        return read_rows(self._reader(file), header, self._where(file), window * WINDOW, end)

    def _rows_file(self, shard: ShardFiles) -> File:
        if self.seq_len not in shard.rows:
            packed = ", ".join(map(str, sorted(shard.rows)))
            raise InputError(
                f"{self._where(shard.tokens)}: there are no rows of {self.seq_len} tokens, only of {packed}; "
                f"add {self.seq_len} to pack.more_seq_lens"
            )
        return shard.rows[self.seq_len]

    def _reader(self, file: File) -> Read:
        return lambda offset, size: self._ranges.read(file, offset, offset + size)

    def _where(self, file: File) -> str:
        return self._store.full(file.path)


def _bytes(index: Index, start: int, length: int) -> tuple[int, int]:
    return start * index.type.itemsize, (start + length) * index.type.itemsize
