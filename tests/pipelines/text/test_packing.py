"""Rows lose no token and no prediction, hold no more than fits, and best fit leaves hardly a place empty."""

import time
from collections import Counter
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.text import packing
from pipelines.text.packing import best_fit, fit, split, stream

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=60)


def rows_of(cuts: Any) -> list[list[tuple[int, int]]]:
    rows = []
    for counts, start, length in cuts:
        assert len(start) == len(length) == counts.sum()
        pieces = iter(zip(start.tolist(), length.tolist(), strict=True))
        rows += [[next(pieces) for _ in range(count)] for count in counts.tolist()]
    return rows


def check(rows: list[list[tuple[int, int]]], sizes: list[int], seq_len: int, extra: int) -> None:
    """Every token stands in a row, and every prediction inside a document is made once; `extra` tokens stand twice."""
    tokens = Counter(at for row in rows for start, length in row for at in range(start, start + length))
    made = Counter(at for row in rows for start, length in row for at in range(start + 1, start + length))
    firsts = {0, *accumulate(sizes)}
    assert set(tokens) == set(range(sum(sizes)))
    assert sum(tokens.values()) == sum(sizes) + extra
    assert {at: made[at] for at in range(sum(sizes)) if at not in firsts} == {
        at: 1 for at in range(sum(sizes)) if at not in firsts
    }
    assert all(1 <= sum(length for _, length in row) <= seq_len + 1 for row in rows)


