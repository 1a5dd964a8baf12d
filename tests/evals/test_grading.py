"""Scores, intervals and rates of graded outputs."""

from dataclasses import replace

import pytest

from contract.errors import InputError
from evals.grading import clusters_of, grade, report, scored
from evals.intervals import ratio, wilson
from evals.records import Output, Record
from evals.tasks.knowledge import MMLU
from evals.tasks.maths import GSM8K, MATH
from evals.tasks.openqa import NATURAL_QUESTIONS
from evals.tasks.prompts import prompt
from evals.tasks.table import TASKS
from evals.tasks.task import Item, Task
from evals.tasks.toxicity import WordList

ITEMS = [GSM8K.read({"question": f"q{at}", "answer": f"#### {at}"}, f"a/{at}") for at in range(4)]


def graded(task: Task, items: list[Item], outputs: dict[str, list[Output]]) -> list[Record]:
    return grade(task, items, outputs, lambda item: prompt(task, item))


def test_each_output_is_a_row_with_its_prompt_answer_and_verdict() -> None:
    texts = ["#### 0", "It is 7", "no idea", "The answer is 3."]
    rows = graded(GSM8K, ITEMS, {item.id: [Output(text)] for item, text in zip(ITEMS, texts, strict=True)})
    assert [(one.id, one.extracted, one.score, one.expected) for one in rows] == [
        ("a/0", "0", 1, "0"), ("a/1", "7", 0, "1"), ("a/2", None, 0, "2"), ("a/3", "3", 1, "3"),
    ]  # fmt: skip
    assert rows[1].prompt == "Question: q1\nAnswer:"
    assert rows[1].output == "It is 7"
    made = report(rows)
    assert (made.score.mean, made.score.n, made.extraction_rate, made.outputs) == (0.5, 4, 0.75, 4)
    assert (made.score.low, made.score.high) == pytest.approx(wilson(2, 4))
    assert made.warnings == [
        "gsm8k: an answer was found in only 75.0% of the outputs; below 90% the score tells how answers are written rather than whether they are right"
    ]
    assert (made.pass_at, made.majority) == ({}, None)


def test_of_a_text_that_is_too_long_the_part_that_was_graded_is_kept() -> None:
    texts = [
        f"<think>{'x' * 30_000}</think>#### 0",
        "1" * 30_000 + "#### 1",
        f"#### 2\nQuestion: {'y' * 30_000}",
        "<think>x</think>3",
    ]
    rows = graded(GSM8K, ITEMS, {item.id: [Output(text)] for item, text in zip(ITEMS, texts, strict=True)})
    assert [one.output for one in rows] == ["#### 0", "1" * (20_000 - 6) + "#### 1", "#### 2", "<think>x</think>3"]
    assert [one.score for one in rows] == [1] * 4


def test_no_warning_from_nine_tenths_on() -> None:
    rows = [Record("t", "maths", str(at), str(at), 0, "", "", "", None if at == 0 else "1", 0.0) for at in range(10)]
    assert report(rows).warnings == []
    assert report(rows[:9]).warnings != []


def test_several_outputs_give_pass_at_k_and_a_majority() -> None:
    outputs = {
        "a/0": [Output(one) for one in ("0", "0", "9", "9", "0")],
        "a/1": [Output(one) for one in ("5", "5", "1", "?", "?")],
        "a/2": [Output("?")] * 5,
        "a/3": [Output("3")] * 5,
    }
    made = report(graded(GSM8K, ITEMS, outputs))
    assert made.score.mean == pytest.approx((3 / 5 + 1 / 5 + 0 + 1) / 4)
    assert made.pass_at.keys() == {1, 5}
    assert made.pass_at[1].mean == pytest.approx(made.score.mean)
    assert made.pass_at[5].mean == 0.75
    assert made.majority is not None
    assert made.majority.mean == 0.5
    assert made.score.n == 4


