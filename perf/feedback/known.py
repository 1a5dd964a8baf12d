"""Votes of simulated people: the reward that is learned from them, who is left out, and figures with a closed form.

The votes go through a store as those of the page do: cast, measured, frozen without those who are not trusted, and made
into weighted pairs as `preferences` makes them.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations
from pathlib import Path
from statistics import fmean

import numpy as np

from contract import feedback
from contract.conversation import Preference
from contract.settings.examples import Preferences, RoundOfVotes
from contract.settings.feedback import Trust
from contract.store import Store
from evals.agreement import Level, krippendorff
from evals.annotators import left_out
from evals.bradley_terry import Comparison, bradley_terry, expected
from perf.bars import Bars
from perf.feedback.simulated import LIAR, Floats, People, World, make_items, numbers_of, open_round, votes
from pipelines.examples.votes import read_votes
from reports import rating

SEEDS, MIX_SEEDS = 3, 5
ITEMS, EACH, GOLD = 200, 3, 0.1
FRESH = 5000  # replies on which the learned reward is compared with the true one
ACCURACIES = (0.95, 0.85, 0.7, 0.1)
UNITS, FEW_UNITS = 20_000, 120
USUAL, LIES = (0.8, 1), (0.8, -1)
MIXES: tuple[tuple[People, int, float, set[str]], ...] = (
    ({"one": USUAL, LIAR: LIES}, 2, 0.0, set()),  # nothing shows which of the two is wrong
    ({"one": USUAL, LIAR: LIES}, 2, 0.2, {LIAR}),
    ({"zed": USUAL, LIAR: LIES}, 2, 0.2, {LIAR}),
    ({"one": USUAL, "two": USUAL, LIAR: LIES}, 3, 0.0, {LIAR}),
    ({"one": USUAL, "two": USUAL, "three": (1.5, 1), "zed": (0.3, 1), LIAR: LIES}, 3, 0.0, {LIAR}),
    ({**{f"p{number}": USUAL for number in range(5)}, LIAR: LIES}, 2, 0.0, {LIAR}),
    ({"careful": (0.3, 1), "usual": USUAL, "hasty": (1.5, 1), "tired": (1.5, 1)}, 3, 0.1, set()),
)
"""People, how many of them vote on an item, the share of gold items, and who is to be left out."""
STRENGTHS = {"a": 0.8, "b": 0.3, "c": -0.2, "d": -0.9}
GAMES = 40_000


def run(bars: Bars) -> None:
    found = [of_round(seed) for seed in range(SEEDS)]
    bars.at_least("reward_recovered", min(correlation for correlation, _ in found), 0.9)
    bars.exactly("bad_annotator_found", fmean([*(gone == {LIAR} for _, gone in found), *told_apart()]), 1)
    off = [alpha_off(seed, missing) for seed in range(SEEDS) for missing in (0.0, 0.4)]
    bars.at_most("alpha_off", max(*off, *(definition_off(seed) for seed in range(SEEDS))), 0.02)
    bars.at_most("bradley_terry_off", max(closed_form_off(), max(strengths_off(seed) for seed in range(SEEDS))), 0.1)


def of_round(seed: int) -> tuple[float, set[str]]:
    """(The correlation of the learned reward with the true one on fresh replies, who was left out)."""
    random = np.random.default_rng(seed)
    world = World.drawn(random)
    items = make_items(random, world, ITEMS, GOLD)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(str(Path(folder)))
        made = open_round(store, items, "known")
        for vote in votes(random, world, items, made.name, EACH):
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


def told_apart() -> list[bool]:
    """Of each mix of people and seed: whether those who are to be left out are, and nobody else."""
    found = []
    for people, each, gold, expected_gone in MIXES:
        for seed in range(MIX_SEEDS):
            random = np.random.default_rng(seed)
            world = World.drawn(random)
            items = make_items(random, world, ITEMS, gold)
            given = list(votes(random, world, items, "mix", each, people=people))
            gone, _ = left_out({item.id: item for item in items}, given, Trust())
            found.append(set(gone) == expected_gone)
            if not found[-1]:
                print(f"  {', '.join(people)}, {gold:.0%} gold, seed {seed}: left out {', '.join(gone) or 'nobody'}")
    return found


def alpha_off(seed: int, missing: float = 0.0) -> float:
    """How far alpha is from 2 A - 1, A the mean chance of two people to agree, of people who are right with ACCURACIES
    about a fair coin: by chance two answers differ in half of the cases, so alpha is 1 - (1 - A) / (1 / 2).

    missing: this share of the answers, drawn by lot, is not given, which changes nothing of that.
    """
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, UNITS)
    answers = np.stack([np.where(random.random(UNITS) < right, truth, 1 - truth) for right in ACCURACIES], axis=1)
    agree = [one * other + (1 - one) * (1 - other) for one, other in combinations(ACCURACIES, 2)]
    given = np.where(random.random(answers.shape) < missing, None, answers.astype(float))
    found = krippendorff(given.tolist(), "nominal", draws=10)
    return abs(found.value - (2 * float(np.mean(agree)) - 1))


def definition_off(seed: int) -> float:
    """How far alpha is from its definition, at most, of answers from 1 to 5 with ties and gaps, at each level."""
    random = np.random.default_rng(seed)
    truth = random.normal(3, 1, FEW_UNITS)
    answers = np.clip(np.rint(truth[:, None] + random.normal(0, 0.8, (FEW_UNITS, 4))), 1, 5)
    units = np.where(random.random(answers.shape) < 0.4, None, answers).tolist()
    levels: tuple[Level, ...] = ("nominal", "ordinal", "interval")
    return max(abs(krippendorff(units, level, draws=10).value - by_definition(units, level)) for level in levels)


def by_definition(units: Sequence[Sequence[float | None]], level: Level) -> float:
    """Alpha as Krippendorff 2011 defines it, by looking at every two answers: 1 - D_o / D_e."""
    paired = [given for unit in units if len(given := [one for one in unit if one is not None]) > 1]
    values = [one for unit in paired for one in unit]
    times = Counter(values)

    def apart(one: float, other: float) -> float:
        low, high = sorted((one, other))
        if level == "nominal":
            return float(low != high)
        if level == "interval":
            return (high - low) ** 2
        between = sum(count for value, count in times.items() if low <= value <= high)
        return (between - (times[low] + times[high]) / 2) ** 2

    within = sum(apart(*pair) / (len(unit) - 1) for unit in paired for pair in permutations(unit, 2)) / len(values)
    by_chance = sum(apart(*pair) for pair in permutations(values, 2)) / (len(values) * (len(values) - 1))
    return 1 - within / by_chance


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
    """How far the scores of models are from the true ones, by which the comparisons were drawn, one to three an item."""
    random = np.random.default_rng(seed)
    names = list(STRENGTHS)
    comparisons = []
    for number in range(GAMES):
        if number % 6 in (0, 1, 3):
            item, (one, other) = number, random.choice(len(names), 2, replace=False)
        won = random.random() < expected(STRENGTHS[names[one]] - STRENGTHS[names[other]])
        comparisons.append(Comparison(names[one], names[other], float(won), item))
    return max(abs(one.score - STRENGTHS[one.name]) for one in bradley_terry(comparisons).players)
