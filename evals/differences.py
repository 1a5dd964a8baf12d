"""Whether one result set is worse or better than another on the same items, by ability, beyond what chance explains."""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from contract.benchmarks import ABILITIES
from contract.errors import InputError
from evals.ablation import holm
from evals.grading import clusters_of, grouped
from evals.intervals import CONFIDENCE, wilson
from evals.records import Record

DRAWS = 10_000
BATCH = 500  # draws at a time: what they need stays below 100 MB for 20,000 clusters
EXACT_CLUSTERS = 12  # so many are flipped in every way


@dataclass(frozen=True)
class Difference:
    """An ability, or one of its tasks, in two result sets. difference: second less first, with its interval.

    p: of the paired test. adjusted: for the number of abilities that were tested (Holm). test: which one it was.
    least: the smallest p that any result on these sources could have had; once adjusted, with the others as they are.
    """

    ability: str
    task: str | None
    first: float
    second: float
    low: float
    high: float
    n: int
    sources: int
    test: str
    p: float
    adjusted: float = 1.0
    least: float = 0.0

    @property
    def difference(self) -> float:
        return self.second - self.first

    def worse(self, confidence: float = CONFIDENCE) -> bool:
        """Whether the second set is worse beyond noise."""
        return self.difference < 0 and self.adjusted < 1 - confidence

    def better(self, confidence: float = CONFIDENCE) -> bool:
        """Whether the second set is better beyond noise."""
        return self.difference > 0 and self.adjusted < 1 - confidence

    def cannot_be_told(self, confidence: float = CONFIDENCE) -> bool:
        """Whether no result at all could be told from noise: there are too few sources for so many tests."""
        return self.least >= 1 - confidence


def compare(first: Sequence[Record], second: Sequence[Record], confidence: float = CONFIDENCE) -> list[Difference]:
    """The abilities, then the tasks, of two result sets that hold the same items.

    An ability takes the items of its tasks together. Only abilities are corrected for their number, and they alone
    decide; the tasks say where a difference comes from. Raises InputError if the items are not the same.
    """
    mine, theirs = _by_task(first), _by_task(second)
    if mine.keys() != theirs.keys():
        only = sorted(mine.keys() ^ theirs.keys())
        raise InputError(f"the two result sets have not the same tasks: only one has {', '.join(only)}")
    rows = {task: _paired(task, mine[task], theirs[task]) for task in mine}
    abilities: dict[str, list[str]] = defaultdict(list)
    for task, (records, *_) in rows.items():
        abilities[records[0].ability].append(task)
    ordered = sorted(abilities, key=lambda one: (*ABILITIES, one).index(one))
    found = [_tested(one, None, [rows[task] for task in abilities[one]], confidence) for one in ordered]
    of_tasks = [_tested(one, task, [rows[task]], confidence) for one in ordered for task in abilities[one]]
    return corrected(found) + [replace(one, adjusted=one.p) for one in of_tasks]


def corrected(found: Sequence[Difference]) -> list[Difference]:
    """The same with `adjusted` and `least` corrected for the number of tests (Holm)."""
    ps = [one.p for one in found]
    leasts = [holm([*ps[:at], one.least, *ps[at + 1 :]])[at] for at, one in enumerate(found)]
    return [replace(one, adjusted=p, least=least) for one, p, least in zip(found, holm(ps), leasts, strict=True)]


Paired = tuple[list[Record], list[float], list[float]]
"""One record of each item, and the items' scores in both sets."""


