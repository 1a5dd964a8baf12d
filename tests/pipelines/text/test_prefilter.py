"""The language prefilter: it skips pages in other languages, and keeps what it cannot tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.fasttext_model import model
from pipelines.text.prefilter import foreign, samples, wanted_probability

ENGLISH = "The river bends twice before it meets the old mill, and nobody has ground any corn there since the war. " * 8
GERMAN = (
    "Der Fluss macht zwei Biegungen, bevor er die alte Mühle erreicht, und seit dem Krieg mahlt dort niemand mehr. " * 8
)


def page(text):
    return f"<html><body><script>var x = 'the of and to';</script><p>{text}</p></body></html>"


@pytest.mark.parametrize(
    ("text", "languages", "skipped"),
    [
        (ENGLISH, ("en",), False),
        (GERMAN, ("en",), True),
        (GERMAN, ("de",), False),
        (GERMAN, ("de", "en"), False),
        (GERMAN + ENGLISH, ("en",), False),
        ("kurz", ("en",), False),
        ("", ("en",), False),
    ],
)
def test_known_answers(text, languages, skipped):
    found = foreign(page(text), languages, 0.02, model().f)
    assert (found is not None) is skipped
    if skipped:
        assert 0 <= found < 0.02


def test_no_more_samples_are_asked_than_decide():
    class Counting:
        calls = 0

        def predict(self, *given):
            self.calls += 1
            return model().f.predict(*given)

    asked = Counting()
    assert foreign(page(ENGLISH * 3), ("en",), 0.1, asked) is None
    assert asked.calls <= 3  # two samples that are surely English make a mean of 0.1 over ten
    assert foreign(page(GERMAN * 3), ("en",), 0.1, asked) is not None
    assert asked.calls >= 10


def test_threshold_zero_skips_nothing():
    assert foreign(page(GERMAN), ("en",), 0.0, model().f) is None


@given(st.text(max_size=3000), st.integers(2, 12), st.integers(1, 300))
def test_samples_are_pieces_of_the_text(text, count, chars):
    found = samples(text, count, chars)
    assert len(found) <= count
    assert all(piece in text and len(piece) <= chars for piece in found)
    assert bool(found) is bool(text)
    if len(text) <= count * chars:
        assert "".join(found) == text


@given(
    st.text(alphabet=st.characters(blacklist_categories=("Cs",), blacklist_characters="\n"), min_size=1, max_size=500)
)
def test_a_probability_is_one(text):
    assert 0 <= wanted_probability(text, ("en", "de"), model().f) <= 1
