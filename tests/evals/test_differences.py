"""Paired tests against exact values, and their error rates by simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest

from contract.errors import InputError
from evals import differences
from evals.differences import bootstrap, compare, least_of_flips, mcnemar, sign_flip
from evals.records import Record


def rows(scores: list[float], task: str = "gsm8k", ability: str = "maths", size: int = 1) -> list[Record]:
    return [
        Record(task, ability, str(at), f"s{at // size}", 0, "", "", "", "x", float(score)) for at, score in enumerate(scores)
    ]  # fmt: skip


def test_mcnemar_is_the_binomial_test() -> None:
    """By hand, and Fagerland et al. 2013, table 1: 1 and 7 discordant pairs, p = 0.070."""
    assert mcnemar(1, 7) == pytest.approx(2 * 9 / 256)
    assert mcnemar(0, 5) == mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(3, 3) == 1
    assert mcnemar(0, 0) == 1
    assert mcnemar(4000, 4000) == 1
    assert mcnemar(400, 600) == pytest.approx(2 * sum(math.comb(1000, at) for at in range(401)) / 2**1000, rel=1e-9)


def test_sign_flips_of_few_clusters_are_exact() -> None:
    assert sign_flip([1, 1, 1, 0], "abcd") == pytest.approx(2 / 8)
    assert sign_flip([1, 1, 1, 1], "aabb") == pytest.approx(2 / 4), "two sources cannot show anything"
    assert sign_flip([0.0, 0.0], "ab") == 1
    assert sign_flip([1, 0, 2], "abc") == pytest.approx(2 / 4)
    assert sign_flip([0.1, 0.2, 0.3], "abc") == sign_flip([0.3, 0.1, 0.2], "abc") == pytest.approx(2 / 8), (
        "whatever the rounding"
    )


def test_sign_flips_of_many_clusters_agree_with_mcnemar() -> None:
    assert sign_flip([1.0] * 40, range(40)) == 1 / (differences.DRAWS + 1), "the observed signs are one of the draws"
    gaps = [1.0] * 30 + [-1.0] * 14 + [0.0] * 100
    assert sign_flip(gaps, range(len(gaps))) == pytest.approx(mcnemar(14, 30), abs=0.01)


def test_the_bootstrap_interval_is_nearly_the_normal_one_and_wider_for_clusters() -> None:
    gaps = [*np.random.default_rng(1).normal(0.1, 0.5, 400)]
    low, high = bootstrap(gaps, range(400))
    half = 1.96 * float(np.std(gaps)) / 20
    assert low == pytest.approx(np.mean(gaps) - half, abs=0.006)
    assert high == pytest.approx(np.mean(gaps) + half, abs=0.006)
    copied = [one for one in gaps for _ in range(4)]
    assert bootstrap(copied, [at // 4 for at in range(1600)]) == pytest.approx((low, high), abs=0.006)
    assert bootstrap([0.5], "a") == (-1, 1)


def test_gaps_that_are_all_alike_have_an_interval_of_what_so_few_can_hide() -> None:
    z2 = 1.959964**2
    assert bootstrap([0.0] * 3, range(3)) == pytest.approx((-z2 / (3 + z2), z2 / (3 + z2)))
    assert bootstrap([0.0] * 6, [0, 0, 1, 1, 2, 2]) == pytest.approx(bootstrap([0.0] * 3, range(3))), "three clusters"
    assert bootstrap([0.0] * 1000, range(1000))[1] == pytest.approx(0.00383, abs=1e-5)
    low, high = bootstrap([1.0] * 3, range(3))
    assert (low, high) == (pytest.approx(1 - 2 * z2 / (3 + z2)), 1.0), "no gap is above 1"


def test_an_ability_that_drops_is_flagged_there_and_nowhere_else() -> None:
    random = np.random.default_rng(3)
    first, second = [], []
    for ability, task in (("maths", "gsm8k"), ("code", "mbpp"), ("reasoning", "bbh")):
        scores = [float(one) for one in random.random(300) < 0.6]
        first += rows(scores, task, ability)
        spoilt = [one * (at % 5 > 0) for at, one in enumerate(scores)] if ability == "code" else scores
        second += rows(spoilt, task, ability)
    found = compare(first, second)
    assert [(one.ability, one.task, one.worse()) for one in found[:3]] == [
        ("reasoning", None, False), ("code", None, True), ("maths", None, False),
    ]  # fmt: skip
    code = found[1]
    assert code.high < 0
    assert code.difference == pytest.approx(
        sum(two.score - one.score for one, two in zip(first, second, strict=True)) / 300
    )
    assert [one.task for one in found[3:]] == ["bbh", "mbpp", "gsm8k"]
    assert [one.task for one in found if one.worse()] == [None, "mbpp"]
    assert [one.better() for one in compare(second, first)[:3]] == [False, True, False]


def test_false_alarms_are_rarer_than_the_confidence_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three abilities without any difference: one or more flagged in at most 5 % of 200 comparisons, and some noise."""
    monkeypatch.setattr(differences, "DRAWS", 500)  # of the interval, which is not asked here
    random = np.random.default_rng(5)
    alarms = 0
    for _ in range(200):
        sides: list[list[Record]] = [[], []]
        for ability in ("maths", "code", "reasoning"):
            for side in sides:
                side += rows([float(one) for one in random.random(60) < 0.5], ability, ability)
        alarms += any(one.worse() or one.better() for one in compare(*sides)[:3])
    assert alarms <= 200 * 0.05 + 2 * math.sqrt(200 * 0.05 * 0.95)


