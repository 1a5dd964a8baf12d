"""Every set of choices in the shape in which it is published: what is asked, what is right."""

import pytest

from evals.tasks.commonsense import (
    ARC,
    BOOLQ,
    HELLASWAG,
    OPENBOOKQA,
    PIQA,
    RACE,
    SIQA,
    TASKS,
    WINOGRANDE,
    race_rows,
    tidied,
)  # fmt: skip
from evals.tasks.task import Task, Verdict

CASES: list[tuple[Task, dict[str, object], str, str]] = [
    (
        HELLASWAG,
        {"ind": 4, "activity_label": "Roof", "ctx_a": "A man sits.", "ctx_b": "he", "endings": ["eats [sub] rope", "pulls tiles"], "label": "1"},
        "Roof: A man sits. He",
        "pulls tiles",
    ),
    (
        ARC,
        {"id": "a", "question": {"stem": "Why?", "choices": [{"text": "x", "label": "1"}, {"text": "y", "label": "2"}]}, "answerKey": "2"},
        "Why?",
        "y",
    ),
    (ARC, {"id": "a", "question": "Why?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"}, "Why?", "x"),
    (
        OPENBOOKQA,
        {"id": "o", "question_stem": "The sun", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
        "The sun",
        "y",
    ),
    (BOOLQ, {"question": "is it", "passage": "No.", "answer": False}, "is it", "no"),
    (BOOLQ, {"question": "is it", "passage": "Yes.", "label": 1}, "is it", "yes"),
    (PIQA, {"goal": "Dry.", "sol1": "towel", "sol2": "soup", "label": 0}, "Dry.", "towel"),
    (
        SIQA,
        {"context": "Ann ran.", "question": "Why?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"},
        "Ann ran. Why?",
        "z",
    ),
    (
        SIQA,
        {"context": "Ann ran.", "question": "Why?", "answerA": "x", "answerB": "y", "answerC": "z", "correct": "B"},
        "Ann ran. Why?",
        "y",
    ),
    (WINOGRANDE, {"qID": "3FC-2", "sentence": "a _ b", "option1": "x", "option2": "y", "answer": "2"}, "a _ b", "y"),
    (RACE, {"example_id": "m1.txt", "article": "Long.", "question": "Why?", "options": ["x", "y"], "answer": "B"}, "Why?", "y"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "row", "question", "right"), CASES)
def test_a_published_row_is_read(task: Task, row: dict[str, object], question: str, right: str) -> None:
    item = task.read(row, "file/0")
    assert (item.question, item.choices[item.right]) == (question, right)
    assert task.grade(item, f"The answer is {item.answers[0]}.").score == 1
    wrong = "AB"[item.right == 0]
    assert task.grade(item, f"The answer is {wrong}.").score == 0


def test_every_set_has_a_case() -> None:
    assert {task.name for task, *_ in CASES} == {task.name for task in TASKS}


def test_marks_of_wikihow_are_left_out() -> None:
    assert tidied(" Cut. [title] Then [step] glue  it [open") == "Cut.. Then glue it [open"
    assert tidied("a[b]c[d][e]f") == "acf"
    assert tidied("a ] b [c") == "a ] b [c"


def test_twin_sentences_and_questions_of_an_article_are_one_source() -> None:
    row = {"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "1"}
    assert (
        WINOGRANDE.read({**row, "qID": "3FC-1"}, "f/0").source == WINOGRANDE.read({**row, "qID": "3FC-2"}, "f/1").source
    )
    nested = {
        "id": "m1.txt",
        "article": "Long.",
        "questions": ["Why?", "How?"],
        "options": [["x", "y"], ["v", "w"]],
        "answers": ["B", "A"],
    }
    items = [RACE.read(one, f"f/{at}") for at, one in enumerate(race_rows(nested))]
    assert [(one.question, one.choices[one.right]) for one in items] == [("Why?", "y"), ("How?", "v")]
    assert {one.source for one in items} == {"m1.txt"}
    assert len({one.id for one in items}) == 2


def test_boolq_takes_words_for_letters() -> None:
    item = BOOLQ.read({"question": "is it", "passage": "Yes.", "answer": True}, "0")
    graded = [BOOLQ.grade(item, text) for text in ("Yes, it is", "true", "No", "(B)", "perhaps")]
    assert [(one.extracted, one.score) for one in graded] == [("yes", 1), ("yes", 1), ("no", 0), ("B", 1), (None, 0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [("That is not true.", "no"), ("This isn't false", "yes"), ("I'd say it is not true", "no"), ("The answer is: not true", "no"),
     ("Not true", "no"), ("It is true, not false", "yes"), ("True.", "yes")],
)  # fmt: skip
def test_what_boolq_denies_is_its_opposite(text: str, said: str) -> None:
    item = BOOLQ.read({"question": "is it", "passage": "No.", "answer": False}, "0")
    assert BOOLQ.grade(item, text) == Verdict(said, float(said == "no"))


@pytest.mark.parametrize(
    ("task", "row"),
    [
        (ARC, {"question": "Why?", "choices": {"text": ["x"], "label": ["A"]}, "answerKey": "E"}),
        (WINOGRANDE, {"sentence": "no gap", "option1": "x", "option2": "y", "answer": "1"}),
        (BOOLQ, {"question": "q", "passage": "p", "answer": "yes"}),
        (PIQA, {"goal": "g", "sol1": "x", "sol2": "y", "label": -1}),
    ],
)
def test_rows_without_a_right_choice_are_refused(task: Task, row: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"not|no blank"):
        task.read(row, "0")
