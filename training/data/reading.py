"""The packed tokens, as training reads them.

The rows of a step are a pure function of the step. So a resumed run continues exactly where it stopped, on any number
of processes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from contract.errors import InputError
from contract.kinds import Kind
from contract.shards import open_shard
from training.data.batch import Batch
from training.data.order import rows_of, share_of
from training.engine.job import Job


class TokenData:
    """The shards of one kind, memory-mapped.

    Attention is causal over the whole sequence, so it crosses the boundaries of documents packed together.
    """

    def __init__(self, job: Job, kind: Kind, seed: int = 0) -> None:
        """`kind` is `tokens` or `heldout_tokens`. Raises InputError if there is no sequence of kind `tokens`."""
        manifest = job.manifest("pack")
        self._shards = [open_shard(job.scratch.download(file)) for file in manifest.of(kind)]
        self._starts = np.cumsum([0, *(len(shard.tokens) for shard in self._shards)])
        self._seed = seed
        if kind == Kind.TOKENS and not len(self):
            raise InputError(f"{job.store.full(manifest.path)}: lists no token; the corpus is empty, check the funnel")

    def __len__(self) -> int:
        """The number of sequences."""
        return int(self._starts[-1])

    def rows(self, indices: list[int]) -> Batch:
        """These sequences, on the CPU; `count` covers only these."""
        sequences = [self._row(index) for index in indices]
        tokens = torch.from_numpy(np.stack([row for row, _ in sequences]).astype(np.int64))
        mask = torch.zeros(tokens.shape[0], tokens.shape[1] - 1)
        for index, (_, used) in enumerate(sequences):
            mask[index, : max(used - 1, 0)] = 1
        return Batch(tokens, mask, int(mask.sum()))

    def batch(self, step: int, batch: int, rank: int = 0, world: int = 1) -> Batch:
        """One process's rows of a step; `count` covers the rows of all processes."""
        indices = rows_of(step, batch, len(self), self._seed)
        part = self.rows(share_of(indices, rank, world))
        return Batch(part.tokens, part.mask, sum(max(self._used(index) - 1, 0) for index in indices))

    def _row(self, index: int) -> tuple[npt.NDArray[Any], int]:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._shards[shard].tokens[index - self._starts[shard]], self._used(index)

    def _used(self, index: int) -> int:
        """The number of tokens of a sequence without padding, which occurs only at a shard's end."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        tokens = self._shards[shard].tokens
        length = int(tokens.shape[1])
        return min(length, self._shards[shard].used - int(index - self._starts[shard]) * length)
