"""Sampling from a policy: left-padded prompts, a key-value cache, temperature, and one random stream a row.

A row draws from its own generator, so its response does not depend on which rows it shares a batch or a process with, and
nothing random has to be saved for a resume: the seed says it all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rollout:
    """Prompts and sampled responses, P prompt positions and R response positions.

    tokens and attention (B, P + R): prompts end at P, responses begin there, attention is 0 on padding at both ends.
    mask (B, R): 1 on response tokens, the end-of-text included.
    """

    tokens: Tensor
    attention: Tensor
    mask: Tensor

    @property
    def responses(self) -> Tensor:
        return self.tokens[:, -self.mask.shape[1] :]

    def ended(self, end_of_text: int) -> Tensor:
        """Which responses closed with an end-of-text token: (B,) bool."""
        return ((self.responses == end_of_text) & self.mask.bool()).any(-1)

    def texts(self) -> list[list[int]]:
        """The response tokens of each row without padding."""
        return [row[kept].tolist() for row, kept in zip(self.responses, self.mask.bool(), strict=True)]


def row_seed(*parts: int) -> int:
    """One seed for a row from what identifies it, such as (recipe's seed, step, row). Distinct parts give unrelated streams."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def left_pad(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device | str, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Rows of unequal length, flush right: tokens and attention, both (B, width); the default width is the longest row's."""
    width = width or max(len(row) for row in rows)
    tokens = torch.full((len(rows), width), pad, dtype=torch.long)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        tokens[index, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        attention[index, width - len(row) :] = 1
    return tokens.to(device), attention.to(device)


def positions(attention: Tensor) -> Tensor:
    """Position of each token counted from its row's first real one: (B, T) -> (B, T)."""
    return (attention.cumsum(-1) - 1).clamp(min=0)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """One index a row by inverting the cumulative distribution: (B, V), (B,) in [0, 1) -> (B,)."""
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
) -> Rollout:
    """Sample a response of at most `max_tokens` tokens for each prompt; a response ends with its end-of-text token.

    `seeds` has one seed a row, see `row_seed`. `width` is the number of prompt positions, by default the longest prompt's.
    `anyone` tells whether something is true in any process: all go on until all are done, so all return equally many positions.
    The model is called in evaluation mode and left as it was.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    tokens, attention = left_pad(prompts, end_of_text, device, width)
    uniforms = torch.stack(
        [torch.rand(max_tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    ).to(device)
    alive = torch.ones(len(prompts), dtype=torch.bool, device=device)
    masks: list[Tensor] = []
    feed, cache = tokens, None
    for step in range(max_tokens):
        output: Any = model(
            input_ids=feed,
            attention_mask=attention,
            position_ids=positions(attention)[:, -feed.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        logits = output.logits[:, -1].float()
        chosen = draw((logits / temperature).softmax(-1), uniforms[:, step])
        chosen = torch.where(alive, chosen, end_of_text)
        masks.append(alive)
        feed = chosen[:, None]
        tokens = torch.cat((tokens, feed), dim=1)
        attention = torch.cat((attention, alive[:, None].long()), dim=1)
        alive = chosen != end_of_text  # a row that ended before has one here as well
        if not anyone(bool(alive.any())):
            break
    model.train(training)
    return Rollout(tokens, attention, torch.stack(masks, dim=1).float())


def response_logits(model: nn.Module, tokens: Tensor, attention: Tensor, length: int) -> Tensor:
    """The logits that predict the last `length` tokens, in one forward pass with gradients: (B, P + R) -> (B, R, V)."""
    output: Any = model(
        input_ids=tokens,
        attention_mask=attention,
        position_ids=positions(attention),
        use_cache=False,
        logits_to_keep=length + 1,
    )
    return output.logits[:, :-1]
