"""What rows have in common, against every division of them that there is."""

import itertools
import random
from collections.abc import Sequence

import pytest

from training.data.prefixes import Family, common, families


def shared_by(rows: Sequence[Sequence[int]]) -> int:
    return next((at for at, tokens in enumerate(zip(*rows, strict=False)) if len({*tokens}) > 1), min(map(len, rows)))


def most_saved(rows: list[list[int]]) -> int:
    """By the best of all divisions of the sorted rows into runs."""
    rows, best = sorted(rows), 0
    for cuts in itertools.product((False, True), repeat=len(rows) - 1):
        ends = [at for at, cut in enumerate(cuts, 1) if cut]
        runs = [rows[start:end] for start, end in itertools.pairwise([0, *ends, len(rows)])]
        best = max(best, sum((len(run) - 1) * shared_by(run) for run in runs if len(run) > 1))
    return best


@pytest.mark.parametrize("seed", range(60))
def test_every_row_is_in_one_family_which_has_its_tokens(seed: int) -> None:
    drawn = random.Random(seed)
    rows = [[drawn.randrange(2) for _ in range(drawn.randrange(7))] for _ in range(drawn.randrange(1, 9))]
    found = families(rows)
    assert sorted(row for one in found for row in one.rows) == [*range(len(rows))]
    for one in found:
        assert shared_by([rows[row] for row in one.rows]) >= one.shared
    assert sum(one.saves for one in found) >= most_saved(rows) - 1, "what runs of runs could save more is little"


def test_subjects_with_examples_of_their_own_are_families() -> None:
    """The instruction of all, the examples of two subjects, and a question without any."""
    examples = {"law": [1, 1, 7, 7, 7, 7], "art": [1, 1, 8, 8, 8]}
    rows = [examples["law"] + [2], examples["art"] + [3], [5, 5], examples["law"] + [4, 4], examples["art"] + [3, 9]]
    assert families(rows) == [Family(6, (0, 3)), Family(6, (1, 4)), Family(0, (2,))]


def test_too_little_in_common_is_not_worth_a_pass() -> None:
    assert families([[1, 2, 3], [1, 2, 4], [1, 2, 5]], least=3) == [Family(0, (0, 1, 2))]
    assert families([[1, 2, 3], [1, 2, 4], [1, 2, 5]], least=2) == [Family(2, (0, 1, 2))]


def test_a_family_that_saves_little_shares_nothing() -> None:
    rows = [[1, 2, 3], [1, 2, 4], [1, 2, 5]]
    assert families(rows, least_saved=4) == [Family(2, (0, 1, 2))]
    assert families(rows, least_saved=5) == [Family(0, (0, 1, 2))]


def test_deep_trees_need_no_deep_calls() -> None:
    rows = [[0] * length for length in range(3000)]
    found = families(rows)
    assert sorted(row for one in found for row in one.rows) == [*range(3000)]


@pytest.mark.parametrize(
    ("one", "two", "same"), [([], [1], 0), ([1, 2], [1, 2], 2), ([1, 2, 3], [1, 9, 3], 1), ([1], [1, 2], 1)]
)
def test_common(one: list[int], two: list[int], same: int) -> None:
    assert common(one, two) == same
