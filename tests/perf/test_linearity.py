"""Every pattern and every reader takes at most 2.2 times as long for twice the input, on worst cases made for it."""

import importlib
import re

import pytest

from perf.linearity import BAR, BOUNDED, Case, cases, linearity, patterns

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


def test_what_sees_windows_only_is_a_pattern_of_today():
    for name in BOUNDED:
        module, _, key = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), key), re.Pattern)


def test_patterns_that_are_written_in_place_are_tried():
    assert r"pipelines.extract '\\n{3,}'.search" in CASES
    assert "reports.why '[0-9a-f]{32}'.fullmatch" in CASES


def test_what_is_tried_is_what_the_pattern_speaks_of():
    counter = patterns()["pipelines.rules.lines.COUNTER.fullmatch"].inputs
    assert {text[:3] for text in (make(3) for make in counter.values())} >= {"  \x01", "111", " 1 "}
