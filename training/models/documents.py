"""How each kind of attention learns where the documents of a row begin, so that they do not see each other.

Positions that restart say it. transformers can read them by itself, but then every micro-batch waits until the device
has answered whether any row holds two documents.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

TAKES_A_MASK = frozenset({"bloom", "opt"})
"""Types whose attention keeps documents apart only if it gets a mask. The others find documents by their positions."""


def kept_apart(model: Any, positions: Tensor, device: torch.device) -> dict[str, Any]:
    """The arguments of a forward pass besides tokens. positions: (B, T) on the CPU, each token's place in its document.

    flash-attn gets the ends of documents, FlexAttention the blocks in which anything is seen. PyTorch's SDPA gets a
    mask of T x T booleans a row; with it, it cannot use its flash kernel. Eager attention, and models whose layers see
    a window of tokens, leave it to transformers. A few types need the mask itself, added to their scores.
    """
    own, config = positions.to(device, non_blocking=True), model.config
    known: dict[str, Any] = {"position_ids": own}
    kind = config._attn_implementation
    if config.model_type in TAKES_A_MASK:
        return known | {"attention_mask": added(numbers(own), model.dtype)}
    if kind.startswith("flash"):
        return known | _ends(positions, device)
    if getattr(config, "sliding_window", None):
        return known
    if kind == "flex_attention":
        return known | {"attention_mask": blocks(numbers(own))}
    return known | ({"attention_mask": dense(numbers(own))} if kind == "sdpa" else {})


def numbers(positions: Tensor) -> Tensor:
    """Each token's document, counted from 1 in its row: (B, T) -> (B, T)."""
    return (positions == 0).cumsum(-1)


def dense(documents: Tensor) -> Tensor:
    """True where a token sees another: one of its own document that is not later. (B, T) -> (B, 1, T, T)."""
    return (documents[:, None, :, None] == documents[:, None, None, :]).tril()


def added(documents: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask added to attention scores: 0 where `dense` is true, else the lowest number. (B, T) -> (B, 1, T, T)."""
    seen = dense(documents)
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


@torch.no_grad()  # so that training and measuring share the program
def blocks(documents: Tensor) -> BlockMask:
    """The same for FlexAttention, which leaves out blocks of 128 x 128 tokens that see nothing. documents: (B, T).

    On a GPU it is made by a compiled program: operations one by one would write T x T values a row several times over.
    """
    rows, length = documents.shape

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents[row, query] == documents[row, key])

    make = _maker(documents.device.type)
    return make(sees, rows, None, length, length, str(documents.device))


@cache
def _maker(device: str) -> Callable[..., BlockMask]:
    return torch.compile(create_block_mask) if device == "cuda" else create_block_mask


def _ends(positions: Tensor, device: torch.device) -> dict[str, Any]:
    """Where documents begin and end in the joined rows of a batch, and the longest one, as flash-attn takes them.

    Without these, transformers finds the documents only in a batch of one row, and lets those of more rows leak. They
    are counted on the CPU, because on a GPU every layer would wait for the count.
    """
    starts = (positions.flatten() == 0).nonzero().flatten()
    edges = torch.cat([starts, torch.tensor([positions.numel()])]).to(torch.int32)
    longest = int(edges.diff().max())
    edges = edges.to(device)
    return {"cu_seq_lens_q": edges, "cu_seq_lens_k": edges, "max_length_q": longest, "max_length_k": longest}
