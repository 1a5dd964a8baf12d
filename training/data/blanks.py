"""Blank infilling (Du et al. 2022, GLM, section 2.1): rows of text with blanks, followed by what was there.

    x1 x2 x3 x4 x5 x6 with the spans x3 and x5 x6, in a random order:

    tokens     x1  x2  []  x4  []  <  x5  x6  >  <  x3  >
    position    0   1   2   3   4  4   4   4  4  2   2  2      of the blank, in the context
    place       0   0   0   0   0  1   2   3  4  1   2  3      in the span
    predicted                      x5  x6  >     x3  >

A token of the context sees the whole context; one of a span sees the context and all that stands before it in the
spans. What is drawn follows from the seed, the step and the row alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from contract.settings.training import Blanks
from training.data.batch import Batch, Row
from training.data.order import round_keys
from training.data.reading import TokenData

Ids = npt.NDArray[np.int64]

EXTRA = 3  # tokens that a span adds to a row: its blank, its begin and its end
HELD_OUT = -1  # the step of held-out rows, whose blanks are always the same


@dataclass(frozen=True)
class Blanked:
    """A row with blanks; all have the row's length. places: from 1 in a span, 0 in the context.

    documents: the document of each token, counted from 0; -1 where the row is padded.
    """

    tokens: Ids
    positions: Ids
    places: Ids
    documents: Ids


@dataclass(frozen=True)
class Infilling:
    """Makes blanks in rows. blank, begins and ends are the ids of the tokens that stand for, begin and end a span."""

    settings: Blanks
    seed: int
    blank: int
    begins: int
    ends: int
    boundaries: bool = True
    """Whether the documents of a row are kept apart: their spans, positions, and what they see."""

    def batch(self, data: TokenData, numbers: list[int], step: int) -> Batch:
        """These rows of a step, with blanks; `count` covers only these."""
        read = zip(data.read(numbers), numbers, strict=True)
        return collate([self.row(one, data.seq_len + 1, step, number) for one, number in read])

    def row(self, row: Row, length: int, step: int, number: int) -> Blanked:
        """A row of `length` tokens: as much of the text as fits together with its spans."""
        key = round_keys("blanks", self.seed, step, number)
        random = np.random.Generator(np.random.Philox(key=np.array(key[:2], np.uint64)))
        lengths = lengths_of(random.random(length), self.settings.mean_span, self.settings.longest_span)
        used, count = fitting(len(row.tokens), length, lengths, self.settings.share)
        first = int(random.random() * (len(row.tokens) - used + 1))
        starts = np.clip(row.starts, first, first + used) if self.boundaries else np.array([first])
        edges = np.unique([first, *starts.tolist(), first + used]).tolist()
        spans = list(spans_of(edges, lengths[:count], self.settings.share, random))
        order = np.argsort(random.random(len(spans)))
        return self._assembled(row.tokens, edges, spans, order.tolist(), length)

    def _assembled(
        self,
        tokens: npt.NDArray[np.integer],
        edges: list[int],
        spans: list[tuple[int, int]],
        order: list[int],
        size: int,
    ) -> Blanked:
        """The context with its blanks, then the spans (begin, end) in their order, then padding with token 0."""
        parts: list[Ids] = []  # of four rows: tokens, positions, places, documents
        blanks: list[tuple[int, int]] = []  # of each span: position of its blank, document
        left = iter([*spans, (edges[-1], edges[-1])])
        begin, end = next(left)
        for document, (at, stop) in enumerate(pairwise(edges)):
            context: list[Ids] = []
            held = 0
            while begin < stop:
                context += [tokens[at:begin].astype(np.int64), np.array([self.blank])]
                held += begin - at + 1
                blanks.append((held - 1, document))
                at = end
                begin, end = next(left)
            ids = np.concatenate([*context, tokens[at:stop].astype(np.int64)])
            parts.append(np.stack([ids, np.arange(len(ids)), np.zeros_like(ids), np.full_like(ids, document)]))
        for index in order:
            (begin, end), (position, document) = spans[index], blanks[index]
            ids = np.concatenate([[self.begins], tokens[begin:end].astype(np.int64), [self.ends]])
            alike = np.full_like(ids, position), np.arange(1, len(ids) + 1), np.full_like(ids, document)
            parts.append(np.stack([ids, *alike]))
        empty = size - sum(part.shape[1] for part in parts)
        padding = np.zeros(empty, np.int64)
        parts.append(np.stack([padding, np.arange(empty), padding, padding - 1]))
        return Blanked(*np.concatenate(parts, axis=1))


@dataclass(frozen=True)
class HeldOutRows:
    """Held-out rows with blanks, which are the same in every measurement; as much of `TokenData` as measuring needs."""

    data: TokenData
    infilling: Infilling

    def sample(self, count: int) -> list[int]:
        return self.data.sample(count)

    def rows(self, numbers: list[int]) -> Batch:
        return self.infilling.batch(self.data, numbers, HELD_OUT)


def lengths_of(uniform: npt.NDArray[np.float64], mean: float, longest: int) -> Ids:
    """Lengths of spans, drawn Poisson from 1 to `longest`, one for each uniform number in [0, 1).

    A length of 0 or beyond is drawn again, so with mean 3 the mean of the lengths is 3 / (1 - exp(-3)) = 3.16.
    """
    chance = np.exp([size * math.log(mean) - math.lgamma(size + 1) for size in range(1, longest + 1)])
    below = chance.cumsum() / chance.sum()
    return np.searchsorted(below[:-1], uniform, side="right") + 1


def fitting(tokens: int, length: int, lengths: Ids, share: float) -> tuple[int, int]:
    """(how many of a text's tokens fit a row of `length` together with their spans, how many spans these have).

    Spans are added until they hold `share` of the tokens (GLM, section 2.1).
    """
    after = np.concatenate([[0], np.cumsum(lengths)])
    room = np.maximum(np.minimum(tokens, length - EXTRA * np.arange(len(after))), 0)
    count = int(np.argmax(after >= share * room))
    return int(room[count]), count


def spans_of(
    edges: Sequence[int], lengths: Ids, share: float, random: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """(begin, end) of spans of these lengths in the documents between the edges, in the order of the text.

    Every document has its share of the spans. Between two spans of a document at least one token is left, and at least
    one of each document; a span that a short document has no room for is cut.
    """
    at = held = 0
    for begin, end in pairwise(edges):
        own: list[int] = []
        while at < len(lengths) and held < share * (end - edges[0]):
            size = min(int(lengths[at]), end - begin - sum(own) - max(len(own), 1))
            if size < 1:
                break
            own.append(size)
            held, at = held + size, at + 1
        left = end - begin - sum(own)
        gaps = np.sort(np.argsort(random.random(left + 1))[: len(own)])  # where spans stand among the tokens left
        for number, (gap, size) in enumerate(zip(gaps.tolist(), own, strict=True)):
            start = begin + gap + sum(own[:number])
            yield start, start + size


def collate(rows: Sequence[Blanked]) -> Batch:
    """Rows with blanks as a batch. Predicted is what follows the begin of a span and each of its tokens."""
    tokens, positions, places, documents = (
        torch.from_numpy(np.stack([getattr(row, name) for row in rows]))
        for name in ("tokens", "positions", "places", "documents")
    )
    mask = (places[:, 1:] > 1).float()  # the begin of a span is not predicted
    inputs = positions[:, :-1], places[:, :-1], documents[:, :-1]
    return Batch(tokens, mask, int(mask.sum()), *inputs)
