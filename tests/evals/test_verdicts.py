"""What an ablation says: one sentence, and tables whose numbers are those of the decision."""

from evals.ablation import Measure
from evals.verdicts import compare, figures_table, mean_and_spread, render, verdicts_table

BITS = Measure("bits per byte", {"a": {0: [1.0, 1.1], 1: [1.2, 1.1]}, "b": {0: [2.0, 2.1], 1: [2.2, 2.1]}}, [1.0, 1.0])
QUIZ = Measure("quiz", {"a": {0: [1, 0], 1: [1, 0]}, "b": {0: [1, 0], 1: [0, 0]}}, [1.0, 1.0], lower_is_better=False)


def test_two_variants_get_a_sentence_with_the_interval() -> None:
    found = compare([BITS, QUIZ], 0.95)
    assert found.best == "a"
    assert found.verdict == "a is better than b: a difference of 1 bits per byte, 95% interval 1 to 1"


def test_what_cannot_be_told_is_said() -> None:
    level = Measure(BITS.name, {"a": BITS.values["a"], "b": {0: [1.2, 1.1], 1: [1.0, 1.1]}}, [1.0, 1.0])
    found = compare([level], 0.95)
    assert found.best is None
    assert found.verdict.startswith("a and b: no difference can be told; ")


def test_many_variants_get_the_best_or_the_pairs_that_differ() -> None:
    values = {**BITS.values, "c": {0: [3.0, 3.1], 1: [3.2, 3.1]}}
    assert compare([Measure(BITS.name, values, [1.0, 1.0])], 0.95).verdict == (
        "a is better than every other variant in bits per byte"
    )
    level = {**BITS.values, "c": BITS.values["a"]}
    assert compare([Measure(BITS.name, level, [1.0, 1.0])], 0.95).verdict == (
        "no variant is better than every other; a is better than b, c is better than b"
    )
    same = dict.fromkeys("abc", BITS.values["a"])
    assert compare([Measure(BITS.name, same, [1.0, 1.0])], 0.95).verdict == (
        "no variant is better than every other; no difference between any two can be told"
    )


def test_sources_and_tasks_do_not_weaken_the_main_verdict() -> None:
    alone, beside = compare([BITS], 0.95), compare([BITS, *[QUIZ] * 9], 0.95)
    assert alone.main[0].p == beside.main[0].p
    assert len(beside.others) == 9
    assert all(one.measure == "quiz" for one in beside.others)


def test_tables_hold_the_figures() -> None:
    found = compare([BITS, QUIZ], 0.95)
    assert figures_table(found) == [
        "| variant | models | bits per byte | spread | quiz   |",
        "| ------- | ------ | ------------- | ------ | ------ |",
        "| a       | 2      | 1.1000        | 0.0707 | 0.5000 |",
        "| b       | 2      | 2.1000        | 0.0707 | 0.2500 |",
    ]
    assert mean_and_spread(BITS, "a")[2] == 2
    row = verdicts_table(found.main)[2]
    assert "| a - b | -1.0000" in row
    assert row.endswith("| a is better |")
    one_seed = compare([Measure("x", {"a": {0: [1.0, 2.0]}, "b": {0: [1.0, 2.0]}}, [1.0, 1.0])], 0.95)
    assert "| +0.0000    | -  " in verdicts_table(one_seed.main)[2]


def test_the_report_names_what_each_variant_changes() -> None:
    text = render(compare([BITS, QUIZ], 0.95), ["A fact."], {"a": (), "b": ("x.y=1", "x.z=2")})
    assert "- a: the recipe itself\n- b: `x.y=1`, `x.z=2`\n" in text
    assert "bits per byte: lower is better.\nquiz: higher is better.\n" in text
    assert text.index("A fact.") < text.index("## Figures") < text.index("## Verdicts") < text.index("## By source")
    assert "## By source" not in render(compare([BITS], 0.95), [], {})