def _by_task(records: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for one in records:
        found[one.task].append(one)
    return found


def _paired(task: str, first: Sequence[Record], second: Sequence[Record]) -> Paired:
    mine, theirs = grouped(first), grouped(second)
    if mine.keys() != theirs.keys():
        differing = mine.keys() ^ theirs.keys()
        raise InputError(
            f"{task}: {len(differing)} items are in one result set alone, for example {min(differing)!r}; "
            "a paired test needs the same items"
        )
    ids = [*mine]
    heads = [mine[one][0] for one in ids]
    for head in heads:
        if head.expected != theirs[head.id][0].expected:
            raise InputError(f"{task}: item {head.id!r} has another answer in each set; they are not the same items")
    means = [[fmean(record.score for record in side[one]) for one in ids] for side in (mine, theirs)]
    return heads, means[0], means[1]


def _tested(ability: str, task: str | None, parts: Sequence[Paired], confidence: float) -> Difference:
    heads = [head for part in parts for head in part[0]]
    first = [score for part in parts for score in part[1]]
    second = [score for part in parts for score in part[2]]
    clusters = [
        (at, cluster) for at, part in enumerate(parts) for cluster in clusters_of([one.source for one in part[0]])
    ]
    gaps = [late - early for early, late in zip(first, second, strict=True)]
    low, high = bootstrap(gaps, clusters, confidence)
    alone = len(set(clusters)) == len(clusters)
    if alone and all(gap in (-1, 0, 1) for gap in gaps):
        test, p = "McNemar, exact", mcnemar(gaps.count(-1), gaps.count(1))
        least = mcnemar(len(gaps), 0)
    else:
        test, p = "sign flips by source", sign_flip(gaps, clusters)
        least = least_of_flips(len(set(clusters)))
    sources = len({(one.task, one.source) for one in heads})
    return Difference(ability, task, fmean(first), fmean(second), low, high, len(gaps), sources, test, p, least=least)


def mcnemar(lost: int, won: int) -> float:
    """The two-sided exact p-value of McNemar's test: items that only the first, and only the second set has right.

    The discordant items fall on both sides like a fair coin if there is no difference.
    """
    count, least = lost + won, min(lost, won)
    if not count:
        return 1.0
    tail = math.fsum(math.exp(_log_choose(count, at) - count * math.log(2)) for at in range(least + 1))
    return min(1.0, 2 * tail)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _sums(gaps: Sequence[float], clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """(The sum of each cluster's gaps, its size), in the order of the clusters' first items."""
    places: Mapping[Hashable, int] = {one: at for at, one in enumerate(dict.fromkeys(clusters))}
    at = np.array([places[one] for one in clusters])
    return np.bincount(at, weights=np.asarray(gaps, float)), np.bincount(at).astype(float)


def sign_flip(gaps: Sequence[float], clusters: Sequence[Hashable], seed: int = 0) -> float:
    """The two-sided p-value of the mean gap if each cluster could as well have the other sign (Fisher's randomisation).

    Exact for at most EXACT_CLUSTERS clusters that differ; else of DRAWS random draws, with the observed one among them.
    """
    sums, _ = _sums(gaps, clusters)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    seen = abs(sums.sum()) * (1 - 1e-12)
    if len(sums) <= EXACT_CLUSTERS:
        ways = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1) * 2 - 1
        return float((np.abs(ways @ sums) >= seen).mean())
    random = np.random.default_rng(seed)
    as_far = 0
    for _ in range(0, DRAWS, BATCH):
        signs = random.integers(0, 2, (BATCH, len(sums))) * 2 - 1
        as_far += int((np.abs(signs @ sums) >= seen).sum())
    return (as_far + 1) / (DRAWS + 1)


def least_of_flips(clusters: int) -> float:
    """The smallest p-value that `sign_flip` can return of so many clusters: where all differ and have one sign."""
    return min(1.0, 2 / 2**clusters) if clusters <= EXACT_CLUSTERS else 1 / (DRAWS + 1)


def bootstrap(
    gaps: Sequence[float], clusters: Sequence[Hashable], confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of the mean gap over clusters drawn with replacement (Efron 1979): (low, high).

    With one cluster nothing is known: (-1, 1). If all gaps are equal, the bootstrap gives an interval of zero width,
    however few they are. Then Wilson's interval of zero successes in so many clusters says what share of other gaps
    could have gone unseen, and the interval allows each of these to be -1 or 1.
    """
    sums, sizes = _sums(gaps, clusters)
    if len(sums) < 2:
        return -1.0, 1.0
    if min(gaps) == max(gaps):
        unseen = wilson(0, float(sizes.sum() ** 2 / (sizes**2).sum()), confidence)[1]
        return gaps[0] - (1 + gaps[0]) * unseen, gaps[0] + (1 - gaps[0]) * unseen
    random = np.random.default_rng(seed)
    means: list[np.ndarray] = []
    for _ in range(0, DRAWS, BATCH):
        drawn = random.integers(0, len(sums), (BATCH, len(sums)))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
