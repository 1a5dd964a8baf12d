"""Sampling from a policy: left-padded prompts, a key-value cache, temperature, and one random stream per row.

A row of prompt and response is padded on its left alone, so no position is lost between a short prompt and its response
or after it, and a model reads no more than the longest row has.

Each row draws from its own generator. So its response does not depend on the other rows of its batch or process, and a
resume needs no saved random state: the seed determines all draws.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.decoding import by_sdpa, decoder, positions

__all__ = ["Rollout", "draw", "generate", "joined", "left_pad", "positions", "response_logits", "row_seed", "trimmed"]


@dataclass(frozen=True)
class Rollout:
    """Prompts and sampled responses, in rows that all end with their response's last token.

    tokens and attention (B, T): attention is 0 on padding, which is all on the left. mask (B, R): 1 on response tokens,
    including the end-of-text token, among the last R positions; the longest response of all processes has R tokens.
    """

    tokens: Tensor
    attention: Tensor
    mask: Tensor

    @property
    def responses(self) -> Tensor:
        return self.tokens[:, -self.mask.shape[1] :]

    def ended(self, end_of_text: int) -> Tensor:
        """Whether each response ended with an end-of-text token: (B,) bool."""
        return ((self.responses == end_of_text) & self.mask.bool()).any(-1)

    def texts(self) -> list[list[int]]:
        """The response tokens of each row without padding."""
        return [row[kept].tolist() for row, kept in zip(self.responses, self.mask.bool(), strict=True)]


def row_seed(*parts: int) -> int:
    """The seed of a row, of 63 bits, from numbers that identify it, such as (recipe's seed, step, row).

    Distinct parts give unrelated streams. JSON keeps them apart: numpy's SeedSequence takes (1, 2) for (1, 2, 0).
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def left_pad(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device | str, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Rows of unequal length, aligned right: (tokens, attention), both (B, width).

    The default width is the longest row's.
    """
    width = width or max(len(row) for row in rows)
    tokens = torch.full((len(rows), width), pad, dtype=torch.long)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        tokens[index, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        attention[index, width - len(row) :] = 1
    return tokens.to(device), attention.to(device)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Sample one index per row by inverting the cumulative distribution: (B, V), (B,) in [0, 1) -> (B,)."""
    cumulative = probabilities.double().cumsum(-1)
    chosen = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
    return chosen.squeeze(-1).clamp(max=probabilities.shape[-1] - 1)


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    max_tokens: int,
    end_of_text: int,
    temperature: float = 1.0,
    width: int | None = None,
    anyone: Callable[[bool], bool] = bool,
    graphs: bool = False,
) -> Rollout:
    """Sample a response of at most `max_tokens` tokens for each prompt; a response ends with its end-of-text token.

    `seeds` has one seed per row, see `row_seed`. `width` is the number of prompt positions, by default the longest
    prompt's. `anyone` returns whether its argument is true in any process: every process samples until all are done,
    so all return the same number of positions. The model runs in evaluation mode; its own mode is restored afterwards.
    Rows whose reply has ended leave the batch. `graphs`: see `training.decoding.Fixed`.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    tokens, attention = left_pad(prompts, end_of_text, device, width)
    uniforms = torch.stack(
        [torch.rand(max_tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    ).to(device)
    replies = torch.full((len(prompts), max_tokens), end_of_text, device=device)
    masks = torch.zeros(len(prompts), max_tokens, device=device)
    rows = torch.arange(len(prompts), device=device)  # those that have not left
    alive = torch.ones(len(prompts), dtype=torch.bool, device=device)
    with by_sdpa(model, graphs):
        under_way = decoder(model, tokens, attention, tokens.shape[1] + max_tokens, graphs)
        for step in range(max_tokens):
            logits = under_way.logits.float()
            chosen = draw((logits / temperature).softmax(-1), uniforms[rows, step])
            chosen = torch.where(alive, chosen, end_of_text)
            replies[rows, step], masks[rows, step] = chosen, alive.float()
            was, alive = alive, chosen != end_of_text  # also False for rows that ended earlier
            left = int(alive.sum())
            if not anyone(left > 0) or step == max_tokens - 1:
                break
            under_way.step(chosen, was)
            if left and left <= under_way.leave_at * len(rows):  # short replies do not wait for long ones
                stay = alive.nonzero().squeeze(1)
                under_way.keep(stay)
                under_way.logits, rows, alive = under_way.logits[stay], rows[stay], alive[stay]
    model.train(training)
    return joined(tokens, attention, replies[:, : step + 1], masks[:, : step + 1])


def joined(tokens: Tensor, attention: Tensor, replies: Tensor, mask: Tensor) -> Rollout:
    """Left-padded prompts, (B, P), and responses padded on their right, (B, R), with their mask, as one row each."""
    missing = (1 - mask).sum(-1, keepdim=True).long()

    def ended(rows: Tensor) -> Tensor:
        """Each row with its last `missing` positions moved before its first."""
        width = rows.shape[1]
        return rows.gather(1, (torch.arange(width, device=rows.device) - missing) % width)

    return Rollout(
        ended(torch.cat((tokens, replies), dim=1)), ended(torch.cat((attention, mask.long()), dim=1)), ended(mask)
    )


def trimmed(tokens: Tensor, attention: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Tokens and attention, (B, T) each, without what is padding in all rows; the last `length` + 1 positions stay."""
    first = min(int(attention.any(0).long().argmax()), tokens.shape[1] - length - 1)
    return tokens[:, first:], attention[:, first:]


def response_logits(model: Callable[..., Any], tokens: Tensor, attention: Tensor, length: int) -> Tensor:
    """The logits that predict the last R = `length` tokens, by one forward pass with gradients: (B, T) -> (B, R, V)."""
    tokens, attention = trimmed(tokens, attention, length)
    output: Any = model(
        input_ids=tokens,
        attention_mask=attention,
        position_ids=positions(attention),
        use_cache=False,
        logits_to_keep=length + 1,
    )
    logits: Tensor = output.logits[:, :-1]
    return logits
