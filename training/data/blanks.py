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
    boundaries: bool
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
        edges = np.unique([first, *starts.tolist(), first + used])
        found = spans_of(edges.tolist(), lengths[:count], self.settings.share, random)
        spans = np.array([*found], np.int64).reshape(-1, 2)
        order = np.argsort(random.random(len(spans)))
        return self._assembled(row.tokens, edges, spans, order, length)

    def _assembled(
        self, tokens: npt.NDArray[np.integer], edges: Ids, spans: Ids, order: npt.NDArray[np.intp], length: int
    ) -> Blanked:
        """The context with its blanks, then the spans, rows (begin, end), in their order, then padding with token 0."""
        text, (begins, ends) = tokens[edges[0] : edges[-1]].astype(np.int64), (spans - edges[0]).T
        steps = np.zeros(len(text) + 1, np.int64)
        steps[begins] += 1
        steps[ends] -= 1
        kept = steps.cumsum()[:-1] == 0
        kept[begins] = True  # for the blank
        documents = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
        positions = kept.cumsum() - 1
        positions -= positions[edges[:-1] - edges[0]][documents]  # what a document begins with is kept

        sizes = (ends - begins + 2)[order]
        span = np.repeat(order, sizes)
        places = np.arange(len(span)) - np.repeat(sizes.cumsum() - sizes, sizes) + 1
        written = text[np.clip(begins[span] + places - 2, 0, len(text) - 1)]
        written[places == 1] = self.begins
        written[places == np.repeat(sizes, sizes)] = self.ends
        text[begins] = self.blank

        padding = np.arange(length - int(kept.sum()) - len(span))
        none = np.zeros_like(padding)
        return Blanked(
            np.concatenate([text[kept], written, none]),
            np.concatenate([positions[kept], positions[begins][span], padding]),
            np.concatenate([np.zeros(int(kept.sum()), np.int64), places, none]),
            np.concatenate([documents[kept], documents[begins][span], none - 1]),
        )


@dataclass(frozen=True)
class HeldOutRows:
    """Held-out rows with the same blanks in every measurement. Has the part of `TokenData` that measuring needs."""

    data: TokenData
    infilling: Infilling

    def sample(self, count: int) -> list[int]:
        return self.data.sample(count)

    @property
    def sources(self) -> dict[str, int]:
        return self.data.sources

    def source(self, number: int) -> str:
        return self.data.source(number)

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
        left = end - begin
        while at < len(lengths) and held < share * (end - edges[0]):
            size = min(int(lengths[at]), left - max(len(own), 1))
            if size < 1:
                break
            own.append(size)
            left, held, at = left - size, held + size, at + 1
        gaps = np.sort(np.argsort(random.random(left + 1))[: len(own)])  # where spans stand among the tokens left
        for gap, size in zip(gaps.tolist(), own, strict=True):
            yield begin + gap, begin + gap + size
            begin += size


def collate(rows: Sequence[Blanked]) -> Batch:
    """Rows with blanks as a batch. Predicted is what follows the begin of a span and each of its tokens."""
    tokens, positions, places, documents = (
        torch.from_numpy(np.stack([getattr(row, name) for row in rows]))
        for name in ("tokens", "positions", "places", "documents")
    )
    mask = (places[:, 1:] > 1).float()  # the begin of a span is not predicted
    inputs = {"positions": positions[:, :-1], "places": places[:, :-1], "documents": documents[:, :-1]}
    return Batch(tokens, mask, int(mask.sum()), **inputs)
