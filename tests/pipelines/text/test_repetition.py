"""Gopher's repetition rules against a plain reading of their definitions."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.settings import GopherRepetition
from pipelines.schema import Drop
from pipelines.text.repetition import Ngrams, duplicates, judge
from pipelines.text.words import WORD, Text

RULES = GopherRepetition()
WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "dd", "漢", "字", "e."]), max_size=60)
SPACES = st.sampled_from([" ", "\n", "  ", "\n\n"])


@st.composite
def texts(draw):
    return "".join(word + draw(SPACES) for word in draw(WORDS))


def spans(text):
    return [match.span() for match in WORD.finditer(text)]


def slow_top(text, n):
    """Definition: the most frequent n-gram, of several the longest; once is nothing."""
    found = spans(text)
    words = [text[a:b] for a, b in found]
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    if not grams or max(Counter(grams).values()) < 2:
        return 0.0
    most = max(Counter(grams).values())
    tops = {gram for gram, count in Counter(grams).items() if count == most}
    first = {gram: grams.index(gram) for gram in tops}
    return most * max(found[i + n - 1][1] - found[i][0] for i in first.values()) / len(text)


def slow_duplicates(text, n):
    """Definition: mark each character of every n-gram that stood before, count marks."""
    found = spans(text)
    words = [text[a:b] for a, b in found]
    marks, seen = [False] * len(text), set()
    for i in range(len(words) - n + 1):
        gram = tuple(words[i : i + n])
        if gram in seen:
            for at in range(found[i][0], found[i + n - 1][1]):
                marks[at] = True
        seen.add(gram)
    return sum(marks) / len(text) if text else 0.0


@settings(max_examples=200, deadline=None)
@given(texts(), st.integers(2, 10))
def test_ngrams_equal_the_plain_definition(text, n):
    ngrams = Ngrams(text)
    assert ngrams.top_fraction(n) == pytest.approx(slow_top(text, n))
    assert ngrams.duplicate_fraction(n) == pytest.approx(slow_duplicates(text, n))


@given(st.lists(st.sampled_from(["x", "yy", "zzz"]), max_size=20))
def test_duplicates_count_from_the_second_occurrence(parts):
    extra = Counter(parts) - Counter(set(parts))
    assert duplicates(parts) == (extra.total(), sum(len(part) * count for part, count in extra.items()))


ORDINARY = "The river bends twice before it meets the old mill, where nobody has ground any corn since my grandmother was young."


@pytest.mark.parametrize(
    ("text", "reason", "value"),
    [
        ("I am your father.\n" * 4, Drop.DUPLICATE_LINES, 3 / 4),
        ("I am Frank, I am Frank, I am Frank", Drop.TOP_NGRAM, 3 * 4 / 34),
        ("I am a solo traveller " * 4 + ORDINARY, Drop.TOP_NGRAM, 4 * 14 / (88 + len(ORDINARY))),
        ("I am a solo traveller " * 4 + ORDINARY, Drop.DUPLICATE_NGRAMS, None),
        ("One line.\n\n" * 3 + ORDINARY, Drop.DUPLICATE_LINES, 2 / 4),
        (ORDINARY, None, None),
        ("", None, None),
    ],
)
def test_known_answers(text, reason, value):
    rules = RULES
    if reason is Drop.DUPLICATE_NGRAMS:  # the top n-grams of this text are above their limits too
        rules = GopherRepetition(top_ngram_char_fraction={})
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
        top_ngram_char_fraction={},
        duplicate_ngram_char_fraction={},
    )
    assert judge(Text(text), loose) is None
    assert judge(Text(text), loose.model_copy(update={"duplicate_line_fraction": 0.249})) == (
        Drop.DUPLICATE_LINES,
        0.25,
    )
    tight = loose.model_copy(update={"duplicate_line_char_fraction": 0.21})
    assert judge(Text(text), tight) == (Drop.DUPLICATE_LINE_CHARS, pytest.approx(4 / 19))


def test_paragraphs_are_judged_beside_lines():
    parts = [f"first {n}\nsecond {n}" for n in range(3)] + ["first 0\nsecond 0"] * 2
    rules = GopherRepetition(
        duplicate_line_fraction=1,
        duplicate_line_char_fraction=1,
        top_ngram_char_fraction={},
        duplicate_ngram_char_fraction={},
    )
    assert judge(Text("\n\n".join(parts)), rules) == (Drop.DUPLICATE_PARAGRAPHS, 2 / 5)