@given(sizes=SIZES, seq_len=st.integers(2, 40), chunk=st.integers(1, 9))
def test_a_stream_predicts_every_token_once(sizes: list[int], seq_len: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CHUNK", chunk)
        rows = rows_of(stream(sum(sizes), seq_len))
    check(rows, sizes, seq_len, extra=len(rows) - 1)
    assert all(len(row) == 1 for row in rows)
    assert [row[0][0] for row in rows] == [number * seq_len for number in range(len(rows))]
    assert all(row[0][1] == seq_len + 1 for row in rows[:-1])
    predicted = [at for row in rows for start, length in row for at in range(start + 1, start + length)]
    assert predicted == list(range(1, sum(sizes))), "across documents too; the reader masks those"


def test_a_shard_of_one_token_is_a_row_and_one_of_none_is_not() -> None:
    assert rows_of(stream(1, 8)) == [[(0, 1)]]
    assert rows_of(stream(0, 8)) == []
    assert rows_of(stream(9, 8)) == [[(0, 9)]]
    assert rows_of(stream(10, 8)) == [[(0, 9)], [(8, 2)]]
    assert rows_of(best_fit([], 8)) == []


@given(
    sizes=SIZES, seq_len=st.integers(2, 40), batch=st.integers(1, 20), rows=st.integers(1, 4), chunk=st.integers(1, 9)
)
def test_best_fit_keeps_documents_whole_and_splits_long_ones(
    sizes: list[int], seq_len: int, batch: int, rows: int, chunk: int
) -> None:
    batches = [np.array(sizes[at : at + batch], np.int32) for at in range(0, len(sizes), batch)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WINDOW_ROWS", rows)
        patch.setattr(packing, "CHUNK", chunk)
        made = rows_of(best_fit(batches, seq_len))
        again = rows_of(best_fit([np.array(sizes, np.int32)], seq_len))
    assert made == again, "windows do not depend on how sizes are read"
    pieces = [max(-(-(size - 1) // seq_len), 1) for size in sizes]
    check(made, sizes, seq_len, extra=sum(pieces) - len(sizes))
    found = sorted(piece for row in made for piece in row)
    starts = [0, *accumulate(sizes)]
    assert [piece for piece in found if piece[1] < seq_len + 1] == [
        (start + (count - 1) * seq_len, size - (count - 1) * seq_len)
        for start, size, count in zip(starts, sizes, pieces, strict=False)
        if size - (count - 1) * seq_len < seq_len + 1
    ]
    assert all(row == sorted(row) for row in made), "documents stay in their order within a row"


def test_a_document_is_split_where_a_row_is_full_and_no_sooner() -> None:
    start, length = split(np.array([9, 10, 1, 25]), 8)
    assert list(zip(start.tolist(), length.tolist(), strict=True)) == [
        *[(0, 9), (9, 9), (17, 2), (19, 1)],
        *[(20, 9), (28, 9), (36, 9)],
    ]


def test_the_fullest_row_that_takes_a_piece_gets_it() -> None:
    """8 and 6 open rows of 10; 4 goes to the 6, whose room fits exactly, 2 to the 8."""
    assert fit(np.array([2, 6, 4, 8]), 10).tolist() == [0, 1, 1, 0]
    assert fit(np.array([5, 5, 5]), 10).tolist() == [0, 0, 1]
    assert fit(np.array([3, 3, 3, 7, 6]), 10).tolist() == [0, 1, 2, 0, 1]


@given(length=st.lists(st.integers(1, 20), max_size=40))
def test_best_fit_against_a_search_of_all_rows(length: list[int]) -> None:
    left: list[int] = []
    expected = [0] * len(length)
    for piece in sorted(range(len(length)), key=lambda at: (-length[at], at)):
        open_rows = [row for row in range(len(left)) if left[row] >= length[piece]]
        fullest = min((left[row] for row in open_rows), default=None)
        expected[piece] = fullest if fullest is not None else 20
        if fullest is None:
            left.append(20)
            open_rows, fullest = [len(left) - 1], 20
        left[next(row for row in open_rows if left[row] == fullest)] -= length[piece]
    found = fit(np.array(length, np.int64), 20)
    room = [20] * (max(found.tolist(), default=-1) + 1)
    for piece in sorted(range(len(length)), key=lambda at: (-length[at], at)):
        assert room[found[piece]] == expected[piece]
        room[found[piece]] -= length[piece]
    assert sorted(room) == sorted(left)


def test_a_window_needs_one_stretch_of_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WINDOW_ROWS", 4)
    sizes = np.random.default_rng(0).integers(1, 30, 500)
    at = 0
    for _, start, length in best_fit([sizes], 16):
        assert start.min() in (at, at - 1), "it begins where the one before ended, or with its last token"
        at = int((start + length).max())
        assert int(length.sum()) < 4 * 16 + 17, "4 rows and the piece that fills them"
    assert at == sizes.sum()


def test_the_first_rows_are_no_choice_of_long_documents() -> None:
    """Held-out losses are taken of the first rows."""
    sizes = np.random.default_rng(0).integers(1, 64, 4000)
    rows = rows_of(best_fit([sizes], 64))
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    mean = [sum(map(len, some)) / len(some) for some in (rows[:300], rows[-300:])]
    assert abs(mean[0] - mean[1]) < 0.5


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), seq_len=st.sampled_from([64, 512, 2048]))
def test_padding_of_documents_of_all_lengths_is_below_a_percent(seed: int, seq_len: int) -> None:
    sizes = np.maximum(np.random.default_rng(seed).lognormal(5.5, 1.2, 8000), 2).astype(np.int64)
    rows = filled = 0
    for counts, _, length in best_fit([sizes], seq_len):
        rows, filled = rows + len(counts), filled + int(length.sum())
    assert 1 - filled / (rows * (seq_len + 1)) < 0.01


def test_best_fit_takes_time_in_proportion() -> None:
    """Sixteen times the pieces in one window take less than 48 times as long: it is no search of all rows."""
    lengths = np.random.default_rng(0).integers(1, 1 << 16, 160_000)

    def seconds(count: int) -> float:
        started = time.process_time()
        fit(lengths[:count], 1 << 16)
        return time.process_time() - started

    seconds(10_000)
    assert seconds(160_000) < 48 * max(min(seconds(10_000) for _ in range(3)), 0.003)
