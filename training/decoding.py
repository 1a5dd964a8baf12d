"""Decoding with a key-value cache of a fixed size, a token at a time, for rows that leave when their reply has ended.

`Growing` works everywhere: keys and values are written in place into memory that is there from the start, and attention
reads only what is filled. `Fixed` gives every operation the same shape at every token, so that on a GPU one CUDA graph
replays the kernels of a token, some 571 at 12 layers, which otherwise are started one by one.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, StaticCache

from training.models.llama import attention_of


def positions(attention: Tensor) -> Tensor:
    """Position of each token, counted from the first real token of its row: (B, T) -> (B, T)."""
    return (attention.cumsum(-1) - 1).clamp(min=0)


class Slab(DynamicLayer):
    """The keys and values of one layer in memory for `room` tokens. transformers' own layer copies all of them anew
    for each token."""

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._room, self._filled = room, 0
        self._whole: list[Tensor] = []

    def hold(self, parts: Sequence[tuple[Tensor, Tensor]]) -> "Slab":
        """Begin with the keys and values of several, row below row, all ending at the same place; returns itself."""
        self.lazy_initialization(*parts[0])
        self._filled = max(keys.shape[2] for keys, _ in parts)
        for kind, like in enumerate(parts[0]):
            rows = sum(part[kind].shape[0] for part in parts)
            whole, row = like.new_zeros((rows, like.shape[1], self._room, like.shape[3])), 0
            for part in parts:
                one = part[kind]
                whole[row : row + len(one), :, self._filled - one.shape[2] : self._filled] = one
                row += len(one)
            self._whole.append(whole)
        self.keys, self.values = (whole[:, :, : self._filled] for whole in self._whole)
        return self

    @property
    def full(self) -> bool:
        return self._filled == self._room

    def update(self, key_states: Tensor, value_states: Tensor, *given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """Add the newest tokens; returns the keys and values of all so far, as views."""
        if not self._whole:
            self.lazy_initialization(key_states, value_states)
            shapes = [(*one.shape[:2], self._room, one.shape[3]) for one in (key_states, value_states)]
            self._whole = [key_states.new_empty(shape) for shape in shapes]
        end = self._filled + key_states.shape[2]
        for whole, new in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, self._filled : end] = new
        self._filled = end
        self.keys, self.values = (whole[:, :, :end] for whole in self._whole)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        kept = [whole[indices, :, : self._filled] for whole in self._whole]
        self._whole = [
            one.new_empty((*one.shape[:2], self._room, one.shape[3])).copy_(_padded(one, self._room)) for one in kept
        ]
        self.keys, self.values = (whole[:, :, : self._filled] for whole in self._whole)


def _padded(kept: Tensor, room: int) -> Tensor:
    return torch.nn.functional.pad(kept, (0, 0, 0, room - kept.shape[2]))


def growing_cache(model: Any, room: int) -> Cache:
    """A cache of Slabs; transformers' own for models of which some layers keep only a window."""
    usual = DynamicCache(config=model.config)
    if all(type(layer) is DynamicLayer for layer in usual.layers):
        return Cache(layers=[Slab(room) for _ in range(model.config.num_hidden_layers)])
    return usual


class Growing:
    """A batch of prompts under way. `leave_at`: the share of rows still alive at which the others leave."""

    leave_at = 0.75

    def __init__(self, model: nn.Module, tokens: Tensor, attention: Tensor, room: int) -> None:
        """`room`: prompt and reply positions together."""
        self._model: Any = model
        self._attention = attention
        self._cache = growing_cache(model, room)
        self.logits = self._read(tokens)
        """Of the next token of each row, (B, V)."""

    def step(self, chosen: Tensor, alive: Tensor) -> None:
        """Go on with one token for each row; those that are not alive get padding. (B,), (B,) bool."""
        self._attention = torch.cat((self._attention, alive[:, None].long()), dim=1)
        self.logits = self._read(chosen[:, None])

    def keep(self, rows: Tensor) -> None:
        """Let all rows but these leave."""
        self._cache.batch_select_indices(rows)
        self._attention = self._attention[rows]

    def _read(self, tokens: Tensor) -> Tensor:
        output = self._model(
            input_ids=tokens,
            attention_mask=self._attention,
            position_ids=positions(self._attention)[:, -tokens.shape[1] :],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits


class Fixed:
    """The same in fixed shapes: the prompt is read once, and every later token is the replay of one graph.

    Only a CUDA device has graphs; elsewhere the same operations run one by one. A row that leaves makes another graph
    necessary, so rows leave at halves.
    """

    leave_at = 0.5

    def __init__(self, model: Any, tokens: Tensor, attention: Tensor, room: int) -> None:
        self._model = model
        self._cache: Any = StaticCache(config=model.config, max_cache_len=room)
        width = tokens.shape[1]
        self._attention = torch.nn.functional.pad(attention, (0, room - width))
        self._next = torch.tensor([width], device=tokens.device)
        self._places = attention.sum(1, keepdim=True)
        self._tokens = torch.zeros_like(self._places)
        self._graphs = tokens.device.type == "cuda"
        self._graph: Any = None
        self.logits = self._call(tokens, positions(attention))

    def step(self, chosen: Tensor, alive: Tensor) -> None:
        self._tokens.copy_(chosen[:, None])
        self._attention.index_copy_(1, self._next, alive[:, None].long())
        if self._graphs:
            self._replay()
        else:
            self.logits = self._call(self._tokens, self._places)
        self._places += alive[:, None]
        self._next += 1

    def keep(self, rows: Tensor) -> None:
        self._graph = None
        self._attention, self._places, self._tokens = (
            one[rows].contiguous() for one in (self._attention, self._places, self._tokens)
        )
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[rows].contiguous(), layer.values[rows].contiguous()

    def _call(self, tokens: Tensor, places: Tensor) -> Tensor:
        output = self._model(
            input_ids=tokens,
            attention_mask=self._attention,
            position_ids=places,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _replay(self) -> None:
        """Replay the graph of a token; capture it first if the rows are others than before."""
        if self._graph is None:
            filled = [layer.cumulative_length.clone() for layer in self._cache.layers]
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # libraries choose their kernels in the first call, which no graph may hold
                self._call(self._tokens, self._places)
            torch.cuda.current_stream().wait_stream(aside)
            self._set_filled(filled)
            self._graph = torch.cuda.CUDAGraph()
            # Threads that upload a checkpoint meanwhile do not end the capture.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self.logits = self._call(self._tokens, self._places)
            self._set_filled(filled)
        self._graph.replay()

    def _set_filled(self, filled: list[Tensor]) -> None:
        for layer, count in zip(self._cache.layers, filled, strict=True):
            layer.cumulative_length.copy_(count)


@contextlib.contextmanager
def by_sdpa(model: Any, graphs: bool) -> Iterator[None]:
    """Context in which attention is PyTorch's, if graphs are asked for: flash-attn reads values of the mask."""
    usual = attention_of(model)
    if not graphs or not usual.startswith("flash_attention"):
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def decoder(model: Any, tokens: Tensor, attention: Tensor, room: int, graphs: bool = False) -> Growing | Fixed:
    """Begin to reply to left-padded prompts. `graphs`: in fixed shapes, if all layers of the model see all tokens."""
    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
    return (Fixed if graphs and plain else Growing)(model, tokens, attention, room)
