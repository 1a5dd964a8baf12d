"""Several replies to one prompt as one row: the prompt once, then each reply, which sees the prompt and itself.

A causal decoder computes the same for each reply as in a row of its own after its prompt, because a prompt never sees
what follows it. The prompt then runs through once and not once a reply, which for pairs saves up to half of the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.data.rows import dealt

Branches = tuple[list[int], Sequence[list[int]]]
"""The ids of a prompt, and those of each reply to it."""


@dataclass(frozen=True)
class Branched:
    """Prompts with their replies, some in one row, and what their tokens see.

    tokens, positions (B, T), int64: positions are those in a chat of the prompt and one reply. seen (B, 1, T, T), bool:
    whether a token sees another. rows, places (N,), int64: where the last token of each reply is, in the order of the
    prompts and of their replies.
    """

    tokens: Tensor
    positions: Tensor
    seen: Tensor
    rows: Tensor
    places: Tensor


def branched(groups: Sequence[Branches], pad: int, device: torch.device | str) -> Branched:
    """Put prompts with their replies into as few rows as the longest of them is wide, the longest first."""
    every = [[*prompt, *(token for reply in replies for token in reply)] for prompt, replies in groups]
    width = max(map(len, every))
    rows = dealt([(ids, number) for number, ids in enumerate(every)], width)
    shape = len(rows), width
    tokens, positions = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
    owner, branch = np.zeros(shape, np.int64), np.zeros(shape, np.int64)  # 0: padding; of owner, of the prompt
    ends: dict[int, list[tuple[int, int]]] = {}
    for row, together in enumerate(rows):
        at = 0
        for ids, number in together:
            prompt, replies = groups[number]
            tokens[row, at : at + len(ids)], owner[row, at : at + len(ids)] = ids, number + 1
            positions[row, at : at + len(prompt)] = np.arange(len(prompt))
            at += len(prompt)
            for turn, reply in enumerate(replies):
                positions[row, at : at + len(reply)] = np.arange(len(prompt), len(prompt) + len(reply))
                branch[row, at : at + len(reply)] = turn + 1
                at += len(reply)
                ends.setdefault(number, []).append((row, at - 1))
    places = torch.tensor([end for number in range(len(groups)) for end in ends[number]], device=device)
    made = [torch.from_numpy(one).to(device) for one in (tokens, positions, owner, branch)]
    return Branched(made[0], made[1], _seen(made[2], made[3]), places[:, 0], places[:, 1])


def _seen(owner: Tensor, branch: Tensor) -> Tensor:
    """Whether a token sees another: one of its prompt, or of its own reply, that is not later. (B, T) -> (B, 1, T, T).

    Padding sees padding, so that no token sees nothing.
    """
    same = owner[:, :, None] == owner[:, None, :]
    near = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    return (same & near).tril()[:, None]
