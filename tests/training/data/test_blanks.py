"""Rows with blanks: what is masked is predicted once, spans are as long as they should be, and only the key decides."""

from itertools import pairwise
from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.settings.training import Blanks
from training.data.batch import Row
from training.data.blanks import EXTRA, Blanked, Infilling, collate, fitting, lengths_of

BLANK, BEGINS, ENDS = 901, 902, 903


def infilling(boundaries: bool = True, seed: int = 0, **given: float) -> Infilling:
    return Infilling(Blanks(**given), seed, BLANK, BEGINS, ENDS, boundaries)  # type: ignore[arg-type]


def text(tokens: int, *starts: int) -> Row:
    """Tokens 1, 2, ... in order, so that every token says where it stood."""
    return Row(np.arange(1, tokens + 1), np.array([0, *starts]))


def filled(row: Blanked) -> dict[int, list[int]]:
    """Document -> its tokens when every span is written where its blank stands."""
    spans: dict[tuple[int, int], list[int]] = {}
    found: dict[int, list[int]] = {}
    tokens, positions, places, documents = (
        part.tolist() for part in (row.tokens, row.positions, row.places, row.documents)
    )
    begins = [at for at, place in enumerate(places) if place == 1]
    for at in begins:
        end = next(place for place in range(at, len(tokens)) if tokens[place] == ENDS)
        assert tokens[at] == BEGINS
        assert places[at : end + 1] == list(range(1, end - at + 2))
        assert set(positions[at : end + 1]) == {positions[at]}
        assert set(documents[at : end + 1]) == {documents[at]}
        assert (documents[at], positions[at]) not in spans, "a blank is filled once"
        spans[documents[at], positions[at]] = tokens[at + 1 : end]
    for token, position, place, document in zip(tokens, positions, places, documents, strict=True):
        if place == 0 and document >= 0:
            found.setdefault(document, []).extend(spans.pop((document, position)) if token == BLANK else [token])
    assert not spans, "every span has a blank"
    return found


ROWS = st.integers(0, 90).flatmap(
    lambda tokens: st.lists(st.integers(1, max(1, tokens - 1)), max_size=6, unique=True).map(
        lambda starts: text(tokens, *sorted(start for start in starts if start < tokens))
    )
)


@given(ROWS, st.integers(8, 100), st.booleans(), st.floats(0.01, 0.5), st.floats(0.5, 12), st.integers(0, 9))
def test_the_text_comes_back_when_the_blanks_are_filled_and_what_was_masked_is_predicted_once(
    row: Row, length: int, boundaries: bool, share: float, mean: float, step: int
) -> None:
    row = Row(row.tokens[:length], row.starts[row.starts < length])
    maker = infilling(boundaries, share=share, mean_span=mean)
    made = maker.row(row, length, step, 5)
    assert {len(part) for part in vars(made).values()} == {length}
    back = filled(made)
    whole = [token for document in sorted(back) for token in back[document]]
    assert whole == list(range(whole[0], whole[0] + len(whole))) if whole else not len(row.tokens) or length < 9
    starts = set(row.starts.tolist()) if boundaries else set()
    for one, two in pairwise(sorted(back)):
        assert back[two][0] - 1 in starts, (one, two)
    for document in back.values():
        assert not {token - 1 for token in document[1:]} & starts, "spans and positions stay in a document"
    batch = collate([made])
    predicted = batch.tokens[0, 1:][batch.mask[0] > 0].tolist()
    masked = set(whole) - set(made.tokens[(made.places == 0) & (made.documents >= 0)].tolist())
    assert sorted(token for token in predicted if token != ENDS) == sorted(masked)
    assert predicted.count(ENDS) == (made.places == 1).sum() == (made.tokens == BLANK).sum()
    assert batch.count == len(predicted)
    assert (made.places == 0)[made.tokens == BLANK].all()
    both = (made.tokens[1:] == BLANK) & (made.tokens[:-1] == BLANK) & (made.documents[1:] == made.documents[:-1])
    assert not both.any(), "two blanks of a document are apart"


