"""Whether one variant of a recipe is better than another, from the figures of models of several seeds.

A measure is a ratio of sums over items, for example nats over bytes of held-out documents. Two things make it
uncertain: another seed would give another model, and other items would give another figure. Both enter the interval of
a difference, each with its own quantile of Student's t, and their half widths add in squares (Howe 1974, JASA 69): with
few seeds or few items the interval is wide, as it should be.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from statistics import NormalDist, fmean, variance

from evals.intervals import t_quantile

MOST_SEEDS = 100  # nobody trains more models to decide one question
POWER = 0.8  # the usual chance that a study shall have to show a difference that is there
SMALLEST_P = 1e-9

Seeds = Mapping[int, Sequence[float]]
"""Seed -> value of each item."""


@dataclass(frozen=True)
class Measure:
    """One figure of every model: the sum of its values over the sum of the weights.

    values: variant -> seed -> value of each item. weights: of each item, the same for all models, above 0.
    """

    name: str
    values: Mapping[str, Seeds]
    weights: Sequence[float]
    lower_is_better: bool = True

    def figure(self, variant: str, seed: int) -> float:
        """The figure of one model."""
        return math.fsum(self.values[variant][seed]) / self.total

    def figures(self, variant: str) -> list[float]:
        """The figure of each seed's model, in the order of the seeds."""
        return [self.figure(variant, seed) for seed in sorted(self.values[variant])]

    @cached_property
    def total(self) -> float:
        return math.fsum(self.weights)


@dataclass(frozen=True)
class Estimate:
    """A difference of two variants' figures, first less second, and what is known of its chance.

    per_seed: the variance of the difference between seeds; the mean over n seeds has a n-th of it. by_items: the
    variance of the mean that comes from the choice of the items. Both variances are None where there are too few to
    know. degrees, item_degrees: of freedom behind the one and the other.
    """

    mean: float
    seeds: int
    per_seed: float | None
    degrees: int
    by_items: float | None
    item_degrees: int

    @property
    def known(self) -> bool:
        return self.per_seed is not None and self.by_items is not None

    def half_width(self, confidence: float, more: int = 0) -> float:
        """Half of the interval's width; with `more` seeds, what it would be if they spread like those at hand."""
        if self.per_seed is None or self.by_items is None:
            return math.inf
        of_seeds = t_quantile(confidence, self.degrees + more) ** 2 * self.per_seed / (self.seeds + more)
        return math.sqrt(of_seeds + t_quantile(confidence, self.item_degrees) ** 2 * self.by_items)

    def p(self) -> float:
        """The smallest 1 - confidence whose interval leaves out 0; 1 where nothing is known."""
        if not self.known or self.mean == 0:
            return 1.0
        low, high = math.log(SMALLEST_P), 0.0
        for _ in range(40):
            middle = (low + high) / 2
            left_out = self.half_width(1 - math.exp(middle)) < abs(self.mean)
            low, high = (low, middle) if left_out else (middle, high)
        return math.exp(high)

    def shown_by(self, confidence: float, more: int = 0) -> float:
        """The smallest true difference that so many more seeds would show with the chance POWER."""
        if self.per_seed is None or self.by_items is None:
            return math.inf
        spread = math.sqrt(self.per_seed / (self.seeds + more) + self.by_items)
        return self.half_width(confidence, more) + NormalDist().inv_cdf(POWER) * spread

    def more_seeds(self, confidence: float) -> int:
        """How many more seeds would show a difference as large as the one seen; if none would, as many again."""
        able = (more for more in range(1, MOST_SEEDS) if self.shown_by(confidence, more) <= abs(self.mean))
        return next(able, self.seeds)


