"""Answers in outputs: the hand-made hard cases, and that hostile outputs take no longer than their length allows."""

import json
import time
from collections.abc import Callable

import pytest

from evals.tasks.answers import announced, boxed, first_number, letter, number, refuses, segment, word
from evals.tasks.task import MOST_CHARS
from perf.evaluate.extraction import LEAST, cases, read, right


@pytest.mark.parametrize("kind", ["number", "letter", "maths", "word"])
def test_the_hard_cases_of_each_kind_are_read_right(kind: str) -> None:
    some = [one for one in cases() if one["kind"] == kind]
    missed = [(one["text"], read(one)) for one in some if not right(one)]
    assert len(some) > 20
    assert len(missed) <= 0.02 * len(some), missed


def test_there_are_enough_hard_cases_and_none_twice() -> None:
    rows = [json.dumps(one) for one in cases()]
    assert len(rows) >= LEAST
    assert len(set(rows)) == len(rows)


def test_a_wrong_reading_is_noticed() -> None:
    """The bench's own check: of every kind a case whose wanted answer is spoilt is missed."""
    for case in ({"kind": "number", "text": "5", "want": "6"}, {"kind": "maths", "text": "\\boxed{5}", "right": "6"}):
        assert not right(case)
    assert not right({"kind": "maths", "text": "\\boxed{5}", "wrong": "5"})
    assert not right({"kind": "letter", "text": "B", "choices": ["x", "y"], "want": None})


def test_what_is_announced_comes_in_order_of_sureness() -> None:
    text = "The answer is 1. \\boxed{2} The answer is 3.\n#### 4\n#### 5\n"
    assert [*announced(text)] == ["5", "4", "2", "3", "1"]


def test_the_last_box_whose_braces_balance() -> None:
    assert boxed("\\boxed{1} and \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert boxed("\\boxed{1} and \\boxed{2") == "1"
    assert boxed("\\boxed{\\{1, 2\\}}") == "\\{1, 2\\}"
    assert boxed("none") is None


def test_a_refusal_is_told_by_its_opening() -> None:
    assert refuses("  **I'm sorry**, but no")
    assert refuses("对不起，我不能")
    assert not refuses("He was sorry. I can answer: 5")


def test_a_refusal_with_a_number_has_no_answer_and_an_announced_one_has() -> None:
    assert number("I'm sorry, see page 12") is None
    assert number("I'm sorry, that took long. The answer is 12") == 12


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (" **5** apples. And 6", "5** apples"),
        ("\n\n\\[\n 5. 6 \n\\] and", "5. 6"),
        (": \\( 7 \\) and", "7"),
        ("$$ 8 $$. 9", "8"),
        ("\\[ 5 without an end. 6", "\\[ 5 without an end"),
        ("5\n6", "5"),
        ("5。6", "5"),
        ("1.5; 6", "1.5"),
        ("5!", "5"),
        ("x" * 1000, "x" * 400),
    ],
)
def test_what_an_announcement_says_ends_with_its_sentence_or_its_mathematics(text: str, wanted: str) -> None:
    assert segment(text, 0) == wanted
    assert segment(f"is{text}", 2) == wanted


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("3 + 4 = 7", 7),
        ("x = 5", 5),
        ("7 = 3 + 4", 7),
        ("5 apples and 6 pears", 5),
        ("2 * 3 = 6 = 12 / 2", 6),
        ("\\text{12} cm", 12),
        ("about ≈ 3", 3),
        ("nothing", None),
        ("two", 2),
        ("三个", 3),
    ],
)
def test_an_announcement_with_an_equation_says_what_it_comes_to(part: str, value: int | None) -> None:
    assert first_number(part) == value


def test_a_choice_is_meant_by_its_whole_words_alone() -> None:
    choices = ["blue", "a red bird", "light blue", "北京"]
    assert letter("It is blue.", choices) == "A"
    assert letter("It is light blue.", choices) == "C", "the longer of two that stand in each other"
    assert letter("The bluebird sings", choices) is None
    assert letter("Darkblue, then", choices) is None
    assert letter("The bluebird is blue", choices) == "A"
    assert letter("it is not blue", choices) is None
    assert letter("Red bird", choices) == "B"
    assert letter("The red bird", choices) == "B"
    assert letter("我觉得北京好", choices) == "D"


def test_letters_beyond_the_choices_and_words_of_one_letter_are_none() -> None:
    choices = ["w", "x", "y", "z"]
    assert [letter(text, choices) for text in ("E", "The answer is F.", "(H)", "I think so", "A person")] == [None] * 5
    assert letter("The answer is D, not E", choices) == "D"
    assert letter("Perhaps C", choices) == "C"
    assert letter("B, later C", choices) == "B"
    assert letter("The answer is clearly C here", choices) == "C"
    assert letter("The answer is clearly C, hardly D", choices) is None
    assert letter("Either of A or B", ["w", "x"]) is None


def test_words_are_announced_or_first_or_last_and_denied_ones_turn_round() -> None:
    known = ("valid", "invalid")
    texts = [
        "The answer is valid",
        "valid I say, never invalid",
        "we see it is not valid",
        "isn't invalid",
        "invalid, or rather valid",
        "validity",
    ]
    assert [word(text, known) for text in texts] == ["valid", "valid", "invalid", "valid", "invalid", None]
    assert word("it is not red", ("red", "green", "blue")) is None, "which of the others, nobody knows"


HOSTILE = (
    "1", "1,", "1.", "1 000 ", "1/", "-", "#### ", "\\boxed{", "{", "}", "(", "**", "** 1", "the answer is ", "answer", "A ", "A and ", "(A",
    "not A ", "not 5 ", " ", "\n", "$", "=", "one ", "hundred ", "and ", "三", "百分之", "分之", "点", "万", "\\frac{1}{", "\\text{", "1e9", "，",
    "option ", "choose ", "<think>", "</think>", "x=", "答案是", "是", "\\[", "\\(", ".", "。", "I'm sorry ", "very ", "½", "个半",
)  # fmt: skip
READERS: dict[str, Callable[[str], object]] = {
    "number": number,
    "letter": lambda text: letter(text, ["red apples", "blue sky", "a", "A and B"]),
    "word": lambda text: word(text, ("yes", "no")),
}


@pytest.mark.parametrize("reader", READERS)
def test_hostile_outputs_are_read_in_time(reader: str) -> None:
    """Quadratic time would be minutes for the longest output; whole seconds are already a defect."""
    for piece in HOSTILE:
        text = (piece * MOST_CHARS)[: 3 * MOST_CHARS]
        began = time.perf_counter()
        READERS[reader](text)
        assert time.perf_counter() - began < 2.0, f"{reader}: {piece!r} repeated"
