"""Strengths of models from comparisons of two at a time, with intervals: the model of Bradley and Terry 1952."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from evals.intervals import CONFIDENCE

Floats = npt.NDArray[np.float64]
ROUNDS, CLOSE = 200, 1e-10
LEAST_CLUSTERS = 5
"""Of fewer clusters no interval is told: their spread says nothing of how far others would lie."""


@dataclass(frozen=True)
class Comparison:
    """One comparison of two players. result: 1 if the first won, 0 if it lost, 0.5 for a tie.

    cluster: comparisons of one cluster, such as several people's of the same replies, are not independent. weight: as
    how many it counts, such as a half for each of a person's two votes on the same replies.
    """

    one: str
    other: str
    result: float
    cluster: Hashable
    weight: float = 1.0


@dataclass(frozen=True)
class Strength:
    """A player. score: the logarithm of its strength, with 0 for the mean of all; low, high: its 95 % interval.

    P(one beats another) = 1 / (1 + exp(score of the other - score of the one)).
    """

    name: str
    score: float
    low: float
    high: float
    wins: float
    comparisons: int


@dataclass(frozen=True)
class Lead:
    """By how much the score of one player is above that of another, with the 95 % interval, and its share of wins."""

    one: str
    other: str
    value: float
    low: float
    high: float

    @property
    def share(self) -> float:
        """How often the first is expected to win."""
        return expected(self.value)


@dataclass(frozen=True)
class Table:
    """The players, the best first, and every two of them. why: why nothing can be said; then both are empty."""

    players: tuple[Strength, ...] = ()
    leads: tuple[Lead, ...] = ()
    why: str = ""


def expected(lead: float) -> float:
    """The probability to win with a score that is so much higher."""
    return 1 / (1 + math.exp(-lead)) if lead > -700 else 0.0


def bradley_terry(comparisons: Sequence[Comparison]) -> Table:
    """Fit the strengths that make the comparisons likeliest. A tie is half a win of each.

    The scores exist if no group of players always wins or always loses against the others (Ford 1957); else the table
    says why not. Intervals are normal. Their variance is the one that is robust to comparisons of one cluster being
    alike, G / (G - 1) H^+ (sum over the G clusters of g g') H^+, with g the gradient of a cluster and H the information
    (Liang, Zeger 1986), or the model's own, H^+, if that is larger. Of fewer than LEAST_CLUSTERS clusters the intervals
    are infinite.
    """
    names = sorted({name for one in comparisons for name in (one.one, one.other)})
    if len(names) < 2:
        return Table(why="There are no two models to compare.")
    place = {name: at for at, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for one in comparisons:
        wins[place[one.one], place[one.other]] += one.weight * one.result
        wins[place[one.other], place[one.one]] += one.weight * (1 - one.result)
    if stuck := _unbeaten(wins):
        return Table(why=_sentence([names[at] for at in stuck], names))
    scores = _fitted(wins)
    half_of = _halves(scores, wins, comparisons, place)
    players = []
    for at, name in enumerate(names):
        half = half_of(np.eye(len(names))[at])
        count = round(float(wins[at].sum() + wins[:, at].sum()))
        players.append(Strength(name, scores[at], scores[at] - half, scores[at] + half, float(wins[at].sum()), count))
    players.sort(key=lambda one: (-one.score, one.name))
    leads = []
    for at, first in enumerate(players):
        for second in players[at + 1 :]:
            i, j = place[first.name], place[second.name]
            half = half_of(np.eye(len(names))[i] - np.eye(len(names))[j])
            lead = first.score - second.score
            leads.append(Lead(first.name, second.name, lead, lead - half, lead + half))
    return Table(tuple(players), tuple(leads))


def _sentence(stuck: Sequence[str], names: Sequence[str]) -> str:
    said = ", ".join(stuck)
    verb = "was" if len(stuck) == 1 else "were"
    return (
        f"{said} {verb} never beaten by the other {len(names) - len(stuck)}, or never compared with them, "
        "so that the scores have no bound. More votes may change that."
    )


def _unbeaten(wins: Floats) -> list[int]:
    """Players that none of the others has ever beaten, the smallest such group of some; empty if there is none."""
    reach = (wins > 0) | np.eye(len(wins), dtype=bool)
    for _ in range(len(wins).bit_length()):
        reach = (reach.astype(int) @ reach.astype(int)) > 0  # reach[i, j]: i beat j, or one that beat j, and so on
    groups = [[int(at) for at in np.flatnonzero(reach[:, player])] for player in range(len(wins))]
    smallest = min(groups, key=len)  # who reaches a player, directly or not: nobody else has beaten these
    return smallest if len(smallest) < len(wins) else []


def _fitted(wins: Floats) -> Floats:
    """The scores, by Newton's method with steps halved until the likelihood rises. Shape (players,)."""
    played = wins + wins.T
    scores = np.zeros(len(wins))
    for _ in range(ROUNDS):
        p = 1 / (1 + np.exp(scores[None] - scores[:, None]))
        gradient = (wins - played * p).sum(axis=1)
        step = np.linalg.pinv(_information(played, p)) @ gradient
        before = _likelihood(scores, wins)
        while _likelihood(scores + step, wins) < before - CLOSE and np.abs(step).max() > CLOSE:
            step /= 2
        scores = scores + step
        if np.abs(step).max() < CLOSE:
            break
    return np.asarray(scores - scores.mean())


def _likelihood(scores: Floats, wins: Floats) -> float:
    return float(-(wins * np.logaddexp(0, scores[None] - scores[:, None])).sum())


def _information(played: Floats, p: Floats) -> Floats:
    """Minus the second derivatives: a graph's Laplacian with the weights n_ij p_ij p_ji."""
    weights = played * p * p.T
    np.fill_diagonal(weights, 0)
    return np.asarray(np.diag(weights.sum(axis=1)) - weights)


def _halves(
    scores: Floats, wins: Floats, comparisons: Sequence[Comparison], place: dict[str, int]
) -> Callable[[Floats], float]:
    """Half the width of the interval of a sum of scores, as a function of their factors. Shape of these: (players,)."""
    p = 1 / (1 + np.exp(scores[None] - scores[:, None]))
    inverse = np.linalg.pinv(_information(wins + wins.T, p))
    gradients: dict[Hashable, Floats] = {}
    for one in comparisons:
        i, j = place[one.one], place[one.other]
        own = gradients.setdefault(one.cluster, np.zeros(len(scores)))
        own[i] += one.weight * (one.result - p[i, j])
        own[j] -= one.weight * (one.result - p[i, j])
    spread, count = np.array(list(gradients.values())), len(gradients)
    if count < LEAST_CLUSTERS:
        return lambda factors: math.inf
    robust = count / (count - 1) * inverse @ (spread.T @ spread) @ inverse
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    return lambda factors: z * math.sqrt(max(factors @ robust @ factors, factors @ inverse @ factors, 0.0))
