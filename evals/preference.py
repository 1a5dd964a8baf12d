"""What ballots of a judge show: who wins, also at equal length, and how far the judge can be trusted."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import TypeVar

import numpy as np

from evals.grading import Score, scored
from evals.intervals import CONFIDENCE, wilson
from evals.judge import Ballot

RIDGE = 1e-2  # keeps the fit finite where length or one side decides everything
STEPS = 50
DRAWS = 1000
T = TypeVar("T")


def win_rate(ballots: Sequence[Ballot], confidence: float = CONFIDENCE) -> Score:
    """The share of pairs that ours wins, over both orders, a tie as half. Pairs of one prompt are a cluster."""
    return scored([one.score for one in ballots], [one.pair.prompt for one in ballots], confidence)


def by_group(some: Sequence[T], group: Callable[[T], str]) -> dict[str, list[T]]:
    """The ballots or ratings of each category or difficulty, as `group` names it."""
    parts: dict[str, list[T]] = defaultdict(list)
    for one in some:
        parts[group(one)].append(one)
    return dict(sorted(parts.items()))


@dataclass(frozen=True)
class PositionBias:
    """How far the order decides. first: of the verdicts that are no tie, the share for the first reply; fair is 0.5.

    consistent: the share of pairs of which both orders say the same.
    """

    first: float
    low: float
    high: float
    consistent: float

    @property
    def biased(self) -> bool:
        """Whether one place is preferred beyond noise."""
        return not self.low <= 0.5 <= self.high


def position_bias(ballots: Sequence[Ballot], confidence: float = CONFIDENCE) -> PositionBias:
    """The judge's liking for a place. Both verdicts of a pair count; without any that is no tie, nothing is known."""
    decided = [one for ballot in ballots for one in (ballot.forward, ballot.backward) if one != "tie"]
    firsts = decided.count("first")
    low, high = wilson(firsts, len(decided), confidence)
    consistent = fmean(one.consistent for one in ballots) if ballots else math.nan
    return PositionBias(firsts / len(decided) if decided else 0.5, low, high, consistent)


@dataclass(frozen=True)
class LengthControlled:
    """A win rate at equal length. raw: as judged. liking: the log odds by which a much longer reply wins more."""

    raw: float
    controlled: float
    low: float
    high: float
    liking: float
    liking_low: float
    liking_high: float

    @property
    def likes_length(self) -> bool:
        """Whether longer replies win more often beyond noise."""
        return self.liking_low > 0


def length_controlled(ballots: Sequence[Ballot], confidence: float = CONFIDENCE, seed: int = 0) -> LengthControlled:
    """The win rate that replies of equal length would have (Dubois et al. 2024, AlpacaEval 2, eq. 1 and 2).

    A logistic regression of the scores on tanh of the difference in characters over its standard deviation, without the
    paper's term for the prompt's difficulty, which needs many models. Intervals are of the bootstrap over prompts.
    Raises ValueError without ballots.
    """
    if not ballots:
        raise ValueError("without ballots nothing is known")
    scores = np.array([one.score for one in ballots])
    gaps = np.array([len(one.pair.ours) - len(one.pair.theirs) for one in ballots], float)
    spread = gaps.std()
    term = np.tanh(gaps / spread) if spread else np.zeros(len(gaps))
    intercept, slope = fit(term, scores)
    asked = [one.pair.prompt for one in ballots]
    prompts = {prompt: at for at, prompt in enumerate(dict.fromkeys(asked))}
    cluster = np.array([prompts[one] for one in asked])
    random = np.random.default_rng(seed)
    drawn = np.empty((DRAWS, 2))
    for draw in range(DRAWS):
        times = np.bincount(random.integers(0, len(prompts), len(prompts)), minlength=len(prompts))[cluster]
        drawn[draw] = fit(term, scores, times.astype(float))
    ends = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    low, high = (sigmoid(float(one)) for one in ends[:, 0])
    return LengthControlled(
        float(scores.mean()), sigmoid(intercept), low, high, slope, float(ends[0, 1]), float(ends[1, 1])
    )


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def fit(term: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """(intercept, slope) of a logistic regression of shares on one term, by Newton's method with a small ridge."""
    design = np.stack([np.ones_like(term), term], 1)
    weight = np.ones_like(term) if weights is None else weights
    found = np.zeros(2)
    for _ in range(STEPS):
        share = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        gradient = design.T @ (weight * (scores - share)) - RIDGE * found
        curvature = (design * (weight * share * (1 - share))[:, None]).T @ design + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        found += np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-10:
            break
    return float(found[0]), float(found[1])


@dataclass(frozen=True)
class SelfPreference:
    """How much more a judge likes replies of its own family than others do: a difference of win rates."""

    difference: float
    low: float
    high: float
    n: int

    @property
    def found(self) -> bool:
        """Whether it likes its own beyond noise."""
        return self.low > 0


def self_preference(
    own: Sequence[Ballot], others: Mapping[str, float], confidence: float = CONFIDENCE
) -> SelfPreference:
    """Of pairs in which ours is by the judge's own family: its scores less those of other judges or people.

    others: pair's id -> the score from 0 to 1 that they give ours; pairs without one are left out. Raises ValueError if
    fewer than two are left.
    """
    gaps = [one.score - others[one.pair.id] for one in own if one.pair.id in others]
    if len(gaps) < 2:
        raise ValueError("fewer than two pairs were judged by others as well")
    mean = fmean(gaps)
    spread = math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1) / len(gaps))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * spread
    return SelfPreference(mean, mean - half, mean + half, len(gaps))
