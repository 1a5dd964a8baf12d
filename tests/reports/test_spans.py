"""Texts in pieces: nothing is lost or invented, and what is hidden stays hidden."""

import time

import pytest

from pipelines.text.folding import shingles
from reports.edits import edits_of
from reports.spans import Span, shingled, shortened, similarity, spans_of, words_of


def test_cuts_removed_lines_and_masks_are_told_apart():
    before = "Sign in\nWrite to who@host.example today, über all.\nThe end of it."
    after = "Write to email@example.com today, über all.\nThe end of it."
    start = len(b"Write to email@example.com today, ")
    spans = spans_of(after, {"dedup_substring": [(start, start + len("über".encode()))]}, edits_of(before, after))
    assert spans == [
        Span("Sign in\n", "removed", "score"),
        Span("Write to "),
        Span("email@example.com", "masked", "score"),
        Span(" today, "),
        Span("über", "cut", "dedup_substring"),
        Span(" all.\nThe end of it."),
    ]
    assert "who@host.example" not in "".join(span.text for span in spans)


@pytest.mark.parametrize("before", ["a b c", "a b c\nd", "", "x\ny\nz"])
def test_what_was_not_removed_is_the_text(before):
    text = "a b c\nd e f"
    spans = spans_of(text, {"decontaminate": [(0, 1), (4, 7)]}, edits_of(before, text))
    assert "".join(span.text for span in spans if span.kind != "removed") == text
    assert [span for span in spans if span.kind == "cut"][:1] == [Span("a", "cut", "decontaminate")]


def test_cuts_may_touch_overlap_and_be_of_several_stages():
    cuts = {"dedup_substring": [(6, 9), (2, 4), (4, 5)], "decontaminate": [(0, 3), (8, 8)], "other": []}
    assert spans_of("0123456789", cuts) == [
        Span("01", "cut", "decontaminate"),
        Span("2", "cut", "dedup_substring"),
        Span("34", "cut", "dedup_substring"),
        Span("5"),
        Span("67", "cut", "dedup_substring"),
        Span("8", "cut", "dedup_substring"),
        Span("9"),
    ]


def test_many_cuts_and_edits_take_no_longer_than_the_text():
    """It takes about a second; a look at every edit for every piece would take an hour."""
    count = 50_000
    text = "aé b " * count
    cuts = {"dedup_substring": [(6 * at, 6 * at + 3) for at in range(count)]}
    edits = [(5 * at + 3, 5 * at + 4, "") for at in range(count)]
    begun = time.perf_counter()
    spans = spans_of(text, cuts, edits)
    assert time.perf_counter() - begun < 20
    assert spans[:5] == [
        Span("aé", "cut", "dedup_substring"),
        Span(" "),
        Span("b", "masked", "score"),
        Span(" "),
        Span("aé", "cut", "dedup_substring"),
    ]
    assert len(spans) == 4 * count


def test_a_text_is_cut_to_a_length():
    spans = [Span("abc"), Span("def", "cut", "x"), Span("ghi")]
    assert list(shortened(spans, 5)) == [Span("abc"), Span("de", "cut", "x")]
    assert list(shortened(spans, 3)) == [Span("abc")]


def test_shared_shingles_are_marked_in_both_texts():
    one, other = shingled("A b, c D e", "x b c d! y", 3)
    assert one == [Span("A "), Span("b, c D", "shared"), Span(" e")]
    assert other == [Span("x "), Span("b c d!", "shared"), Span(" y")]
    assert shingled("a b c", "d e f", 2) == ([Span("a b c")], [Span("d e f")])


def test_similarity_is_of_shingles() -> None:
    assert similarity("a b c d", "a b c d", 2) == 1
    assert similarity("a b c d", "a b c e", 2) == 0.5
    assert similarity("a b c d", "x y z w", 2) == 0
    assert similarity("a b", "A, b!", 5) == 1
    assert similarity("", "", 5) == 1


@pytest.mark.parametrize("text", ["Ab 12,3 c/d", "x <b class='y'>bold</b> z", "日本語 text", "…"])
def test_words_are_those_of_the_deduplication(text):
    words = [word for word, _, _ in words_of(text)]
    assert {tuple(words[at : at + 2]) for at in range(max(len(words) - 1, 1))} == shingles(text, 2) or not words
