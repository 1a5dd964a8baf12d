"""Chats in rows: what is learned of them is the same, alone, together and beside text."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.settings.training import Model
from training.data.batch import Batch, Row, collate
from training.data.rows import Encoded, beside, dealt, one_each, predicted, several_each
from training.models import llama as model
from training.models.lm import summed_nll, token_nll

CHATS: list[Encoded] = [([7, 8, 9, 5], [0, 0, 1, 1]), ([7, 6], [0, 1]), ([3, 4, 5], [0, 1, 0])]


def test_one_chat_a_row() -> None:
    batch = one_each([([7, 8, 9, 0], [0, 0, 1, 1]), ([7, 6], [0, 1])], pad=1)
    assert batch.tokens.tolist() == [[7, 8, 9, 0], [7, 6, 1, 1]]
    assert batch.mask.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert batch.count == 3
    assert one_each([([7, 8], [0, 1])], pad=1, count=40).count == 40
    # What stands first is predicted from nothing, and so not learned.
    assert predicted([([7, 8, 9], [1, 0, 1]), ([7, 8], [1, 1])]) == 2
    assert one_each([([7, 8, 9], [1, 0, 1])], pad=1).mask.tolist() == [[0, 1]]


def test_several_chats_a_row() -> None:
    batch = several_each([CHATS[:2], CHATS[2:]], pad=1)
    assert batch.tokens.tolist() == [[7, 8, 9, 5, 7, 6], [3, 4, 5, 1, 1, 1]]
    assert batch.mask.tolist() == [[0, 1, 1, 0, 1], [1, 0, 0, 0, 0]]
    assert batch.positions is not None
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 0, 1]]
    assert batch.count == 4
    assert several_each([CHATS[:1]], pad=1, count=9).count == 9


@given(st.lists(st.integers(1, 12), min_size=1, max_size=20), st.integers(4, 12))
def test_rows_hold_every_chat_once_and_no_more_than_they_may(sizes: list[int], most: int) -> None:
    chats: list[Encoded] = [([at] * size, [1] * size) for at, size in enumerate(sizes)]
    rows = dealt(chats, most)
    assert sorted(ids[0] for row in rows for ids, _ in row) == list(range(len(sizes)))
    assert all(len(row) == 1 or sum(len(ids) for ids, _ in row) <= most for row in rows)
    totals = [sum(len(ids) for ids, _ in row) for row in rows]
    assert not any(one + other <= most for at, one in enumerate(totals) for other in totals[:at])


def test_text_stands_beside_chats() -> None:
    text = collate([Row(np.array([2, 2, 2, 2, 2]), np.array([0, 2]))], 4)
    both = beside(several_each([CHATS[:1]], pad=1), text, pad=1)
    assert both.tokens.tolist() == [[7, 8, 9, 5, 1], [2, 2, 2, 2, 2]]
    assert both.mask.tolist() == [[0, 1, 1, 0], [1, 0, 1, 1]]
    assert both.positions is not None
    assert both.positions.tolist() == [[0, 1, 2, 0], [0, 1, 0, 1]]
    assert both.count == 2 + 3
    plain = beside(one_each(CHATS[1:2], pad=1), text, pad=1)
    assert plain.positions is not None
    assert plain.positions.tolist() == [[0, 0, 1, 2], [0, 1, 0, 1]]


def test_packing_equals_no_packing_in_loss_and_gradients() -> None:
    rng = np.random.default_rng(0)
    chats: list[Encoded] = [
        (rng.integers(5, 90, size).tolist(), [0, *rng.integers(0, 2, size - 1).tolist()])
        for size in (9, 3, 14, 6, 5, 11)
    ]
    module = model.build(Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64), 96, 64, 0)

    def learned(batch: Batch) -> tuple[list[float], torch.Tensor]:
        module.zero_grad()
        summed_nll(module, batch, torch.device("cpu")).backward()
        with torch.no_grad():
            parts = token_nll(module, batch, torch.device("cpu"))[batch.mask.bool()].tolist()
        return sorted(parts), torch.cat([one.grad.flatten() for one in module.parameters()])

    alone, packed = one_each(chats, pad=1), several_each(dealt(chats, 20), pad=1)
    assert len(packed.tokens) == 3 < len(alone.tokens)
    (one, first), (other, second) = learned(alone), learned(packed)
    assert one == pytest.approx(other, rel=1e-5)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
