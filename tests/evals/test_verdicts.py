"""What an ablation says of its variants, in one sentence."""

from evals.ablation import Measure
from evals.verdicts import compare

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


def test_variants_that_diverged_are_worse_than_all_others() -> None:
    values = {**BITS.values, "c": {0: [3.0, 3.1], 1: [3.2, 3.1]}}
    found = compare([Measure(BITS.name, values, [1.0, 1.0])], 0.95, {"hot": [3, 4], "warm": [4]})
    assert (found.best, found.variants) == ("a", ["a", "b", "c"])
    assert found.verdict == (
        "a is better than every other variant in bits per byte; worse is what diverged: hot (seed 3, 4) and warm (seed 4)"
    )
    alone = compare([Measure(BITS.name, {"a": BITS.values["a"]}, [1.0, 1.0])], 0.95, {"hot": [3]})
    assert (alone.best, alone.main) == ("a", ())
    assert alone.verdict == "a is better than every other variant: training diverged for hot (seed 3)"
    none = compare([], 0.95, {"a": [0], "b": [0]})
    assert (none.best, none.variants) == (None, [])
    assert none.verdict == "no variant is better: training diverged for a (seed 0) and b (seed 0)"
