"""How sure a measured share or ratio is."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from statistics import NormalDist

CONFIDENCE = 0.95


def wilson(successes: float, total: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927): (low, high). A tie may count as half a success.

    Without trials the interval is (0, 1).
    """
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, width = successes / total, z * z / total
    centre = (share + width / 2) / (1 + width)
    half = z * ((share * (1 - share) + width / 4) / total) ** 0.5 / (1 + width)
    low = 0.0 if successes <= 0 else max(0.0, centre - half)  # where it is 0, rounding would leave a hair
    return low, 1.0 if successes >= total else min(1.0, centre + half)


def effective_number(scores: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """How many independent trials say as much about the mean score as these, which are alike within a cluster.

    It is the number of trials over the design effect, which is the variance of the mean over what it would be if all
    were independent: sum over clusters of (sum of (score - mean))^2 / sum over trials of (score - mean)^2 (Rao, Scott
    1992, A Simple Method for the Analysis of Clustered Binary Data, Biometrics 48, without its m / (m - 1) of m
    clusters, so that independent trials count in full). It is never more than the trials. If all scores are equal,
    nothing shows how alike a cluster is: its trials then count as one, in n^2 / sum of n_c^2 (Kish 1965, Survey
    Sampling, at a correlation of 1). Wilson's interval takes the share of successes and this number.
    """
    count = len(scores)
    if not count:
        return 0.0
    mean = math.fsum(scores) / count
    sums: dict[Hashable, float] = defaultdict(float)
    for score, cluster in zip(scores, clusters, strict=True):
        sums[cluster] += score - mean
    alone = math.fsum((score - mean) ** 2 for score in scores)
    if alone == 0:
        return count**2 / sum(size**2 for size in Counter(clusters).values())
    return count / max(1.0, math.fsum(value**2 for value in sums.values()) / alone)


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
