"""What each step of a threshold would move: equal to deciding every document again."""

import hashlib
import random

import numpy as np
import pyarrow as pa
import pytest

from contract.settings.filter import COMPARISONS, Filter, Rule
from pipelines.rules import steps
from pipelines.rules.decide import decide, rules_for
from pipelines.rules.steps import GRID, NOWHERE, SAMPLES, count_steps, counted, grid_of, judge, places_of


def step_of(values, rule):
    grid = grid_of(rule)
    return grid[places_of(values, rule, grid)]


def rule(comparison, limit):
    return Rule("g", "short", "words", comparison, limit)


@pytest.mark.parametrize(
    ("comparison", "values", "steps"),
    [
        ("<", [0, 0.00001, 0.1499, 0.15, 0.151, 7, 99, 101, 1234, 99999], [0, 0, 0.14, 0.15, 0.15, 7, 99, 100, 1200, 99000]),
        (">", [0, 0.00001, 0.1499, 0.15, 0.151, 7, 99, 101, 1234, 99999], [0, 0.0001, 0.15, 0.15, 0.16, 7, 99, 110, 1300, 100000]),
    ],
)  # fmt: skip
def test_a_step_has_two_digits_and_lies_on_the_side_where_the_rule_turns(comparison, values, steps):
    assert step_of(np.array(values, float), rule(comparison, 5)).tolist() == steps


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_an_infinite_score_has_a_step_above_all_thresholds(comparison):
    assert step_of(np.array([float("inf")]), rule(comparison, 5)) >= 9.9e15


def test_the_threshold_of_the_recipe_is_a_step_of_its_own():
    assert step_of(np.array([0.105, 0.1055, 0.106, 0.107]), rule(">", 0.1055)).tolist() == [0.1055, 0.1055, 0.11, 0.11]
    assert step_of(np.array([0.105, 0.1055, 0.106, 0.11]), rule("<", 0.1055)).tolist() == [0.1, 0.1055, 0.1055, 0.11]


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_every_two_digit_threshold_drops_exactly_what_its_steps_say(comparison):
    values = np.array(
        [random.Random(comparison).uniform(0, 1.2) ** 3 * 1000 for _ in range(500)] + [0.15, 0.3, 17, 120]
    )
    for limit in [
        count * 10.0**scale if scale >= 0 else count / 10.0**-scale
        for scale in range(-3, 2)
        for count in range(10, 100)
    ]:
        compare = COMPARISONS[comparison]
        assert (compare(step_of(values, rule(comparison, 0.2)), limit) == compare(values, limit)).all(), limit


def documents(count):
    made = random.Random(7)
    names = sorted({one.score for one in Filter().rules()})
    for at in range(count):
        row = {name: made.choice([*[None] * 9, round(made.random() ** 9, 3)]) for name in names}
        row |= {
            "words": made.randint(20, 120),
            "mean_word_chars": made.uniform(2, 6),
            "stop_words": made.randint(0, 9),
            "alpha_words": made.uniform(0.7, 1),
        }
        row |= {"sentences": 9, "punctuated_lines": made.uniform(0.05, 1)}
        yield row | {
            "id": hashlib.md5(str(at).encode()).hexdigest(),
            "language": made.choice(["en", "ja", None]),
            "kept_words": at,
        }


@pytest.mark.parametrize(
    ("key", "limit"),
    [
        ("min_words", 30),
        ("min_words", 99),
        ("gopher_quality.min_alpha_word_fraction", 0.9),
        ("gopher_quality.min_mean_word_chars", 2.5),
    ],
)
def test_steps_tell_what_another_threshold_keeps(key, limit):
    rows = list(documents(800))
    settings = Filter()
    data = settings.model_dump()
    place = data
    for part in key.split(".")[:-1]:
        place = place[part]
    place[key.split(".")[-1]] = limit
    other = Filter.model_validate(data)

    def kept(rules):
        return {row["id"] for row in rows if decide(row, rules_for(rules, row["language"])) is None}

    now, then = kept(settings), kept(other)
    assert now != then
    [tried] = [one for one in settings.rules() if one.setting == key]
    counted = [row for row in count_steps(as_table(rows), settings).to_pylist() if row["setting"] == key]
    drops = COMPARISONS[tried.comparison]
    moved = [row for row in counted if drops(row["step"], tried.limit) != drops(row["step"], limit)]
    words = {row["id"]: row["kept_words"] for row in rows}
    assert sum(row["alone"] for row in moved) == len(now ^ then)
    assert sum(row["words"] for row in moved) == sum(words[one] for one in now ^ then)
    smallest = sorted(one.hex() for row in moved for one in row["ids"])[:SAMPLES]
    assert smallest == sorted(now ^ then)[:SAMPLES]
    asked = [row for row in rows if tried in rules_for(settings, row["language"]) and row[tried.score] is not None]
    assert sum(row["documents"] for row in counted) == len(asked)


def as_table(rows):
    table = pa.table({name: [row[name] for row in rows] for name in rows[0] if name != "id"})
    return table.append_column("id", pa.array([bytes.fromhex(row["id"]) for row in rows], pa.binary(16)))


def test_many_documents_are_judged_as_each_alone():
    rows, rules = list(documents(2000)), Filter().rules()
    judged = judge(as_table(rows), rules)
    told = [
        (rules[first].reason, value) if drops else None
        for drops, first, value in zip(judged.dropped, judged.first, judged.value, strict=True)
    ]
    assert told == [decide(row, rules_for(Filter(), row["language"])) for row in rows]
    assert 100 < sum(judged.dropped) < 1900


@pytest.mark.parametrize("sizes", [[1000], [1, 999], [250] * 4])
def test_steps_are_the_same_however_documents_are_cut_into_batches(sizes, monkeypatch):
    """Their samples are the smallest ids, also of a step whose documents have none of the first ids of all."""
    table, rules = as_table(list(documents(1000))), Filter().rules()
    starts = np.cumsum([0, *sizes]).tolist()
    pieces = [judge(table.slice(at, size), rules) for at, size in zip(starts, sizes, strict=False)]
    whole = count_steps(table, Filter())
    assert counted(pieces, rules) == whole
    monkeypatch.setattr(steps, "FIRST", 16)
    assert counted(pieces, rules) == whole
    judged = judge(table, rules)
    for row in whole.to_pylist():
        at = [one.setting for one in rules].index(row["setting"])
        grid = grid_of(rules[at])
        mine = (judged.places[at] == np.searchsorted(grid, row["step"])) & (judged.dropping == judged.broken[at])
        assert row["ids"] == sorted(one.ljust(16, b"\0") for one in judged.ids[mine].tolist())[:SAMPLES]
        assert (row["alone"], row["words"]) == (mine.sum(), judged.words[mine].sum())


def test_no_rules_have_no_steps():
    off = Filter.model_validate(
        {"min_words": 0, "max_removed_word_fraction": 1.0}
        | {name: {"enabled": False} for name in ("gopher_repetition", "gopher_quality", "fineweb")}
    )
    empty = pa.table(
        {
            "id": pa.array([], pa.binary(16)),
            "language": pa.array([], pa.string()),
            "words": pa.array([], pa.float64()),
            "removed_word_fraction": pa.array([], pa.float64()),
        }
    )
    assert count_steps(empty, off).num_rows == 0
    assert counted([], off.rules()).num_rows == 0


def test_nowhere_is_behind_every_grid():
    assert len(GRID) + 1 < NOWHERE
