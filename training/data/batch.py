"""A batch of packed rows: what the model gets, and what it is asked to predict."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from training.engine.ranks import Ranks


@dataclass(frozen=True)
class Row:
    """One row: its token ids, and where documents begin in it, increasing from 0.

    jumps: where a piece begins that does not follow the one before it in the shard.
    """

    tokens: npt.NDArray[np.integer]
    starts: npt.NDArray[np.integer]
    jumps: npt.NDArray[np.integer] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Batch:
    """Rows of tokens and what is predicted of them.

    tokens (B, T + 1), int64. mask (B, T): 1 where the next token is predicted. count: the ones in the masks of a step.
    positions (B, T), int64: each token's position in its document; None if documents of a row see each other.
    sources (B,), int64: the number of each row's source; None where sources are not told apart.

    For blank infilling `positions` are first positions: of a token of a span that of its blank. places (B, T), int64:
    each token's place in its span from 1 on, 0 in the context. documents (B, T), int64: the document of each token,
    counted from 0; -1 where the row is padded. Otherwise both are None.
    """

    tokens: Tensor
    mask: Tensor
    count: int
    positions: Tensor | None = None
    sources: Tensor | None = None
    places: Tensor | None = None
    documents: Tensor | None = None

    def rows(self, which: slice) -> "Batch":
        """Some of the rows; `count` stays that of the whole step."""
        return self._each(lambda one: one[which])

    def split(self, size: int) -> Iterator["Batch"]:
        """Parts of `size` rows; the last may have fewer."""
        return (self.rows(slice(start, start + size)) for start in range(0, len(self.tokens), size))

    def filled(self, rows: int) -> "Batch":
        """The same with rows of which nothing is predicted, up to this many."""
        missing = rows - len(self.tokens)
        return self._each(lambda one: torch.cat((one, one.new_zeros(missing, *one.shape[1:])))) if missing else self

    def pinned(self) -> "Batch":
        """The same in memory from which a GPU copies by itself, so that no step waits for the copy."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same with each of its tensors changed."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        changed: dict[str, Any] = {name: change(one) for name, one in given.items() if isinstance(one, Tensor)}
        return replace(self, **changed)

    def counted(self, ranks: "Ranks") -> "Batch":
        """This process's rows of a step, with the `count` of all processes' rows. Every process calls it."""
        return replace(self, count=int(ranks.sum_rows(float(self.mask.sum()))[0]))


def collate(rows: Sequence[Row], seq_len: int, boundaries: bool = True) -> Batch:
    """Rows of up to `seq_len` + 1 tokens as a batch; `count` covers only these.

    With `boundaries`, positions restart where a document begins, and its first token is not predicted, because nothing
    before it belongs to it. Padding is a document of its own of which nothing is predicted.

    Without, the first token of a piece that follows from elsewhere is not predicted: a piece that goes on with a
    document repeats a token, and the row before has predicted that.
    """
    tokens = np.zeros((len(rows), seq_len + 1), np.int64)
    mask = np.zeros((len(rows), seq_len), np.float32)
    positions = np.tile(np.arange(seq_len), (len(rows), 1))
    for at, row in enumerate(rows):
        used = len(row.tokens)
        tokens[at, :used] = row.tokens
        mask[at, : max(used - 1, 0)] = 1
        unpredicted = row.starts if boundaries else row.jumps
        mask[at, unpredicted[(unpredicted > 0) & (unpredicted <= seq_len)] - 1] = 0
        if boundaries:
            starts = np.append(row.starts, used) if used < seq_len else row.starts
            starts = starts[starts < seq_len]
            positions[at] -= np.repeat(starts, np.diff(np.append(starts, seq_len)))
    return Batch(
        torch.from_numpy(tokens),
        torch.from_numpy(mask),
        int(mask.sum()),
        torch.from_numpy(positions) if boundaries else None,
    )
