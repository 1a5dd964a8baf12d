"""Words keep their digits and know where they stand."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.folding import normalize
from pipelines.text.spelling import locate, spell, split_words

TEXT = "  Don't pay $1,234 for “Café”-bars!\n漢字x ٤٢ …"


def test_known_words() -> None:
    found = locate(TEXT)
    assert found.words == ["dont", "pay", "1234", "for", "cafebars", "漢", "字", "x", "42"]
    assert [TEXT[low:high] for low, high in zip(found.start, found.end, strict=True)] == [
        "Don't",
        "pay",
        "1,234",
        "for",
        "Café”-bars!",
        "漢",
        "字",
        "x",
        "٤٢",
    ]


def test_digits() -> None:
    assert [spell(one) for one in "7٧７É!"] == ["7", "7", "7", "e", ""]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_both_ways_of_splitting_agree_and_spans_are_in_order(text: str) -> None:
    found = locate(text)
    assert found.words == split_words(text)
    assert len(found.words) == len(normalize(text).split())
    ends = [0, *found.end]
    assert all(end <= start < stop for end, start, stop in zip(ends, found.start, found.end, strict=False))
    assert all(
        split_words(text[low:high]) == [word]
        for low, high, word in zip(found.start, found.end, found.words, strict=True)
    )