VOTES: list[tuple[Task, dict[str, object], list[str], float | None]] = [
    (MATH, {"problem": "p", "solution": "\\boxed{0.5}"}, ["$\\frac{1}{2}$", "$0.5$", "$1/2$", "$3$", "$3$"], 1.0),
    (MATH, {"problem": "p", "solution": "\\boxed{3}"}, ["$\\frac{1}{2}$", "$0.5$", "$1/2$", "$3$", "$3$"], 0.0),
    (NATURAL_QUESTIONS, {"question": "q", "answer": ["Paris"]}, ["Rome", "Rome", "paris", "Paris", "the Paris."], 1.0),
    (TASKS["bbh"], {"input": "q", "target": "b a"}, ["a b", "a b", "b, a", "b a", "B A"], 1.0),
    (TASKS["boolq"], {"question": "q", "passage": "p", "answer": True}, ["no", "yes", "Yes", "true", "no"], 1.0),
    (TASKS["ifeval"], {"prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}, ["a", "a", "a,b"], None),
    (TASKS["realtoxicityprompts"], {"prompt": {"text": "p"}}, ["a", "a", "darn"], None),
]  # fmt: skip


@pytest.mark.parametrize(("task", "row", "texts", "mean"), VOTES)
def test_outputs_vote_on_answers_however_they_are_written_and_on_nothing_else(
    task: Task, row: dict[str, object], texts: list[str], mean: float | None
) -> None:
    item = replace(task.read(row, "a/0"), id="a/0")
    item = replace(item, fields={**item.fields, "words": WordList(frozenset({"darn"}))})
    made = report(graded(task, [item], {"a/0": [Output(one) for one in texts]}))
    assert (None if made.majority is None else made.majority.mean) == mean
    assert made.pass_at, "right and wrong outputs are counted all the same"


def test_whether_code_passed_is_no_answer_to_vote_on() -> None:
    rows = [Record("humaneval", "code", "a", "a", at, "", "", "", "passed", 1.0) for at in range(2)]
    rows += [Record("humaneval", "code", "a", "a", at, "", "", "", "failed", 0.0) for at in range(2, 5)]
    made = report(rows)
    assert (made.majority, made.pass_at[1].mean) == (None, pytest.approx(0.4))
    assert [name for name, task in TASKS.items() if task.same is None] == [
        "humaneval", "mbpp", "tydiqa", "realtoxicityprompts", "translation", "summary", "ifeval", "perplexity",
    ]  # fmt: skip


def test_the_best_by_reward_is_graded_where_all_have_one() -> None:
    outputs = {
        "a/0": [Output("0", reward=0.2), Output("9", reward=0.9)],
        "a/1": [Output("1", reward=2.0), Output("?", reward=-1.0)],
    }
    made = report(graded(GSM8K, ITEMS[:2], outputs))
    assert made.best is not None
    assert (made.best.mean, made.score.mean) == (0.5, 0.5)
    outputs["a/0"].reverse()
    outputs["a/0"][1] = Output("0", reward=1.0)
    better = report(graded(GSM8K, ITEMS[:2], outputs)).best
    assert better is not None
    assert better.mean == 1
    outputs["a/1"][1] = Output("?")
    assert report(graded(GSM8K, ITEMS[:2], outputs)).best is None


def test_log_likelihoods_choose() -> None:
    item = MMLU.read({"question": "Q", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "B"}, "arts/0")
    (row,) = graded(MMLU, [item], {"arts/0": [Output(logprobs=(-3.0, -1.0, -2.0, -4.0))]})
    assert (row.extracted, row.score, row.output) == ("B", 1, "-3 -1 -2 -4")
    with pytest.raises(InputError, match="4 choices and 2"):
        graded(MMLU, [item], {"arts/0": [Output(logprobs=(-3.0, -1.0))]})
    with pytest.raises(InputError, match="has no choices"):
        graded(GSM8K, ITEMS[:1], {"a/0": [Output(logprobs=(-3.0,))]})


def test_outputs_must_cover_the_items_and_nothing_else() -> None:
    with pytest.raises(InputError, match="2 of 4 items have no output, for example 'a/2'"):
        graded(GSM8K, ITEMS, {"a/0": [Output("0")], "a/1": [Output("1")], "a/2": []})
    with pytest.raises(InputError, match="1 outputs have ids that no item has, for example 'b'"):
        graded(GSM8K, ITEMS[:1], {"a/0": [Output("0")], "b": [Output("0")]})


def test_items_of_one_source_widen_the_interval() -> None:
    scores = [1.0] * 10 + [0.0] * 10
    alone, alike = scored(scores, range(20)), scored(scores, ["a"] * 10 + ["b"] * 10)
    assert (alone.low, alone.high) == pytest.approx(wilson(10, 20))
    assert (alike.low, alike.high) == pytest.approx(wilson(1, 2)), "two subjects, each all alike, are two trials"
    assert alike.mean == alone.mean == 0.5
    assert (alike.n, alike.sources) == (20, 2)


def test_items_of_a_single_source_stand_alone() -> None:
    assert clusters_of(["a", "a", "a"]) == [0, 1, 2]
    assert clusters_of(["a", "b", "a"]) == ["a", "b", "a"]


def test_scores_between_right_and_wrong_have_the_ratio_estimates_interval() -> None:
    made = scored([0.5, 0.25, 1.0, 0.0], ["a", "a", "b", "c"])
    assert made.mean == 0.4375
    assert (made.low, made.high) == pytest.approx(
        tuple(min(1, max(0, end)) for end in ratio([0.75, 1.0, 0.0], [2, 1, 1]))
    )
    assert made.low < made.mean < made.high


def test_a_report_is_of_one_task() -> None:
    rows = [Record(task, "maths", "0", "0", 0, "", "", "", "1", 1.0) for task in ("a", "b")]
    with pytest.raises(InputError, match="these records are of a, b"):
        report(rows)
    with pytest.raises(InputError, match="none"):
        report([])


def test_scores_that_are_all_alike_are_no_certainty() -> None:
    made = scored([0.5] * 3, range(3))
    assert (made.mean, made.low, made.high) == (0.5, *wilson(1.5, 3))
    twice = scored([0.5] * 6, ["a", "a", "b", "b", "c", "c"])
    assert (twice.low, twice.high) == pytest.approx((made.low, made.high)), "each source counts once"
    many = scored([0.5] * 1000, range(1000))
    assert many.high - many.low < 0.07
