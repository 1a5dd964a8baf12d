"""Votes of simulated people: the reward that is learned from them, who is left out, and figures with a closed form.

The votes go through a store as those of the page do: cast, measured, frozen without those who are not trusted, and made
into weighted pairs as `preferences` makes them.
"""

import math
import tempfile
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np

from contract import feedback
from contract.conversation import Preference
from contract.settings.examples import Preferences, RoundOfVotes
from contract.settings.feedback import Trust
from contract.store import Store
from evals.agreement import krippendorff
from evals.bradley_terry import Comparison, bradley_terry, expected
from perf.bars import Bars
from perf.feedback.simulated import LIAR, Floats, World, make_items, numbers_of, open_round, votes
from pipelines.examples.votes import read_votes
from reports import rating

SEEDS = 3
ITEMS, EACH, GOLD = 200, 3, 0.1
FRESH = 5000  # replies on which the learned reward is compared with the true one
ACCURACIES = (0.95, 0.85, 0.7, 0.1)
UNITS = 20_000
STRENGTHS = {"a": 0.8, "b": 0.3, "c": -0.2, "d": -0.9}
GAMES = 40_000


def run(bars: Bars) -> None:
    found = [of_round(seed) for seed in range(SEEDS)]
    bars.at_least("reward_recovered", min(correlation for correlation, _ in found), 0.9)
    bars.exactly("bad_annotator_found", sum(gone == {LIAR} for _, gone in found) / SEEDS, 1)
    bars.at_most("alpha_off", max(alpha_off(seed) for seed in range(SEEDS)), 0.02)
    bars.at_most("bradley_terry_off", max(closed_form_off(), max(strengths_off(seed) for seed in range(SEEDS))), 0.1)


def of_round(seed: int) -> tuple[float, set[str]]:
    """(The correlation of the learned reward with the true one on fresh replies, who was left out)."""
    random = np.random.default_rng(seed)
    world = World.drawn(random)
    items = make_items(random, world, ITEMS, GOLD)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(str(Path(folder)))
        made = open_round(store, items, "known")
        for vote in votes(random, world, items, made, EACH):
            feedback.cast(store, made, vote)
        path, gone = rating.freeze(store, made, Trust())
        settings = Preferences(rounds={"known": RoundOfVotes(votes=store.full(path))})
        pairs = [row.found for row in read_votes(settings, Counter()) if isinstance(row.found, Preference)]
    learned = fit(pairs)
    fresh = random.standard_normal((FRESH, len(learned)))
    correlation = float(np.corrcoef(fresh @ learned, world.reward(fresh))[0, 1])
    print(
        f"  seed {seed}: {len(pairs):,} pairs, correlation {correlation:.3f}, left out: {', '.join(gone) or 'nobody'}"
    )
    return correlation, set(gone)


def fit(pairs: list[Preference], ridge: float = 1e-3) -> Floats:
    """The linear reward that makes the pairs likeliest, each with its weight, by Newton's method. Shape (features,)."""
    apart = np.array([numbers_of(pair.chosen) - numbers_of(pair.rejected) for pair in pairs])
    weights = np.array([pair.weight for pair in pairs])
    found = np.zeros(apart.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-apart @ found))
        gradient = apart.T @ (weights * (1 - p)) - ridge * found
        information = (apart.T * (weights * p * (1 - p))) @ apart + ridge * np.eye(len(found))
        found = found + np.linalg.solve(information, gradient)
    return np.asarray(found)


def alpha_off(seed: int) -> float:
    """How far alpha is from 2 A - 1, A the mean chance of two people to agree, of people who are right with ACCURACIES
    about a fair coin: by chance two answers differ in half of the cases, so alpha is 1 - (1 - A) / (1 / 2)."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, UNITS)
    answers = np.stack([np.where(random.random(UNITS) < right, truth, 1 - truth) for right in ACCURACIES], axis=1)
    agree = [one * other + (1 - one) * (1 - other) for one, other in combinations(ACCURACIES, 2)]
    found = krippendorff(answers.astype(float).tolist(), "nominal", draws=10)
    return abs(found.value - (2 * float(np.mean(agree)) - 1))


def closed_form_off() -> float:
    """How far the lead of one of two models is from ln((wins + ties / 2) / (losses + ties / 2))."""
    off = 0.0
    for wins, losses, ties in ((60, 40, 0), (7, 2, 5), (900, 1, 0), (50, 50, 100)):
        results = [1.0] * wins + [0.0] * losses + [0.5] * ties
        table = bradley_terry([Comparison("a", "b", result, number) for number, result in enumerate(results)])
        score = {one.name: one.score for one in table.players}
        off = max(off, abs(score["a"] - score["b"] - math.log((wins + ties / 2) / (losses + ties / 2))))
    return off


def strengths_off(seed: int) -> float:
    """How far the scores of models are from the true ones, by which the comparisons were drawn."""
    random = np.random.default_rng(seed)
    names = list(STRENGTHS)
    comparisons = []
    for number in range(GAMES):
        one, other = random.choice(len(names), 2, replace=False)
        won = random.random() < expected(STRENGTHS[names[one]] - STRENGTHS[names[other]])
        comparisons.append(Comparison(names[one], names[other], float(won), number))
    return max(abs(one.score - STRENGTHS[one.name]) for one in bradley_terry(comparisons).players)
