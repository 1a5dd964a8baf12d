"""Do a judge's biases show, and is agreement measured right: `python -m perf.evaluate --only judging`.

Judges by rule answer through the same prompts and the same parser as a model would. One always takes the first reply; one likes longer
ones; one is fair with noise. Kappa is measured of judges whose noise, and so whose kappa, is known in closed form.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from contract.conversation import Turn
from evals.agreement import cohen
from evals.judge import Pair, judge_pairs
from evals.preference import length_controlled, position_bias, sigmoid, win_rate
from perf.bars import Bars

PAIRS = 400
LABELS = 200_000
NOISE = ((0.9, 0.9), (0.8, 0.6), (0.95, 0.55), (0.5, 0.5), (1.0, 0.7))
PREVALENCE = (0.5, 0.2, 0.05)


def replies(turns: Sequence[Turn]) -> tuple[str, str]:
    """The two replies of what a judge is asked, found behind the marks."""
    text = turns[-1].text
    word = text.removeprefix("<prompt ").partition(">")[0]
    first, second = (text.partition(f"<{name} {word}>\n")[2].partition(f"\n</{name} {word}>")[0] for name in "AB")
    return first, second


def always_first(turns: Sequence[Turn]) -> str:
    return "The first one reads well. [[A]]"


def likes_length(seed: int, characters: float = 300.0) -> Callable[[Sequence[Turn]], str]:
    """Takes the longer reply, whatever it says: the odds grow e-fold with so many characters."""
    drawn = random.Random(seed)

    def ask(turns: Sequence[Turn]) -> str:
        first, second = map(len, replies(turns))
        return "[[A]]" if drawn.random() < sigmoid((first - second) / characters) else "[[B]]"

    return ask


def fair(seed: int, sure: float = 0.8) -> Callable[[Sequence[Turn]], str]:
    """Takes the reply that says `good`, with this chance, at any length and in any order."""
    drawn = random.Random(seed)

    def ask(turns: Sequence[Turn]) -> str:
        first, second = ("good" in one for one in replies(turns))
        if first == second:
            return "[[C]]"
        return "[[A]]" if first == (drawn.random() < sure) else "[[B]]"

    return ask


def pairs(seed: int, longer: float = 0.5, better: float = 0.5) -> list[Pair]:
    """Pairs in which ours is longer, and better, in these shares, independently."""
    drawn = random.Random(seed)
    made = []
    for at in range(PAIRS):
        ours, theirs = ("good", "poor") if drawn.random() < better else ("poor", "good")
        lengths = sorted((drawn.randrange(100, 500), drawn.randrange(500, 1500)), reverse=drawn.random() < longer)
        made.append(Pair(str(at), f"prompt {at}", f"{ours} " + "x" * lengths[0], f"{theirs} " + "x" * lengths[1]))
    return made


def symmetric_kappa(sure: tuple[float, float], labels: int) -> float:
    """Kappa of two judges who each give the true one of equally likely labels with their chance, and any other one alike."""
    agreed = sure[0] * sure[1] + (1 - sure[0]) * (1 - sure[1]) / (labels - 1)
    return (agreed - 1 / labels) / (1 - 1 / labels)


def binary_kappa(sure: tuple[float, float], prevalence: float) -> float:
    """Kappa of two such judges of two labels, of which the first is true in this share."""
    says = [prevalence * one + (1 - prevalence) * (1 - one) for one in sure]
    agreed = sure[0] * sure[1] + (1 - sure[0]) * (1 - sure[1])
    chance = says[0] * says[1] + (1 - says[0]) * (1 - says[1])
    return (agreed - chance) / (1 - chance)


def noisy(truth: np.ndarray, sure: float, labels: int, drawn: np.random.Generator) -> list[int]:
    """What a judge says of true labels."""
    moved = drawn.random(len(truth)) >= sure
    return list(map(int, (truth + moved * drawn.integers(1, labels, len(truth))) % labels))


def _kappa(one: list[int], other: list[int]) -> float:
    return cohen([*zip(one, other, strict=True)]).value


def kappa_off(count: int = LABELS) -> float:
    """How far kappa is from its closed form, at most, of judges of two and three labels and of rare ones."""
    drawn, worst = np.random.default_rng(16), 0.0
    for sure in NOISE:
        for labels in (2, 3, 5):
            truth = drawn.integers(0, labels, count)
            found = _kappa(noisy(truth, sure[0], labels, drawn), noisy(truth, sure[1], labels, drawn))
            worst = max(worst, abs(found - symmetric_kappa(sure, labels)))
        for prevalence in PREVALENCE:
            truth = (drawn.random(count) >= prevalence).astype(int)
            found = _kappa(noisy(truth, sure[0], 2, drawn), noisy(truth, sure[1], 2, drawn))
            worst = max(worst, abs(found - binary_kappa(sure, prevalence)))
    return worst


def run(bars: Bars, data: Path) -> None:
    """`data` is not needed."""
    first = judge_pairs(pairs(1), always_first).ballots
    bias = position_bias(first)
    print(f"always first: wins {win_rate(first).mean}, takes the first reply in {bias.first:.0%}")
    bars.exactly("judge_first_bias", abs(win_rate(first).mean - 0.5), 0)
    long = length_controlled(judge_pairs(pairs(2, longer=0.8), likes_length(2), workers=1).ballots)
    print(f"likes length: raw {long.raw:.3f}, at equal length {long.controlled:.3f}, liking {long.liking:.1f}")
    bars.exactly("judge_length_exposed", int(long.likes_length and long.low <= 0.5 <= long.high < long.raw), 1)
    just = length_controlled(judge_pairs(pairs(3, longer=0.8), fair(3), workers=1).ballots)
    print(f"fair: raw {just.raw:.3f}, at equal length {just.controlled:.3f}, liking {just.liking:.2f}")
    bars.exactly("judge_fair_accused", int(just.likes_length), 0)
    bars.at_most("kappa_off", kappa_off(), 0.01)
