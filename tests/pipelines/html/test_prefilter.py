"""The language prefilter: it skips pages in other languages, and keeps what it cannot tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.html.prefilter import foreign, samples, wanted_probability
from pipelines.text.fasttext_model import model

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


def test_samples_are_spread_evenly():
    assert samples("0123456789", 3, 2) == ["01", "45", "89"]
    assert samples("0123456789", 2, 5) == ["01234", "56789"]
    assert samples("01234567890", 2, 5) == ["01234", "67890"]
    found = samples("".join(chr(n) for n in range(1, 10_001)))
    assert [len(piece) for piece in found] == [200] * 10
    assert [ord(piece[0]) - 1 for piece in found] == [int(n * 9800 / 9) for n in range(10)]


class Fake:
    """Stands in for fastText's `f`: gives the same labels for every text, and remembers what it was asked."""

    def __init__(self, *labels):
        self.labels, self.asked = labels, []

    def predict(self, *asked):
        self.asked.append(asked)
        return self.labels


def test_the_wanted_languages_are_added_up():
    fake = Fake((0.5, "__label__en"), (0.25, "__label__de"), (0.125, "__label__fr"))
    assert wanted_probability("x" * 400, ("en", "fr"), fake) == 0.625
    assert fake.asked == [("x" * 200 + "\n", 6, 0.01, "strict")] * 2
    assert wanted_probability("", ("en",), fake) == 0
    assert wanted_probability("x", ("en",), Fake((1.5, "__label__en"))) == 1
    asked = Fake((0.5, "__label__en"))
    assert wanted_probability("x" * 800, ("en",), asked, 0.25) == 0.25  # after two of four the mean cannot be less
    assert len(asked.asked) == 2


@pytest.mark.parametrize(("characters", "probability"), [(99, None), (100, 0.25)])
def test_only_a_page_with_enough_text_is_judged(characters, probability):
    text = ("word " * 30)[:characters].rstrip().ljust(characters, "x")
    assert foreign(page(text), ("en",), 0.5, Fake((0.25, "__label__en"))) == probability


def test_a_probability_at_the_threshold_is_enough():
    fake = Fake((0.25, "__label__en"))
    assert foreign(page("x" * 150), ("en",), 0.25, fake) is None
    assert foreign(page("x" * 150), ("en",), 0.26, fake) == 0.25


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
