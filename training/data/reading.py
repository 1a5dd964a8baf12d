"""The packed tokens, as training reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contract.errors import InputError
from contract.kinds import Kind
from contract.shards import open_shard
from training.data.order import share_of
from training.engine.job import Job


@dataclass(frozen=True)
class Batch:
    """tokens (B, T), int64; mask (B, T - 1), 1 where the next token is predicted; count: ones in a step's masks."""

    tokens: Tensor
    mask: Tensor
    count: int


CRAWL = "crawl"  # the source of files whose manifest names none


class TokenData:
    """The shards of one kind, memory-mapped.

    Attention is causal over the whole sequence, so it crosses the boundaries of documents packed together.
    """

    def __init__(self, job: Job, kind: Kind) -> None:
        """`kind` is `tokens` or `heldout_tokens`. Raises InputError if there is no sequence of kind `tokens`."""
        manifest = job.manifest("pack")
        files = manifest.of(kind)
        self._shards = [open_shard(job.scratch.download(file)) for file in files]
        self._starts = np.cumsum([0, *(len(shard.tokens) for shard in self._shards)])
        self._of: dict[str, list[int]] = {}
        for number, file in enumerate(files):
            self._of.setdefault(file.source or CRAWL, []).append(number)
        if kind == Kind.TOKENS and not len(self):
            raise InputError(f"{job.store.full(manifest.path)}: lists no token; the corpus is empty, check the funnel")

    def __len__(self) -> int:
        """The number of sequences."""
        return int(self._starts[-1])

    @property
    def sources(self) -> dict[str, int]:
        """The number of sequences of each source."""
        return {source: sum(self._rows_in(shard) for shard in shards) for source, shards in self._of.items()}

    def number(self, source: str, row: int) -> int:
        """The number, among all sequences, of a source's sequence. Its shards are one list, in the manifest's order."""
        left = row
        for shard in self._of[source]:
            if left < self._rows_in(shard):
                return int(self._starts[shard]) + left
            left -= self._rows_in(shard)
        raise IndexError(f"{source} has no sequence {row}")

    def rows(self, indices: list[int]) -> Batch:
        """These sequences, on the CPU; `count` covers only these."""
        sequences = [self._row(index) for index in indices]
        tokens = torch.from_numpy(np.stack([row for row, _ in sequences]).astype(np.int64))
        mask = torch.zeros(tokens.shape[0], tokens.shape[1] - 1)
        for index, (_, used) in enumerate(sequences):
            mask[index, : max(used - 1, 0)] = 1
        return Batch(tokens, mask, int(mask.sum()))

    def batch(self, draws: Sequence[tuple[str, int]], rank: int = 0, world: int = 1) -> Batch:
        """One process's share of a step's draws, (source, row) each; `count` covers the rows of all processes."""
        indices = [self.number(source, row) for source, row in draws]
        part = self.rows(share_of(indices, rank, world))
        return Batch(part.tokens, part.mask, sum(max(self._used(index) - 1, 0) for index in indices))

    def _rows_in(self, shard: int) -> int:
        return int(self._starts[shard + 1] - self._starts[shard])

    def _row(self, index: int) -> tuple[npt.NDArray[Any], int]:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._shards[shard].tokens[index - self._starts[shard]], self._used(index)

    def _used(self, index: int) -> int:
        """The number of tokens of a sequence without padding, which occurs only at a shard's end."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        tokens = self._shards[shard].tokens
        length = int(tokens.shape[1])
        return min(length, self._shards[shard].used - int(index - self._starts[shard]) * length)
