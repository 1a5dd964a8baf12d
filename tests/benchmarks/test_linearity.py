"""Every pattern and every reader takes at most 2.2 times as long for twice the input, on worst cases made for it."""

import re

import pytest

from benchmarks.linearity import BAR, Case, cases, linearity, patterns

CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_twice_the_input_takes_twice_the_time(name):
    ratio, text = linearity(CASES[name], closely=1)
    assert ratio <= BAR, f"{name} on {text}"


@pytest.mark.parametrize(
    ("call", "piece"),
    [
        (re.compile(r"\s*\+?\s*x").match, " "),
        (re.compile(r"\W*\d").search, " "),
        (re.compile(r"(?:a|aa)*b").match, "a"),  # doubles with every character
        (lambda text: sum(text[at:] == "b" for at in range(len(text))), "a"),
    ],
)
def test_what_is_not_linear_is_told(call, piece):
    ratio, _ = linearity(Case(call, {piece: lambda size: piece * size}), tries=1)
    assert ratio > 3


def test_what_is_tried_is_what_the_pattern_speaks_of():
    counter = patterns()["pipelines.text.lines.COUNTER.fullmatch"].inputs
    assert {text[:3] for text in (make(3) for make in counter.values())} >= {"  \x01", "111", " 1 "}
