"""Alpha and kappa have the values that their authors published, and intervals that hold the truth as often as they say."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.agreement import Level, cohen, krippendorff
from perf.evaluate.judging import binary_kappa, noisy

N = None
FOUR_OBSERVERS = [  # Krippendorff 2011, section D: four observers, twelve units, gaps
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]
UNITS = [list(unit) for unit in zip(*FOUR_OBSERVERS, strict=True)]
BINARY = [(0, 1), (1, 1), (0, 1), (0, 0), (0, 0), (0, 1), (0, 0), (0, 0), (1, 0), (0, 0)]  # section A
NOMINAL = list(zip("aabbdcccedda", "babbbccceddd", strict=True))  # section B


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example_with_gaps(level: Level, alpha: float) -> None:
    found = krippendorff(UNITS, level)
    assert found.value == pytest.approx(alpha, abs=5e-4)
    assert found.count == 11, "a unit with one answer says nothing"
    assert found.low < found.value < found.high


def test_krippendorffs_own_examples_of_two_observers() -> None:
    assert krippendorff(BINARY, "nominal").value == pytest.approx(0.095, abs=5e-4)
    as_numbers = [[float(ord(letter)) for letter in unit] for unit in NOMINAL]
    assert krippendorff(as_numbers, "nominal").value == pytest.approx(0.692, abs=5e-4)


answers = st.lists(
    st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, None]), min_size=3, max_size=3), min_size=2, max_size=20
)


@given(answers, st.sampled_from(["nominal", "ordinal", "interval"]), st.randoms())
def test_alpha_does_not_depend_on_order_or_names(
    units: list[list[float | None]], level: Level, drawn: random.Random
) -> None:
    shuffled = [drawn.sample(unit, len(unit)) for unit in units]
    drawn.shuffle(shuffled)
    one, other = krippendorff(units, level, draws=20), krippendorff(shuffled, level, draws=20)
    assert one.value == pytest.approx(other.value, nan_ok=True)
    assert math.isnan(one.value) or one.value <= 1
    moved = [[None if answer is None else 2 * answer + 7 for answer in unit] for unit in units]
    assert krippendorff(moved, level, draws=20).value == pytest.approx(one.value, nan_ok=True)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=30))
def test_people_who_always_agree_have_an_alpha_of_one(values: list[int]) -> None:
    found = krippendorff([[float(value)] * 3 for value in values], "ordinal", draws=20)
    assert found.value == pytest.approx(1) if len(set(values)) > 1 else math.isnan(found.value)


def test_without_two_answers_to_anything_nothing_can_be_said() -> None:
    for units in ([], [[1.0, None]], [[None, None]]):
        found = krippendorff(units, "nominal")
        assert (math.isnan(found.value), found.count) == (True, 0)
    one = krippendorff([[1.0, 2.0]], "nominal")
    assert (one.value, math.isnan(one.low)) == (0.0, True)


def test_the_interval_holds_the_closed_form_as_often_as_it_says() -> None:
    """Two people who are right with 0.9 and 0.8 about a fair coin: alpha is 2 (p q + (1 - p) (1 - q)) - 1 = 0.48."""
    random = np.random.default_rng(0)
    held, values = 0, []
    for trial in range(100):
        truth = random.integers(0, 2, 150)
        units = np.stack([np.where(random.random(150) < right, truth, 1 - truth) for right in (0.9, 0.8)], axis=1)
        found = krippendorff(units.astype(float).tolist(), "nominal", draws=200, seed=trial)
        held += found.low <= 0.48 <= found.high
        values.append(found.value)
    assert np.mean(values) == pytest.approx(0.48, abs=0.02)
    assert 88 <= held <= 100


def test_units_of_one_cluster_are_drawn_together() -> None:
    units = [[1.0, 1.0], [2.0, 2.0], [1.0, 2.0], [1.0, 2.0]] * 10
    alone = krippendorff(units, "nominal")
    together = krippendorff([unit for unit in units for _ in range(4)], "nominal", [at // 4 for at in range(160)])
    assert together.value == pytest.approx(alone.value, abs=0.02)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.2)
    apart = krippendorff([unit for unit in units for _ in range(4)], "nominal")
    assert apart.high - apart.low < 0.7 * (alone.high - alone.low)


@pytest.mark.parametrize("count", [10, 40])
@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_full_agreement_has_the_interval_of_a_share(level: Level, count: int) -> None:
    """Half of the questions have each answer, so that 1 - alpha is twice the share of questions with answers that differ."""
    low = 1 - 2 * (1 - count / (count + 1.959964**2))  # Wilson's lower end of count of count is count / (count + z^2)
    units = [[float(at % 2)] * 2 for at in range(count)]
    found, kappa = krippendorff(units, level), cohen([(one, other) for one, other in units])
    assert (found.value, found.high, kappa.value, kappa.high) == pytest.approx((1, 1, 1, 1))
    assert (found.low, kappa.low) == pytest.approx((low, low), abs=1e-6)


def test_people_who_never_agree_are_not_surely_so() -> None:
    high = -1 + 2 * 1.959964**2 / (40 + 1.959964**2)
    never = [(at % 2, 1 - at % 2) for at in range(40)]
    kappa, alpha = cohen(never), krippendorff([[*map(float, one)] for one in never], "nominal")
    assert (kappa.value, kappa.low, kappa.high) == pytest.approx((-1, -1, high), abs=1e-6)
    assert (alpha.low, alpha.high) == pytest.approx((-1, high), abs=0.03)


def test_of_fewer_than_ten_independent_questions_no_interval_is_told() -> None:
    units = [[1.0, 1.0], [2.0, 2.0], [1.0, 2.0]] * 3
    pairs = [(one, other) for one, other in units]
    assert math.isnan(krippendorff(units, "nominal").low)
    assert math.isnan(cohen(pairs).low)
    assert not math.isnan(krippendorff(units + units[:1], "nominal").low)
    assert not math.isnan(cohen(pairs + pairs[:1]).low)
    assert math.isnan(krippendorff(units * 4, "nominal", [at % 9 for at in range(36)]).low)
    assert math.isnan(cohen(pairs * 4, independent=9).low)


TABLE = {("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15}


def pairs_of(table: dict[tuple[str, str], int]) -> list[tuple[str, str]]:
    return [pair for pair, count in table.items() for _ in range(count)]


def test_cohens_kappa_of_a_table_that_is_known() -> None:
    found = cohen(pairs_of(TABLE))
    assert found.value == pytest.approx(0.4)
    assert (found.low, found.high) == pytest.approx((0.1509, 0.6491), abs=1e-3)
    fewer = cohen(pairs_of(TABLE), independent=25)
    assert fewer.high - fewer.low == pytest.approx((found.high - found.low) * math.sqrt(2))


@given(st.lists(st.integers(1, 40), min_size=9, max_size=9))
def test_the_interval_of_kappa_is_that_of_the_delta_method(counts: list[int]) -> None:
    p = np.array(counts).reshape(3, 3) / sum(counts)

    def kappa(table: np.ndarray) -> float:
        chance = table.sum(axis=1) @ table.sum(axis=0)
        return float((np.trace(table) - chance) / (1 - chance))

    gradient = np.zeros((3, 3))
    for place in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[place] = 1e-6
        gradient[place] = (kappa(p + step) - kappa(p - step)) / 2e-6
    variance = (float((p * gradient**2).sum()) - float((p * gradient).sum()) ** 2) / sum(counts)
    found = cohen([(row, column) for at, count in enumerate(counts) for row, column in [divmod(at, 3)] * count])
    assert found.value == pytest.approx(kappa(p))
    if sum(counts) < 10:
        assert math.isnan(found.low)
        return
    assert found.low == pytest.approx(max(-1, kappa(p) - 1.959964 * math.sqrt(variance)), abs=1e-4)
    assert found.high == pytest.approx(min(1, kappa(p) + 1.959964 * math.sqrt(variance)), abs=1e-4)


def test_kappa_of_a_published_table() -> None:
    """Fleiss, Cohen and Everitt 1969, table 1: 53, 5, 2 / 11, 14, 5 / 1, 6, 3 per cent; kappa 0.429, standard error 0.054 of 200."""
    table = [[53, 5, 2], [11, 14, 5], [1, 6, 3]]
    found = cohen([(a, b) for a in range(3) for b in range(3) for _ in range(2 * table[a][b])])
    assert (found.count, found.value) == (200, pytest.approx(0.429, abs=5e-4))
    assert (found.high - found.value) / 1.959964 == pytest.approx(0.054, abs=6e-4)
    assert cohen([*zip("abab", "aabb", strict=True)]).value == 0


def test_kappas_interval_holds_the_truth_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(7), 0
    true = binary_kappa((0.85, 0.8), 0.3)
    for _ in range(300):
        truth = (random.random(150) >= 0.3).astype(int)
        found = cohen([*zip(noisy(truth, 0.85, 2, random), noisy(truth, 0.8, 2, random), strict=True)])
        held += found.low <= true <= found.high
    assert 0.91 <= held / 300 <= 0.985


def test_kappa_of_nothing_and_of_one_answer_is_not_defined() -> None:
    assert math.isnan(cohen([]).value)
    assert math.isnan(cohen([("a", "a")] * 5).value)
    assert cohen([("a", "a"), ("b", "b")]).value == 1
