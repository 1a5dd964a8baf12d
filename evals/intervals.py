"""How sure a measured share or ratio is."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from functools import lru_cache
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
    Sampling, at a correlation of 1). Wilson's interval takes the share of successes and this number. Of few
    clusters it is too narrow, which `trials_of` is not.
    """
    count = len(scores)
    if not count:
        return 0.0
    effect = design_effect(scores, clusters)
    return _as_one(clusters) if effect is None else count / max(1.0, effect)


def design_effect(scores: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """That of `effective_number`, which may be below 1; None where all scores are equal, so that nothing shows it."""
    mean = math.fsum(scores) / len(scores)
    sums: dict[Hashable, float] = defaultdict(float)
    for score, cluster in zip(scores, clusters, strict=True):
        sums[cluster] += score - mean
    alone = math.fsum((score - mean) ** 2 for score in scores)
    return math.fsum(value**2 for value in sums.values()) / alone if alone else None


def _as_one(clusters: Sequence[Hashable]) -> float:
    """The number of trials if all of a cluster were one (Kish 1965)."""
    return len(clusters) ** 2 / sum(size**2 for size in Counter(clusters).values())


def trials_of(scores: Sequence[float], clusters: Sequence[Hashable], confidence: float = CONFIDENCE) -> float:
    """The same with what few clusters leave open: how alike they are is itself an estimate.

    The design effect has Rao and Scott's factor m / (m - 1) of m clusters, and the number is reduced by the square of
    the normal quantile over that of Student's t with m - 1 degrees of freedom, so that Wilson's interval becomes that
    with t (Korn, Graubard 1998, Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data, Survey Methodology 24). It is never less than if each cluster were one trial, of which
    nothing has to be estimated. Trials that each are a cluster count in full.
    """
    number = len(set(clusters))
    if number == len(clusters):
        return float(number)
    effect = design_effect(scores, clusters)
    if effect is None or number < 2:
        return _as_one(clusters)
    whole = len(clusters) / max(1.0, effect * number / (number - 1))
    normal = NormalDist().inv_cdf((1 + confidence) / 2)
    return max(_as_one(clusters), whole * (normal / t_quantile(confidence, number - 1)) ** 2)


def ratio(values: Sequence[float], weights: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of the sum of the values over the sum of the weights, of items drawn at random: (low, high).

    The interval of a ratio estimate by Student's t, whose variance is that of the values less the ratio times the
    weights (Cochran 1977, Sampling Techniques, chapter 6). With fewer than two items nothing is known: minus and plus
    infinity.
    """
    count, total = len(values), math.fsum(weights)
    if count < 2 or total <= 0:
        return -math.inf, math.inf
    share = math.fsum(values) / total
    spread = math.fsum((value - share * weight) ** 2 for value, weight in zip(values, weights, strict=True))
    half = t_quantile(confidence, count - 1) * math.sqrt(count / (count - 1) * spread) / total
    return share - half, share + half


def t_within(t: float, degrees: int) -> float:
    """The chance that Student's t lies within -t and t (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    term = cosine if degrees % 2 else 1.0
    series = 0.0 if degrees == 1 else term
    for power in range(2 + degrees % 2, degrees - 1, 2):
        term *= cosine * cosine * (power - 1) / power
        series += term
    return 2 / math.pi * (angle + sine * series) if degrees % 2 else sine * series


@lru_cache(4096)
def t_quantile(confidence: float, degrees: int) -> float:
    """The t within which Student's t lies with the given chance, from -t to t.

    Above 30 degrees it is expanded around the normal quantile (Abramowitz and Stegun 1964, 26.7.5), which is quicker.
    """
    if degrees > 30:
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
        third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + first / degrees + second / degrees**2 + third / degrees**3
    low, high = 0.0, 1.0
    while t_within(high, degrees) < confidence and high < 1e12:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, degrees) < confidence else (low, middle)
    return high
