"""Reads rows of tokens with a model that is done with training: behind what they share, and only where it counts.

A row may hold several continuations of one text (`training.data.branches`), and keys and values of a text that many
rows begin with are made once. Models whose attention cannot be told what it sees read every row by itself.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from training.loss import head_nll, log_probs
from training.models.documents import TAKES_A_MASK
from training.models.infilling import PLACES
from training.models.llama import attention_of
from training.models.lm import plain_head

Memory = list[tuple[Tensor, Tensor]]
"""The keys and values of each layer, each (rows, heads, tokens, size)."""
LENGTHS = ("n_positions", "max_position_embeddings", "n_ctx")
"""Where configurations say how many tokens a model sees, in the order in which the harness asks."""
USUAL_LENGTH = 2048


@dataclass(frozen=True)
class Rows:
    """Rows as a model reads them: tokens and positions (B, T); seen (B, 1, T, P + T), what each token sees, behind P
    tokens of memory."""

    tokens: Tensor
    positions: Tensor
    seen: Tensor
    memory: Memory


class Reader:
    """A model, on its device and in evaluation mode."""

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self.device = next(model.parameters()).device

    @property
    def longest(self) -> int:
        """The tokens that the model can see."""
        config = self.model.config
        named: list[Any] = [getattr(config, name, None) for name in LENGTHS]
        found = [int(one) for one in named if one]
        return found[0] if found else USUAL_LENGTH

    @cached_property
    def shares(self) -> bool:
        """Whether the model can read rows that share a beginning and hold several continuations: it is tried out."""
        config = self.model.config
        every = all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
        if not every or config.model_type in TAKES_A_MASK or getattr(config, PLACES, False):
            return False
        try:
            return self._agrees()
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):  # of a model that takes no such mask
            return False

    @torch.no_grad()
    def _agrees(self) -> bool:
        """Whether two continuations in one row behind a memory get the logits that they get in rows of their own."""
        ids = [one % self.model.config.vocab_size for one in (11, 23, 35, 47, 59, 71)]
        begins, one, two = ids[:2], ids[2:4], ids[4:]
        alone = [self.model(torch.tensor([begins + end], device=self.device)).logits[0, -1] for end in (one, two)]
        row = self._two_branches(begins[1:] + one + two)
        together = self._call(Rows(*row, self.memory(begins[:1]))).logits[0, [2, 4]]
        off = (together - torch.stack(alone)).abs().max() / together.abs().max()
        return bool(off < (1e-3 if together.dtype == torch.float32 else 3e-2))

    def _two_branches(self, ids: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """A token, and two continuations of two tokens each, behind one token of memory."""
        branch = torch.tensor([0, 1, 1, 2, 2], device=self.device)
        near = ((branch[None, :] == 0) | (branch[:, None] == branch[None, :])).tril()
        seen = torch.cat((torch.ones(5, 1, dtype=torch.bool, device=self.device), near), 1)
        positions = torch.tensor([[1, 2, 3, 2, 3]], device=self.device)
        return torch.tensor([ids], device=self.device), positions, seen[None, None]

    @torch.no_grad()
    def memory(self, ids: Sequence[int]) -> Memory:
        """The keys and values of a text, with one row."""
        cache: Any = DynamicCache(config=self.model.config)
        tokens = torch.tensor([list(ids)], device=self.device)
        self.model.base_model(input_ids=tokens, past_key_values=cache, use_cache=True)  # whose logits nobody needs
        return [(layer.keys, layer.values) for layer in cache.layers]

    @torch.no_grad()
    def log_likelihoods(self, rows: Rows, at: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        """log p of each target at its place: rows and places as two tensors (N,), targets (N,) -> (N,) in float32."""
        head = plain_head(self.model)
        if head is not None:
            weight = head.weight

            def of_places(last: Tensor) -> Tensor:
                return head_nll(last[at][None], weight.to(last.dtype), targets[None])

            with instead(head, of_places):
                found: Tensor = -self._call(rows).logits[0]
            return found
        usual = self.model.get_output_embeddings()
        if not isinstance(usual, nn.Linear):
            return log_probs(self._call(rows).logits[at][None], targets[None])[0]
        forward = usual.forward
        with instead(usual, lambda last: forward(last[at][None])):
            return log_probs(self._call(rows).logits, targets[None])[0]

    def _call(self, rows: Rows) -> Any:
        known: dict[str, Any] = {}
        if rows.memory:
            known = {"past_key_values": remembered(self.model.config, rows.memory)}
        seen = rows.seen
        if seen.dim() == 4 and attention_of(self.model) != "sdpa":
            lowest = torch.finfo(self.model.dtype).min
            seen = torch.zeros(seen.shape, dtype=self.model.dtype, device=seen.device).masked_fill(~seen, lowest)
        return self.model(
            input_ids=rows.tokens, attention_mask=seen, position_ids=rows.positions, use_cache=bool(known), **known
        )


def remembered(config: Any, memory: Memory) -> Any:
    """A cache that holds this, which it does not change; an empty one for an empty memory."""
    cache: Any = DynamicCache(config=config)
    for layer, (keys, values) in zip(cache.layers, memory, strict=bool(memory)):
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
    return cache


def aligned(memories: Sequence[Memory], device: torch.device) -> tuple[Memory, Tensor]:
    """Memories of one row each as one of several rows, aligned right, and where it is filled: (rows, tokens) bool.

    An empty memory fills nothing. All empty, they are an empty memory.
    """
    if not any(memories):
        return [], torch.zeros(len(memories), 0, dtype=torch.bool, device=device)
    lengths = [one[0][0].shape[2] if one else 0 for one in memories]
    widest = max(lengths)
    full = next(one for one in memories if one)
    filled = torch.zeros(len(memories), widest, dtype=torch.bool, device=full[0][0].device)
    for row, length in enumerate(lengths):
        filled[row, widest - length :] = True
    if all(one is full for one in memories):  # a view serves: nothing is copied
        return [(k.expand(len(memories), -1, -1, -1), v.expand(len(memories), -1, -1, -1)) for k, v in full], filled
    made = []
    for layer, pair in enumerate(full):
        both = []
        for kind, like in enumerate(pair):
            whole = like.new_zeros(len(memories), like.shape[1], widest, like.shape[3])
            for row, one in enumerate(memories):
                if one:
                    whole[row, :, widest - lengths[row] :] = one[layer][kind][0]
            both.append(whole)
        made.append((both[0], both[1]))
    return made, filled


@contextmanager
def instead(head: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer compute something else inside the model's own forward pass."""
    head.forward = forward
    try:
        yield
    finally:
        del head.forward


@contextmanager
def told_what_is_seen(model: Any) -> Iterator[None]:
    """Context in which attention takes a mask of what each token sees, which flash-attn and FlexAttention do not."""
    usual = attention_of(model)
    if usual in ("sdpa", "eager"):
        yield
        return
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
