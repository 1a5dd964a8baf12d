"""Whether a model is better or worse than the one that it was made from, beyond what chance explains."""

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist, fmean, stdev

from evals.intervals import CONFIDENCE, effective_number, wilson

MIN_RISE = 0.01  # nats per token, 1 % of perplexity: a smaller rise means nothing, even if it is significant


def got_worse(before: Sequence[float], after: Sequence[float], confidence: float = CONFIDENCE) -> bool:
    """Whether the loss rose beyond noise: the normal interval of the mean paired difference lies above MIN_RISE.

    `before` and `after` hold one loss per sequence in nats per token, for the same sequences. False if fewer than two.
    """
    differences = [late - early for early, late in zip(before, after, strict=True)]
    if len(differences) < 2:
        return False
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return fmean(differences) - z * stdev(differences) / math.sqrt(len(differences)) > MIN_RISE


def wins(before: Sequence[float], after: Sequence[float]) -> float:
    """The number of prompts whose reward in `after` is higher than in `before`; a tie counts half."""
    return sum((late > early) + 0.5 * (late == early) for early, late in zip(before, after, strict=True))


def win_rate(before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable]) -> dict[str, float]:
    """The share of prompts whose reply in `after` has the higher reward, with its confidence interval.

    `before` and `after` hold the reward of one reply to each prompt, for the same prompts, at least one. clusters:
    equal for prompts that are not independent, such as one dialogue at two lengths.
    """
    won = [wins([early], [late]) for early, late in zip(before, after, strict=True)]
    share, effective = sum(won) / len(won), effective_number(won, clusters)
    low, high = wilson(share * effective, effective)
    return {"win_rate": share, "win_rate_low": low, "win_rate_high": high}


def drops(stages: Sequence[str], losses: Mapping[str, Sequence[float]], win_rates_high: Sequence[float]) -> set[str]:
    """Stages whose model is worse, beyond noise, than that of the stage before, in held-out loss or PPO's reward.

    win_rates_high: the upper ends of PPO's win rates, by each reward model that was asked.
    """
    worse = {late for early, late in pairwise(stages) if early in losses and got_worse(losses[early], losses[late])}
    return worse | ({"ppo"} if any(high < 0.5 for high in win_rates_high) else set())
