"""Whether a reward model is as sure of its rankings as it is right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The rankings of which a reward model is about equally sure.

    `low` and `high` are the ends of the bin, `confidence` is the mean of what it holds, and `right` the share of its
    `pairs` that are ranked right; a tie is half right.
    """

    low: float
    high: float
    pairs: int
    confidence: float
    right: float


def reliability(margins: Sequence[float], bins: int = BINS) -> list[Bin]:
    """The bins of a reliability diagram that hold any pair, the least sure first. No margin may be NaN.

    sigmoid(|margin|) is the probability that the ranking is right. Confidences lie in [0.5, 1], in bins of equal width.
    A margin is r_chosen - r_rejected.
    """
    sums = [[0, 0.0, 0.0] for _ in range(bins)]
    for margin in margins:
        confidence = 1 / (1 + math.exp(-abs(margin)))
        one = sums[min(int((confidence - 0.5) * 2 * bins), bins - 1)]
        for place, value in enumerate((1, confidence, (margin > 0) + 0.5 * (margin == 0))):
            one[place] += value
    width = 0.5 / bins
    return [
        Bin(0.5 + index * width, 0.5 + (index + 1) * width, int(count), confidence / count, right / count)
        for index, (count, confidence, right) in enumerate(sums)
        if count
    ]


def calibration_error(margins: Sequence[float], bins: int = BINS) -> float:
    """Expected calibration error of sigmoid(|margin|) as the probability that the ranking is right.

    Guo et al. 2017, eq. 3, over the bins of `reliability`. 0 without margins, NaN if a margin is: a diverged model has
    no calibration.
    """
    if any(map(math.isnan, margins)):
        return math.nan
    gaps = (one.pairs * abs(one.confidence - one.right) for one in reliability(margins, bins))
    return sum(gaps) / max(len(margins), 1)
