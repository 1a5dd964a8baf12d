"""MMLU, C-Eval and CMMLU: their rows, as published and as on the Hub."""

import pytest

from evals.tasks.knowledge import CEVAL, CMMLU, MMLU, read_exam, read_mmlu

LETTERS = {"A": "1", "B": "2", "C": "3", "D": "4"}


def test_rows_of_either_shape_are_one_item() -> None:
    published = read_mmlu({"question": "Q", **LETTERS, "answer": "C"}, "arts/7")
    hub = read_mmlu({"question": "Q", "choices": ["1", "2", "3", "4"], "answer": 2, "subject": "arts"}, "train/7")
    assert published == hub
    assert (published.id, published.choices[published.right]) == ("arts/7", "3")


def test_chinese_exams_differ_in_their_capitals_alone() -> None:
    ceval = read_exam({"id": "7", "question": "Q", **LETTERS, "answer": "D", "explanation": ""}, "arts/7")
    cmmlu = read_exam({"": "7", "Question": "Q", **LETTERS, "Answer": "D"}, "arts/7")
    assert ceval == cmmlu
    assert ceval.answers == ("D",)


def test_unlabelled_rows_are_refused() -> None:
    with pytest.raises(KeyError, match="answer"):
        read_exam({"question": "Q", **LETTERS}, "arts/0")
    with pytest.raises(ValueError, match="not a letter"):
        read_mmlu({"question": "Q", **LETTERS, "answer": ""}, "arts/0")


@pytest.mark.parametrize(("answer", "right"), [(1, "B"), ("1", "B"), ("B", "B"), ("b", "B"), (" B ", "B"), (0, "A")])
def test_an_answer_is_a_number_or_a_letter_however_it_is_written(answer: object, right: str) -> None:
    assert read_mmlu({"question": "Q", "choices": ["1", "2"], "answer": answer}, "arts/0").answers == (right,)


@pytest.mark.parametrize("answer", ["-1", -1, "E", "C", 2, "3", "", None, True, 1.5])
def test_an_answer_that_is_none_of_the_choices_is_refused(answer: object) -> None:
    with pytest.raises(ValueError, match=r"answer is .*, not a (letter from A to B|number from 0 to 1)"):
        read_mmlu({"question": "Q", "choices": ["1", "2"], "answer": answer}, "arts/0")


def test_abilities_and_shots() -> None:
    assert [one.ability for one in (MMLU, CEVAL, CMMLU)] == ["knowledge en", "knowledge zh", "knowledge zh"]
    assert {one.shots for one in (MMLU, CEVAL, CMMLU)} == {5}
    assert [*MMLU.styles] == ["letter", "cloze"]
