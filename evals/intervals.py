"""How sure a measured share or ratio is."""

import math
from collections.abc import Sequence
from statistics import NormalDist

CONFIDENCE = 0.95


def wilson(successes: float, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927): (low, high). A tie may count as half a success.

    Without trials the interval is (0, 1).
    """
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, width = successes / total, z * z / total
    centre = (share + width / 2) / (1 + width)
    half = z * ((share * (1 - share) + width / 4) / total) ** 0.5 / (1 + width)
    return max(0.0, centre - half), min(1.0, centre + half)


def ratio(values: Sequence[float], weights: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of the sum of the values over the sum of the weights, of items drawn at random: (low, high).

    The normal interval of a ratio estimate, whose variance is that of the values less the ratio times the weights
    (Cochran 1977, Sampling Techniques, chapter 6). With fewer than two items nothing is known: minus and plus infinity.
    """
    count, total = len(values), math.fsum(weights)
    if count < 2 or total <= 0:
        return -math.inf, math.inf
    share = math.fsum(values) / total
    spread = math.fsum((value - share * weight) ** 2 for value, weight in zip(values, weights, strict=True))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(count / (count - 1) * spread) / total
    return share - half, share + half
