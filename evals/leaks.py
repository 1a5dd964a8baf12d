"""How a model answers items that were found in the training corpus, beside those that were not."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from contract.contamination import Found
from evals.grading import Score, clusters_of, grouped, scored
from evals.intervals import CONFIDENCE
from evals.records import Record

DRAWS = 10_000
BATCH = 500  # draws at a time


@dataclass(frozen=True)
class Gap:
    """By how much the mean of some items is above that of others, with its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Split:
    """One benchmark of one model, its items apart by what was found of them; None where there are none.

    leakage: leaked items less clean ones. in_distribution: overlapping items less clean ones: what such text gains
    without the item itself. Both also hold how hard the items are: the same gap of a model before shows that.
    """

    scores: Mapping[Found, Score]
    leakage: Gap | None
    in_distribution: Gap | None


def split(records: Sequence[Record], found: Mapping[str, Found], confidence: float = CONFIDENCE) -> Split:
    """The scores of a benchmark's items by what was found of them. found: item id -> Found, for every item.

    Raises KeyError for an item of which nothing is said.
    """
    items = grouped(records)
    clusters = dict(zip(items, clusters_of([some[0].source for some in items.values()]), strict=True))
    parts: dict[Found, list[str]] = defaultdict(list)
    for one in items:
        parts[found[one]].append(one)
    means = {one: fmean(record.score for record in several) for one, several in items.items()}
    scores = {
        name: scored([means[one] for one in some], [items[one][0].source for one in some], confidence)
        for name, some in sorted(parts.items())
    }

    def gap(name: Found) -> Gap | None:
        sides = [[(means[one], clusters[one]) for one in parts.get(side, [])] for side in ("clean", name)]
        return difference(sides[0], sides[1], confidence) if all(sides) else None

    return Split(scores, gap("leaked"), gap("overlapping"))


Items = Sequence[tuple[float, Hashable]]
"""Each item's score, and the source that it shares with others."""


def difference(first: Items, second: Items, confidence: float = CONFIDENCE, seed: int = 0) -> Gap:
    """The mean of the second items less that of the first, which are others, with its percentile interval.

    Sources are drawn with replacement (Efron 1979), whole, with their items of both sides. Draws in which a side has no
    item are left out. With one source, or one item on a side, nothing is known: (-1, 1).
    """
    places = {one: at for at, one in enumerate(dict.fromkeys(cluster for _, cluster in (*first, *second)))}
    sums = np.zeros((2, len(places)))
    sizes = np.zeros((2, len(places)))
    for side, items in enumerate((first, second)):
        for score, cluster in items:
            sums[side, places[cluster]] += score
            sizes[side, places[cluster]] += 1
    mean = float(sums[1].sum() / sizes[1].sum() - sums[0].sum() / sizes[0].sum())
    if len(places) < 2 or sizes.sum(1).min() < 2:
        return Gap(mean, -1.0, 1.0)
    random = np.random.default_rng(seed)
    gaps: list[np.ndarray] = []
    for _ in range(0, DRAWS, BATCH):
        drawn = random.integers(0, len(places), (BATCH, len(places)))
        counts = [sizes[side][drawn].sum(1) for side in (0, 1)]
        both = (counts[0] > 0) & (counts[1] > 0)
        totals = [sums[side][drawn].sum(1)[both] / counts[side][both] for side in (0, 1)]
        gaps.append(totals[1] - totals[0])
    low, high = np.quantile(np.concatenate(gaps), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Gap(mean, float(low), float(high))