def estimate(measure: Measure, first: str, second: str) -> Estimate:
    """The difference of two variants in a measure, paired by seed where they share two seeds or more."""
    a, b = measure.values[first], measure.values[second]
    shared = sorted(a.keys() & b.keys())
    paired = len(shared) > 1 or a.keys() == b.keys()
    ours, theirs = (shared, shared) if paired else (sorted(a), sorted(b))
    mine = [measure.figure(first, seed) for seed in ours]
    others = [measure.figure(second, seed) for seed in theirs]
    count = min(len(mine), len(others))
    per_seed = None
    if count > 1 and paired:
        per_seed = variance(one - other for one, other in zip(mine, others, strict=True))
    elif count > 1:  # as wide as if all of the variance were that of so many seeds
        per_seed = count * (variance(mine) / len(mine) + variance(others) / len(others))
    gaps = [_mean_of(a, ours, at) - _mean_of(b, theirs, at) for at in range(len(measure.weights))]
    by_items = _by_items(gaps, measure.weights)
    return Estimate(fmean(mine) - fmean(others), count, per_seed, max(count - 1, 1), by_items, max(len(gaps) - 1, 1))


def _mean_of(values: Seeds, seeds: Sequence[int], item: int) -> float:
    return fmean(values[seed][item] for seed in seeds)


def _by_items(gaps: Sequence[float], weights: Sequence[float]) -> float | None:
    """The variance of sum(gaps) / sum(weights) over other items of the kind, as of any ratio; None below two items."""
    count, total = len(gaps), math.fsum(weights)
    if count < 2:
        return None
    ratio = math.fsum(gaps) / total
    squares = math.fsum((gap - ratio * weight) ** 2 for gap, weight in zip(gaps, weights, strict=True))
    return count / (count - 1) * squares / (total * total)


@dataclass(frozen=True)
class Verdict:
    """What can be said of two variants in one measure.

    estimate: first less second. p: adjusted for the number of decisions (Holm). better: the better variant, or None if
    no difference can be told.
    """

    measure: str
    first: str
    second: str
    estimate: Estimate
    confidence: float
    p: float
    better: str | None

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of this difference alone, which is not adjusted."""
        half = self.estimate.half_width(self.confidence)
        return self.estimate.mean - half, self.estimate.mean + half

    @property
    def said(self) -> str:
        """The verdict as a clause."""
        if self.better:
            return f"{self.better} is better"
        if not self.estimate.known:
            lacks = "two seeds" if self.estimate.per_seed is None else "two items"
            return f"no difference can be told with fewer than {lacks}"
        if self.interval == (0, 0):
            return "no difference: both have the same figures throughout"
        more = self.estimate.more_seeds(self.confidence)
        shown = self.estimate.shown_by(self.confidence, more)
        seeds = "1 more seed" if more == 1 else f"{more} more seeds"
        return f"no difference can be told; {seeds} would show a difference of {shown:.2g}"


def decide(measures: Sequence[Measure], confidence: float) -> list[Verdict]:
    """A verdict for each pair of variants in each measure.

    Among all of these verdicts a false one is made at most with the chance 1 - confidence, however many they are: give
    measures that answer one question, and decide other questions apart.
    """
    found = [
        (measure, first, second, estimate(measure, first, second))
        for measure in measures
        for first, second in combinations(measure.values, 2)
    ]
    adjusted = holm([one.p() for *_, one in found])
    verdicts = []
    for (measure, first, second, one), p in zip(found, adjusted, strict=True):
        lower, higher = (first, second) if one.mean < 0 else (second, first)
        better = (lower if measure.lower_is_better else higher) if p < 1 - confidence else None
        verdicts.append(Verdict(measure.name, first, second, one, confidence, p, better))
    return verdicts


def best(verdicts: Sequence[Verdict]) -> str | None:
    """The variant that is better than every other in the verdicts of one measure; None if there is none."""
    variants = dict.fromkeys(name for one in verdicts for name in (one.first, one.second))
    for name in variants:
        if all(one.better == name for one in verdicts if name in (one.first, one.second)):
            return name
    return None


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979), in the given order."""
    adjusted, largest = [1.0] * len(ps), 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, ps[at] * (len(ps) - rank)))
        adjusted[at] = largest
    return adjusted
