"""How much people agree beyond chance: Krippendorff's alpha of any number of people, and Cohen's kappa of two."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from evals.intervals import CONFIDENCE, wilson

Level = Literal["nominal", "ordinal", "interval"]
Floats = npt.NDArray[np.float64]
DRAWS = 1000
ALIKE = 1e-9
LEAST_CLUSTERS = 10
"""Of fewer independent questions no interval is told."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval. NaN where nothing can be said, or no interval be told. count: the units, or the
    pairs of answers."""

    value: float
    low: float
    high: float
    count: int


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


def krippendorff(
    units: Sequence[Sequence[float | None]],
    level: Level,
    clusters: Sequence[Hashable] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Krippendorff's alpha of units, each a list of the answers that people gave, None where somebody gave none.

    alpha = 1 - D_o / D_e, the observed disagreement over that of answers paired by chance (Krippendorff 2011, Computing
    Krippendorff's Alpha-Reliability). Units with fewer than two answers say nothing. clusters: units of one cluster,
    such as the replies of one item, are drawn together for the interval, which is that of the percentiles of `draws`
    bootstrap samples (Zapf et al. 2016, section 2.3). Where all samples are alike, as at full agreement, it is that of
    `_of_share`. If all answers are the same, alpha is not defined: NaN.
    """
    used = [place for place, unit in enumerate(units) if sum(one is not None for one in unit) > 1]
    if not used:
        return NOTHING
    answers = [[one for one in units[place] if one is not None] for place in used]
    values = np.unique([one for unit in answers for one in unit])
    names = [place if clusters is None else clusters[place] for place in used]
    tables = _coincidences(answers, values, names)
    found = float(_alpha(tables.sum(axis=0)[None], values, level)[0])
    if len(tables) < LEAST_CLUSTERS or math.isnan(found):
        return Estimate(found, math.nan, math.nan, len(used))
    random = np.random.default_rng(seed)
    times = random.multinomial(len(tables), np.full(len(tables), 1 / len(tables)), size=draws).astype(float)
    drawn = _alpha(np.tensordot(times, tables, axes=1), values, level)
    low, high = map(float, np.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    if high - low < ALIKE:
        whole = tables.sum(axis=0) / tables.sum()
        low, high = _of_share(found, float(np.trace(whole)), 1 - float((whole.sum(axis=1) ** 2).sum()), len(tables))
    return Estimate(found, low, high, len(used))


def _of_share(value: float, agreed: float, apart: float, trials: float) -> tuple[float, float]:
    """The interval of alpha or kappa by Wilson's of the share of answers that agree, where their own has no width.

    value = 1 - k (1 - agreed), k being how much of it each share of answers that differ costs. At full agreement none
    shows that; they would then differ as answers by chance do, of which the share `apart` differs: k = 1 / apart.
    """
    cost = (1 - value) / (1 - agreed) if 1 - agreed > ALIKE else 1 / apart
    low, high = wilson(agreed * trials, trials)
    return max(-1.0, 1 - cost * (1 - low)), min(1.0, 1 - cost * (1 - high))


def _coincidences(answers: Sequence[Sequence[float]], values: Floats, names: Sequence[Hashable]) -> Floats:
    """How often two people gave each two values, by cluster. Shape (clusters, values, values).

    Each ordered pair of answers of a unit with m answers counts 1 / (m - 1).
    """
    rows = {name: row for row, name in enumerate(dict.fromkeys(names))}
    tables = np.zeros((len(rows), len(values), len(values)))
    for unit, name in zip(answers, names, strict=True):
        counts = np.bincount(np.searchsorted(values, unit), minlength=len(values)).astype(float)
        tables[rows[name]] += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    return tables


def _alpha(tables: Floats, values: Floats, level: Level) -> Floats:
    """Alpha of each table of coincidences. tables: (samples, values, values). Shape (samples,)."""
    margins = tables.sum(axis=2)
    total = margins.sum(axis=1)
    distances = _distances(margins, values, level)
    observed = (tables * distances).sum(axis=(1, 2)) * (total - 1)
    expected = (margins[:, :, None] * margins[:, None, :] * distances).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(expected > 0, 1 - observed / expected, np.nan))


def _distances(margins: Floats, values: Floats, level: Level) -> Floats:
    """The squared distance between each two values. margins: (samples, values). Shape (samples, values, values)."""
    if level == "nominal":
        return np.broadcast_to(1.0 - np.eye(len(values)), (len(margins), len(values), len(values)))
    if level == "interval":
        return np.broadcast_to((values[:, None] - values[None]) ** 2, (len(margins), len(values), len(values)))
    # Ordinal: the answers that lie between the two values, half of those at either end counted.
    middle = np.cumsum(margins, axis=1) - margins / 2
    return np.asarray((middle[:, :, None] - middle[:, None, :]) ** 2)


def cohen(pairs: Sequence[tuple[Hashable, Hashable]], independent: float | None = None) -> Estimate:
    """Cohen's kappa of two people's answers to the same questions, with the large-sample interval.

    (p_o - p_e) / (1 - p_e) (Cohen 1960); its variance is that of Fleiss, Cohen and Everitt 1969, equation 13.
    independent: how many of the questions are independent, where several are of one item; all of them by default.
    If they always agree, or never, that variance is 0 or nearly so, and the interval is that of `_of_share`. If both
    people always give one and the same answer, kappa is not defined: NaN.
    """
    if not pairs:
        return NOTHING
    names = {name: place for place, name in enumerate(dict.fromkeys(one for pair in pairs for one in pair))}
    table = np.zeros((len(names), len(names)))
    for one, other in pairs:
        table[names[one], names[other]] += 1
    p = table / len(pairs)
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    equal, chance = float(np.trace(table)), float(rows @ columns)
    observed = equal / len(pairs)
    if chance >= 1:
        return Estimate(math.nan, math.nan, math.nan, len(pairs))
    kappa = (observed - chance) / (1 - chance)
    same = float((np.diag(p) * ((1 - chance) - (rows + columns) * (1 - observed)) ** 2).sum())
    crossed = p * (columns[:, None] + rows[None, :]) ** 2
    apart = (1 - observed) ** 2 * float(crossed.sum() - np.trace(crossed))
    rest = (observed * chance - 2 * chance + observed) ** 2
    trials = independent or len(pairs)
    if trials < LEAST_CLUSTERS:
        return Estimate(kappa, math.nan, math.nan, len(pairs))
    if equal in (0, len(pairs)):
        return Estimate(kappa, *_of_share(kappa, observed, 1 - chance, trials), len(pairs))
    variance = max(same + apart - rest, 0.0) / (trials * (1 - chance) ** 4)
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(variance)
    return Estimate(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), len(pairs))
