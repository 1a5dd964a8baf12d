"""Grading of choices."""

import pytest

from evals.tasks.choice import by_letter, by_number, grade, grade_likelihoods
from evals.tasks.task import Item

ITEM = Item("0", "s", "Who?", ("Bo", "Alexandra", "Cy"), ("B",))


def test_an_output_takes_a_choice_or_none() -> None:
    assert grade(ITEM, "The answer is B").score == 1
    assert (grade(ITEM, "Cy").extracted, grade(ITEM, "Cy").score) == ("C", 0)
    assert (grade(ITEM, "no idea").extracted, grade(ITEM, "no idea").score) == (None, 0)


def test_the_likeliest_choice_counts_by_itself_or_by_byte() -> None:
    logprobs = (-3.0, -5.4, -4.0)  # by byte -1.5, -0.6, -2
    assert grade_likelihoods(ITEM, logprobs).extracted == "A"
    assert grade_likelihoods(ITEM, logprobs, by_byte=True) == grade_likelihoods(ITEM, (-9.0, -1.0, -2.0))
    assert grade_likelihoods(ITEM, (-1.0, -1.0, -1.0)).extracted == "A"
    assert grade_likelihoods(ITEM, (float("nan"), -1.0, -1.0)).extracted is None
    with pytest.raises(ValueError, match="3 choices and 2 log-likelihoods"):
        grade_likelihoods(ITEM, (-1.0, -2.0))


def test_published_answers_are_letters_or_numbers_of_choices() -> None:
    assert by_letter({"answer": " b "}, "answer", 3) == "B"
    assert by_number({"label": "2"}, "label", 2, first=1) == "B"
    for wrong in ({"answer": "D"}, {"answer": ""}, {"answer": "AB"}):
        with pytest.raises(ValueError, match="not a letter from A to C"):
            by_letter(wrong, "answer", 3)
    for number in ("0", "3"):
        with pytest.raises(ValueError, match="not a number from 1 to 2"):
            by_number({"label": number}, "label", 2, first=1)
