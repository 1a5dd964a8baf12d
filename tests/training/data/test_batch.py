"""What the model gets of a packed row, and what it is asked to predict."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from training.data.batch import Batch, Row, collate


def row(*starts: int, length: int) -> Row:
    return Row(np.arange(10, 10 + length), np.array(starts))


def test_positions_restart_at_each_document_and_its_first_token_is_not_predicted() -> None:
    batch = collate([row(0, 3, 4, length=8), row(0, 7, length=8), row(0, 2, length=5)], seq_len=7)
    assert batch.tokens.tolist() == [
        [10, 11, 12, 13, 14, 15, 16, 17],
        [10, 11, 12, 13, 14, 15, 16, 17],
        [10, 11, 12, 13, 14, 0, 0, 0],
    ]
    assert batch.positions is not None
    assert batch.positions.tolist() == [[0, 1, 2, 0, 0, 1, 2], [0, 1, 2, 3, 4, 5, 6], [0, 1, 0, 1, 2, 0, 1]]
    assert batch.mask.tolist() == [[1, 1, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0], [1, 0, 1, 1, 0, 0, 0]]
    assert batch.count == 14
    assert (batch.tokens.dtype, batch.positions.dtype, batch.mask.dtype) == (torch.int64, torch.int64, torch.float32)


def test_a_row_that_is_one_token_short_has_padding_to_predict_only() -> None:
    batch = collate([row(0, 3, length=7), row(0, length=1)], seq_len=7)
    assert batch.positions is not None
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 2, 3], [0, 0, 1, 2, 3, 4, 5]]
    assert batch.mask.tolist() == [[1, 1, 0, 1, 1, 1, 0], [0] * 7]


def test_without_boundaries_only_the_padding_is_left_out() -> None:
    batch = collate([row(0, 3, 4, length=8), row(0, 2, length=5)], seq_len=7, boundaries=False)
    assert batch.positions is None
    assert batch.mask.tolist() == [[1] * 7, [1, 1, 1, 1, 0, 0, 0]]


def test_without_boundaries_a_piece_from_elsewhere_is_not_predicted_from_the_one_before_it() -> None:
    rows = [Row(np.arange(8), np.array([0, 2, 5]), np.array(jumps, int)) for jumps in ([5], [2, 7], [])]
    batch = collate(rows, seq_len=7, boundaries=False)
    assert batch.mask.tolist() == [[1, 1, 1, 1, 0, 1, 1], [1, 0, 1, 1, 1, 1, 0], [1] * 7]
    assert batch.count == 6 + 5 + 7
    assert collate(rows, seq_len=7).mask.tolist() == [[1, 0, 1, 1, 0, 1, 1]] * 3, "with boundaries, documents decide"


def test_parts_keep_the_count_of_their_step() -> None:
    for boundaries in (True, False):
        batch = collate([row(0, length=length) for length in (8, 4, 3)], seq_len=7, boundaries=boundaries)
        parts = list(batch.split(2))
        assert [(part.tokens.tolist(), part.count) for part in parts] == [
            (batch.tokens[:2].tolist(), 12),
            (batch.tokens[2:].tolist(), 12),
        ]
        assert parts[1].mask.tolist() == [[1, 1, 0, 0, 0, 0, 0]]
        assert (parts[1].positions is not None) == boundaries
    every_other = batch.rows(slice(0, None, 2))
    assert every_other.mask.sum(1).tolist() == [7, 2]
    others = SimpleNamespace(sum_rows=lambda value: [value + 30])
    assert every_other.counted(others).count == 39  # type: ignore[arg-type]


def test_a_batch_is_filled_with_rows_of_which_nothing_is_predicted() -> None:
    batch = collate([row(0, length=8), row(0, length=4)], seq_len=7)
    filled = batch.filled(3)
    assert filled.tokens.tolist() == [*batch.tokens.tolist(), [0] * 8]
    assert filled.mask.sum(1).tolist() == [7, 3, 0]
    assert (filled.count, len(filled.positions)) == (10, 3)  # type: ignore[arg-type]
    assert batch.filled(2) is batch
    assert batch.rows(slice(0, 0)).filled(1).mask.tolist() == [[0.0] * 7]


@pytest.mark.parametrize("more", [(), ("positions",), ("positions", "sources", "places", "documents")])
def test_a_batch_is_pinned_whole(monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]) -> None:
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self.clone())
    names = ("tokens", "mask", "positions", "sources", "places", "documents")
    given = {name: torch.arange(8)[None] + at for at, name in enumerate(names) if name in ("tokens", "mask", *more)}
    found = Batch(count=5, **given).pinned()
    assert {id(one) for one in pinned} == {id(one) for one in given.values()}
    assert found.count == 5
    for name in names:
        copy = getattr(found, name)
        assert copy is None if name not in given else copy.equal(given[name]) and copy is not given[name]
