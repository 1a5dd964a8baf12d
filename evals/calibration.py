"""Whether a reward model is as sure of its rankings as it is right."""

import math
from collections.abc import Sequence

BINS = 10


def calibration_error(margins: Sequence[float], bins: int = BINS) -> float:
    """Expected calibration error of sigmoid(|margin|) as the probability that the ranking is right.

    Guo et al. 2017, eq. 3. A margin is r_chosen - r_rejected. Confidences lie in [0.5, 1], in bins of equal width; a
    tie is half right. 0 without margins, NaN if a margin is: a diverged model has no calibration.
    """
    if any(map(math.isnan, margins)):
        return math.nan
    gaps = [0.0] * bins
    for margin in margins:
        confidence = 1 / (1 + math.exp(-abs(margin)))
        right = (margin > 0) + 0.5 * (margin == 0)
        gaps[min(int((confidence - 0.5) * 2 * bins), bins - 1)] += confidence - right
    return sum(map(abs, gaps)) / max(len(margins), 1)
