"""Chats as the rows of a batch: one a row, or several that do not see each other; and text of the corpus beside."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from training.data.batch import Batch

Encoded = tuple[list[int], list[int]]
"""A chat's ids and loss mask, equally long."""
Ids = TypeVar("Ids", bound=tuple[list[int], Any])


def predicted(examples: Sequence[Encoded]) -> int:
    """Number of tokens with loss: replies and their end-of-text, except a first token, which nothing predicts."""
    return sum(sum(learned[1:]) for _, learned in examples)


def one_each(examples: Sequence[Encoded], pad: int, count: int | None = None) -> Batch:
    """Chats padded on the right, where causal attention never sees it. `count` defaults to these chats' own."""
    longest = max(len(ids) for ids, _ in examples)
    tokens = torch.full((len(examples), longest), pad, dtype=torch.long)
    mask = torch.zeros(len(examples), longest - 1)
    for row, (ids, learned) in enumerate(examples):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids) - 1] = torch.tensor(learned[1:], dtype=torch.float32)
    return Batch(tokens, mask, predicted(examples) if count is None else count)


def dealt(examples: Sequence[Ids], most: int) -> list[list[Ids]]:
    """Chats put together into rows of at most `most` tokens: each, the longest first, into the first row with room.

    Chats of one length keep their order. A chat that is longer than `most` has a row of its own. Each begins with its
    ids; what comes with them stays with them.
    """
    rows: list[list[Ids]] = []
    left: list[int] = []
    for chat in sorted(examples, key=lambda one: -len(one[0])):
        at = next((row for row, room in enumerate(left) if len(chat[0]) <= room), len(rows))
        if at == len(rows):
            rows.append([])
            left.append(most)
        rows[at].append(chat)
        left[at] -= len(chat[0])
    return rows


def several_each(rows: Sequence[Sequence[Encoded]], pad: int, count: int | None = None) -> Batch:
    """Rows of chats that do not see each other: their positions restart, and no chat predicts the next one's first
    token. `count` defaults to these chats' own."""
    longest = max(sum(len(ids) for ids, _ in row) for row in rows)
    tokens = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask, positions = torch.zeros(len(rows), longest - 1), torch.zeros(len(rows), longest - 1, dtype=torch.long)
    for number, row in enumerate(rows):
        at = 0
        for ids, learned in row:
            end = at + len(ids)
            tokens[number, at:end] = torch.tensor(ids)
            mask[number, at : end - 1] = torch.tensor(learned[1:], dtype=torch.float32)
            inside = min(end, longest - 1) - at
            positions[number, at : at + inside] = torch.arange(inside)
            at = end
        padding = max(longest - 1 - at, 0)
        positions[number, longest - 1 - padding :] = torch.arange(padding)  # padding is a document of its own
    total = sum(predicted(row) for row in rows)
    return Batch(tokens, mask, total if count is None else count, positions)


def beside(chats: Batch, text: Batch, pad: int) -> Batch:
    """The rows of both, in one batch; `count` is the sum. Chats of a row each are documents of their own.

    The shorter rows are padded on the right, where nothing is predicted.
    """
    width = max(chats.tokens.shape[1], text.tokens.shape[1])
    pair = [_wide(one, width, pad) for one in (chats, text)]
    made = [torch.cat([getattr(one, name) for one in pair]) for name in ("tokens", "mask", "positions")]
    return Batch(made[0], made[1], chats.count + text.count, made[2])


def _wide(batch: Batch, width: int, pad: int) -> Batch:
    """The same with rows of `width` tokens, and positions: without boundaries, a row is one document."""
    rows, own = batch.tokens.shape
    positions = torch.arange(own - 1).repeat(rows, 1) if batch.positions is None else batch.positions
    more = width - own
    return Batch(
        torch.cat([batch.tokens, batch.tokens.new_full((rows, more), pad)], 1),
        torch.cat([batch.mask, batch.mask.new_zeros(rows, more)], 1),
        batch.count,
        torch.cat([positions, torch.arange(more).repeat(rows, 1)], 1),
    )