def test_a_row_by_hand() -> None:
    made = infilling(share=0.2, mean_span=2.0).row(text(16, 7), 16, 3, 11)
    rows = [part.tolist() for part in (made.tokens, made.positions, made.places, made.documents)]
    assert rows == [
        [BLANK, 3, BLANK, 6, 7, 8, 9, 10, 11, BEGINS, 2, ENDS, BEGINS, 4, 5, ENDS],
        [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 0, 0, 2, 2, 2, 2],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 1, 2, 3, 4],
        [0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
    ]
    batch = collate([made, made])
    assert batch.tokens.shape == (2, 16)
    given = (batch.positions, batch.places, batch.documents)
    assert [one[1].tolist() for one in given if one is not None] == [part[:-1] for part in rows[1:]]
    assert batch.mask[1].tolist() == [float(place > 1) for place in rows[2][1:]]


def test_lengths_are_poisson_without_zero() -> None:
    sizes: list[int] = []
    texts = 0
    for number in range(400):
        made = infilling(boundaries=False).row(text(513), 513, 0, number)
        sizes += [int(place) - 2 for place, token in zip(made.places, made.tokens, strict=True) if token == ENDS]
        texts += len(filled(made)[0])
    mean = 3 / (1 - exp(-3))
    assert len(sizes) > 8000
    assert np.mean(sizes) == pytest.approx(mean, abs=0.06)
    assert np.var(sizes) == pytest.approx(mean * (1 + 3 - mean), abs=0.2)
    assert np.mean(np.array(sizes) == 1) == pytest.approx(3 * exp(-3) / (1 - exp(-3)), abs=0.012)
    assert sum(sizes) / texts == pytest.approx(0.155, abs=0.005), "15 %, and what the last span of a row is longer"
    assert 513 * 0.84 < texts / 400 < 513 * 0.9


def test_lengths_of_uniform_numbers() -> None:
    """3^k / k! is 3, 4.5 and 4.5 for k from 1 to 3, of which the sum is 12."""
    assert lengths_of(np.array([0, 0.2499, 0.2501, 0.6249, 0.6251, 0.9999]), 3.0, 3).tolist() == [1, 1, 2, 2, 3, 3]
    assert lengths_of(np.array([0.0, 0.99]), 64.0, 1).tolist() == [1, 1]


def test_what_fits_a_row() -> None:
    lengths = np.array([3, 2, 4, 1])
    assert fitting(10, 100, lengths, 0.3) == (10, 1), "3 of 10"
    assert fitting(11, 100, lengths, 0.3) == (11, 2), "3 of 11 are too few"
    assert fitting(100, 20, lengths, 0.3) == (20 - 2 * EXTRA, 2)
    assert fitting(3, 100, lengths, 0.3) == (3, 1), "a small part of a token needs a span, too"
    assert fitting(0, 20, lengths, 0.3) == (0, 0)


def test_the_key_alone_decides() -> None:
    row = text(60, 20)

    def made(seed: int, step: int, number: int) -> list[list[int]]:
        return [part.tolist() for part in vars(infilling(seed=seed).row(row, 60, step, number)).values()]

    assert made(0, 1, 2) == made(0, 1, 2)
    assert len({repr(made(*key)) for key in ((0, 1, 2), (0, 2, 1), (0, 1, 3), (1, 1, 2), (0, -1, 2))}) == 5


def test_every_token_of_a_long_row_has_its_turn() -> None:
    """The text that fits begins anywhere, so over the steps all of a row is learnt from, and every part is masked."""
    seen = np.zeros(130)
    masked = np.zeros(130)
    orders = set()
    for step in range(300):
        made = infilling(boundaries=False).row(text(129), 129, step, 0)
        kept = made.tokens[(made.tokens < BLANK) & (made.tokens > 0)]
        seen[kept] += 1
        masked[made.tokens[(made.places > 1) & (made.tokens != ENDS)]] += 1
        spans = made.positions[made.places == 1]
        orders.add(bool((np.diff(spans) > 0).all()))
    assert seen[1:].min() > 5
    assert seen.max() == 300
    assert 25 < masked[40:90].min() <= masked[40:90].max() < 75, "15 % of 300, evenly"
    assert False in orders, "spans are shuffled"
