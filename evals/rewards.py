"""How well a reward model ranks replies that it has not learned from, as figures with their intervals."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from evals.calibration import calibration_error
from evals.intervals import effective_number, wilson

TASKS = 30  # most that are told one by one
OTHERS = "others"
HISTOGRAM_BINS = 24


@dataclass(frozen=True)
class Judged:
    """Replies to one prompt with the rewards that a model gives them, and which of them people prefer to which.

    `pairs` are the places of (the better, the worse) reply. `rewards`, and `sizes` in tokens, have one value per reply.
    `prompt` is equal for replies that are not independent; `task` is what kind of prompt it is.
    """

    pairs: tuple[tuple[int, int], ...]
    rewards: tuple[float, ...]
    sizes: tuple[int, ...]
    prompt: Hashable
    task: str = ""

    @property
    def preferred(self) -> list[float]:
        """The rewards of the replies to which people prefer no other."""
        worse = {one for _, one in self.pairs}
        return [self.rewards[one] for one in dict.fromkeys(one for one, _ in self.pairs) if one not in worse]


@dataclass(frozen=True)
class Comparison:
    """One pair: by how much more reward the better reply gets, whether it is the shorter one, and whose pair it is."""

    margin: float
    shorter: bool
    prompt: Hashable
    task: str = ""


@dataclass(frozen=True)
class Accuracy:
    """The share of `pairs` that are ranked right, a tie being half right, with its interval.

    `effective`: as many pairs of different prompts would say as much. All but `pairs` are None without any.
    """

    pairs: int
    accuracy: float | None
    low: float | None
    high: float | None
    effective: float


def comparisons(judged: Sequence[Judged]) -> list[Comparison]:
    """Every pair of replies to one prompt of which people prefer one."""
    return [
        Comparison(one.rewards[better] - one.rewards[worse], one.sizes[better] < one.sizes[worse], one.prompt, one.task)
        for one in judged
        for better, worse in one.pairs
    ]


def accuracy(compared: Sequence[Comparison]) -> Accuracy:
    """How many of these pairs are ranked right, with a 95 % interval that knows which pairs share a prompt."""
    right = [_right(one.margin) for one in compared]
    if not right:
        return Accuracy(0, None, None, None, 0.0)
    share, effective = sum(right) / len(right), effective_number(right, [one.prompt for one in compared])
    return Accuracy(len(right), share, *wilson(share * effective, effective), effective)


def _right(margin: float) -> float:
    return (margin > 0) + 0.5 * (margin == 0)


def ranking_figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """What `contract.results.Reward` holds of the held-out replies. There must be a pair among them.

    `reward_mean` and `reward_std` describe the preferred replies before normalisation. A model that only likes long
    replies shows in `shorter_accuracy`, that of the pairs whose better reply is the shorter one.
    """
    compared = comparisons(judged)
    margins, every = [one.margin for one in compared], accuracy(compared)
    shorter = accuracy([one for one in compared if one.shorter])
    preferred = [reward for one in judged for reward in one.preferred]
    return {
        "accuracy": every.accuracy,
        "accuracy_low": every.low,
        "accuracy_high": every.high,
        "heldout_correct": sum(map(_right, margins)),
        "heldout_pairs": every.pairs,
        "heldout_effective": every.effective,
        "heldout_prompts": len({one.prompt for one in compared}),
        "heldout_loss": fmean(map(_surprise, margins)),
        "ece": calibration_error(margins),
        "shorter_accuracy": shorter.accuracy,
        "shorter_accuracy_low": shorter.low,
        "shorter_accuracy_high": shorter.high,
        "shorter_pairs": shorter.pairs,
        "shorter_effective": shorter.effective,
        "tasks": by_task(compared),
        "reward_mean": fmean(preferred),
        "reward_std": pstdev(preferred),
    }


def _surprise(margin: float) -> float:
    """-log sigmoid(margin), for any margin."""
    return max(-margin, 0.0) + math.log1p(math.exp(-abs(margin)))


def by_task(compared: Sequence[Comparison]) -> dict[str, dict[str, float | int]]:
    """Task -> its `pairs`, and their `accuracy`, `low` and `high`; those with the most pairs first.

    Beyond TASKS, the rest stand together as OTHERS, with what has no task. Empty if all are of one.
    """
    known = [name for name, _ in Counter(one.task for one in compared if one.task).most_common(TASKS)]
    found: dict[str, list[Comparison]] = defaultdict(list)
    for one in compared:
        found[one.task if one.task in known else OTHERS].append(one)
    if len(found) < 2:
        return {}
    measured = {name: accuracy(found[name]) for name in (*known, OTHERS) if name in found}
    return {
        name: {"pairs": one.pairs, "accuracy": one.accuracy or 0.0, "low": one.low or 0.0, "high": one.high or 0.0}
        for name, one in measured.items()
    }


def regression_figures(given: Sequence[tuple[float | None, float]]) -> dict[str, float | None]:
    """How near rewards are to the scores that people gave: the mean squared error, and Pearson's correlation.

    given: (score, reward) of each reply; a score is None where people gave none. The figures are None where no reply
    has a score, and the correlation where all are alike.
    """
    both = [(score, reward) for score, reward in given if score is not None]
    if not both:
        return {"heldout_mse": None, "heldout_correlation": None}
    scores, rewards = zip(*both, strict=True)
    spread = pstdev(scores) * pstdev(rewards)
    means = fmean(scores), fmean(rewards)
    shared = fmean((score - means[0]) * (reward - means[1]) for score, reward in both)
    return {
        "heldout_mse": fmean((score - reward) ** 2 for score, reward in both),
        "heldout_correlation": shared / spread if spread > 0 else None,
    }


def histograms(better: Sequence[float], worse: Sequence[float], bins: int = HISTOGRAM_BINS) -> dict[str, list[Any]]:
    """How many rewards of better and of worse replies lie between each two of `edges`, as `better` and `worse`.

    The bins are of equal width, from the lowest to the highest reward. Nothing without rewards.
    """
    every = [*better, *worse]
    if not every:
        return {"edges": [], "better": [], "worse": []}
    low, high = min(every), max(every)
    width = (high - low) / bins or 1.0
    counts = [Counter(min(int((one - low) / width), bins - 1) for one in some) for some in (better, worse)]
    edges = [low + index * width for index in range(bins + 1)]
    return {
        "edges": edges,
        **{
            name: [count[index] for index in range(bins)]
            for name, count in zip(("better", "worse"), counts, strict=True)
        },
    }