def test_items_of_one_source_are_tested_as_one() -> None:
    before = [1.0] * 40
    after = [0.0] * 10 + [1.0] * 30
    alone = compare(rows(before), rows(after))[0]
    alike = compare(rows(before, size=10), rows(after, size=10))[0]
    assert (alone.test, alike.test) == ("McNemar, exact", "sign flips by source")
    assert alone.worse()
    assert not alike.worse(), "one of four subjects fell, which is no more than one coin"
    assert (alike.n, alike.sources) == (40, 4)


def test_where_no_result_could_be_told_from_noise_that_is_said() -> None:
    """Seven subjects, all of them lost: 2 / 2^7 is told alone, and not among seven abilities."""
    first, second = rows([1.0] * 70, size=10), rows([0.0] * 70, size=10)
    alone = compare(first, second)[0]
    assert (alone.p, alone.least) == (2 / 2**7, 2 / 2**7)
    assert (alone.worse(), alone.cannot_be_told()) == (True, False)
    others = ("code", "reasoning", "dialogue", "language", "knowledge en", "knowledge zh")
    same = [one for ability in others for one in rows([1.0, 0.0] * 10, ability, ability)]
    maths = next(one for one in compare(first + same, second + same) if one.ability == "maths")
    assert (maths.adjusted, maths.least) == (pytest.approx(14 / 2**7), pytest.approx(14 / 2**7))
    assert (maths.worse(), maths.cannot_be_told(), maths.cannot_be_told(0.8)) == (False, True, False)
    told = next(one for one in compare(first + same, second + same) if one.ability == "code")
    assert not told.cannot_be_told(), "twenty items, each alone"


def test_the_least_p_of_sign_flips_is_that_of_a_loss_in_every_source() -> None:
    for count in (1, 2, 7, 12, 40):
        assert least_of_flips(count) == pytest.approx(sign_flip([1.0] * count, range(count)))


def test_the_tasks_of_an_ability_are_pooled() -> None:
    first = rows([1, 1, 0, 0], "gsm8k") + rows([1, 1], "mgsm")
    second = rows([1, 0, 0, 0], "gsm8k") + rows([1, 1], "mgsm")
    pooled, one, other = compare(first, second)
    assert (pooled.n, pooled.first, pooled.second) == (6, pytest.approx(4 / 6), 0.5)
    assert (one.task, one.second, other.task, other.second) == ("gsm8k", 0.25, "mgsm", 1)


def test_several_outputs_of_an_item_are_its_mean() -> None:
    several = [replace(one, sample=at) for at in range(2) for one in rows([1, 0, 1])]
    found = compare(several, rows([1, 0, 0]))[0]
    assert (found.n, found.first, found.second) == (3, pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_other_items_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="only one has bbh"):
        compare(rows([1]), rows([1]) + rows([1], "bbh"))
    with pytest.raises(InputError, match="gsm8k: 1 items are in one result set alone, for example '1'"):
        compare(rows([1]), rows([1, 0]))
    with pytest.raises(InputError, match="item '0' has another answer"):
        compare(rows([1]), [replace(rows([1])[0], expected="7")])
