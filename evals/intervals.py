"""How sure a measured share is."""

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
