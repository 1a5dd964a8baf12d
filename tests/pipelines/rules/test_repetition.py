"""Gopher's repetition rules: the known answers. That each score equals its definition on any text is in test_scores."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.settings.filter import Filter, GopherRepetition
from pipelines.rules.decide import decide
from pipelines.rules.repetition import duplicate_fraction, duplicates, repetition_scores, top_fraction
from pipelines.text.words import Text

RULES = GopherRepetition()
OFF_TOP = dict.fromkeys((2, 3, 4), 1.0)
OFF_DUPLICATE = dict.fromkeys(range(5, 11), 1.0)


def judge(document, rules):
    return decide(repetition_scores(document), Filter(gopher_repetition=rules).rules())


@settings(deadline=None)  # the first call may compile
@given(st.lists(st.sampled_from(["x", "yy", "zzz"]), max_size=20))
def test_duplicates_count_from_the_second_occurrence(parts):
    extra = Counter(parts) - Counter(set(parts))
    lines = Text("\n".join(parts)).lines
    assert duplicates(lines) == (extra.total(), sum(len(part) * count for part, count in extra.items()))


ORDINARY = "The river bends twice before it meets the old mill, where nobody has ground any corn since my grandmother was young."


@pytest.mark.parametrize(
    ("text", "reason", "value"),
    [
        ("I am your father.\n" * 4, "duplicate_lines", 3 / 4),
        ("I am Frank, I am Frank, I am Frank", "top_ngram", 3 * 4 / 34),
        ("I am a solo traveller " * 4 + ORDINARY, "top_ngram", 4 * 14 / (88 + len(ORDINARY))),
        ("I am a solo traveller " * 4 + ORDINARY, "duplicate_ngrams", None),
        ("One line.\n\n" * 3 + ORDINARY, "duplicate_lines", 2 / 4),
        (ORDINARY, None, None),
        ("", None, None),
    ],
)
def test_known_answers(text, reason, value):
    rules = RULES
    if reason == "duplicate_ngrams":  # the top n-grams of this text are above their limits too
        rules = GopherRepetition(top_ngram_char_fraction=OFF_TOP)
        value = (4 * 22 - 23) / len(
            text
        )  # every 5-gram that starts in the 2nd to 4th copy, but those that reach into the rest
    found = judge(Text(text), rules)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] is reason
        assert found[1] == pytest.approx(value)


def test_a_value_at_its_limit_stays():
    text = "aaaa\nbbbb\ncccc\nbbbb"
    loose = GopherRepetition(
        duplicate_line_fraction=0.25,
        duplicate_line_char_fraction=4 / 19,
        top_ngram_char_fraction=OFF_TOP,
        duplicate_ngram_char_fraction=OFF_DUPLICATE,
    )
    assert judge(Text(text), loose) is None
    assert judge(Text(text), loose.model_copy(update={"duplicate_line_fraction": 0.249})) == (
        "duplicate_lines",
        0.25,
    )
    tight = loose.model_copy(update={"duplicate_line_char_fraction": 0.21})
    assert judge(Text(text), tight) == ("duplicate_line_chars", pytest.approx(4 / 19))


def test_paragraphs_are_judged_beside_lines():
    parts = [f"first {n}\nsecond {n}" for n in range(3)] + ["first 0\nsecond 0"] * 2
    rules = GopherRepetition(
        duplicate_line_fraction=1,
        duplicate_line_char_fraction=1,
        top_ngram_char_fraction=OFF_TOP,
        duplicate_ngram_char_fraction=OFF_DUPLICATE,
    )
    assert judge(Text("\n\n".join(parts)), rules) == ("duplicate_paragraphs", 2 / 5)


def test_ngrams_by_hand():
    text = "a b c a b d a  b"
    assert top_fraction(Text(text), 2) == 3 * 3 / 16  # "a b" three times, as long as where it first stands
    assert top_fraction(Text("a b c d"), 2) == 0, "once is nothing"
    assert top_fraction(Text("aa b cc aa b dd cc"), 1) == 2 * 2 / 18, "of several the longest"
    assert duplicate_fraction(Text("a b c a b c a b c"), 2) == 11 / 17, (
        "from the fourth word to the end, each character once"
    )
    assert duplicate_fraction(Text(""), 5) == duplicate_fraction(Text("a"), 5) == 0


def test_a_character_under_several_duplicates_counts_once():
    once = " ".join(f"w{n}" for n in range(12))
    scores = repetition_scores(Text(f"{once} {once}"))
    for n in range(5, 11):
        assert scores[f"duplicate_{n}grams"] == len(once) / (2 * len(once) + 1)
