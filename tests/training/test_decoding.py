"""Decoding in place and in fixed shapes against whole forward passes, with rows that leave on the way."""

import contextlib
from collections.abc import Iterator
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from training.decoding import Fixed, Growing, Slab, by_sdpa, decoder, growing_cache, positions
from training.rollout import generate, left_pad, row_seed

SHAPE: dict[str, Any] = {
    "vocab_size": 31, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": 0,
}  # fmt: skip
PROMPTS = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9]]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()


@pytest.mark.parametrize("kind", [Growing, Fixed])
@torch.no_grad()
def test_logits_are_those_of_whole_passes_also_after_rows_have_left(model: LlamaForCausalLM, kind: Any) -> None:
    chosen = torch.tensor([[4, 8, 2], [1, 0, 3], [7, 7, 7], [2, 5, 9]]).T  # row by token
    tokens, attention = left_pad(PROMPTS, 0, "cpu")
    under_way, rows = kind(model, tokens, attention, 11), [0, 1, 2]
    for token in range(4):
        for place, row in enumerate(rows):
            alone = torch.tensor([[*PROMPTS[row], *chosen[row, :token].tolist()]])
            torch.testing.assert_close(under_way.logits[place], model(alone).logits[0, -1], rtol=1e-4, atol=1e-4)
        under_way.step(chosen[rows, token], torch.ones(len(rows), dtype=torch.bool))
        if token == 1:
            under_way.keep(torch.tensor([0, 2]))
            under_way.logits, rows = under_way.logits[[0, 2]], [0, 2]
    assert rows == [0, 2]


@torch.no_grad()
def test_the_replay_of_a_graph_reads_each_token_once(model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call before a capture and the capture leave no trace. A graph's stand-in calls the model at each replay."""
    said: list[str] = []

    class Graph:
        def replay(self) -> None:
            said.append("replay")
            under_way.logits.copy_(under_way._call(under_way._tokens, under_way._places))

    @contextlib.contextmanager
    def capture(graph: Graph, capture_error_mode: str) -> Iterator[None]:
        said.append(capture_error_mode)
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, stand_in in (
        ("Stream", lambda: stream), ("current_stream", lambda: stream), ("stream", lambda one: contextlib.nullcontext()),
        ("CUDAGraph", Graph), ("graph", capture),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    tokens, attention = left_pad(PROMPTS, 0, "cpu")
    under_way, other = Fixed(model, tokens, attention, 12), Growing(model, tokens, attention, 12)
    under_way._graphs = True
    for token in range(4):
        chosen, alive = (
            torch.tensor([4, token, 2])[: len(other.logits)],
            torch.ones(len(other.logits), dtype=torch.bool),
        )
        for one in (under_way, other):
            one.step(chosen, alive)
        torch.testing.assert_close(under_way.logits, other.logits, rtol=1e-4, atol=1e-4)
        if token == 1:
            for one in (under_way, other):
                one.keep(torch.tensor([0, 2]))
                one.logits = one.logits[[0, 2]]
    assert said == ["thread_local", "replay", "replay"] * 2, "rows that leave make another graph necessary"


class Chooses:
    """Of a model, what chooses its attention; flash-attn itself is not here."""

    def __init__(self, usual: str) -> None:
        self.config = SimpleNamespace(_attn_implementation=usual)

    def set_attn_implementation(self, kind: str) -> None:
        self.config._attn_implementation = kind


@pytest.mark.parametrize(
    ("usual", "graphs", "inside"),
    [("flash_attention_2", True, "sdpa"), ("flash_attention_2", False, "flash_attention_2"), ("eager", True, "eager")],
)
def test_graphs_have_attention_that_reads_no_values(usual: str, graphs: bool, inside: str) -> None:
    model = Chooses(usual)
    with by_sdpa(model, graphs):
        assert model.config._attn_implementation == inside
    assert model.config._attn_implementation == usual


@pytest.mark.parametrize("graphs", [False, True])
def test_short_replies_leave_and_long_ones_are_the_same(model: LlamaForCausalLM, graphs: bool) -> None:
    model = deepcopy(model)
    with torch.no_grad():
        model.lm_head.weight *= 0.2  # so that replies end now and then
    prompts, seeds = [[5, 6]] * 16, [row_seed(2, row) for row in range(16)]
    sizes: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, given, named: sizes.append(named["input_ids"].shape[0]), with_kwargs=True
    )
    together = generate(model, prompts, seeds, 30, 0, graphs=graphs)
    hook.remove()
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 16
    assert sizes[-1] <= 12, "rows have left"
    for row in range(16):
        assert generate(model, prompts[:1], [seeds[row]], 30, 0).texts()[0] == together.texts()[row]
    assert torch.equal(together.attention.sum(-1), 2 + together.mask.sum(-1).long())


def test_keys_and_values_are_written_in_place(model: LlamaForCausalLM) -> None:
    cache = growing_cache(model, 9)
    assert [type(layer) for layer in cache.layers] == [Slab, Slab]
    model(torch.tensor([[1, 2, 3]]), past_key_values=cache, use_cache=True)
    before = cache.layers[0].keys
    assert before is not None
    model(torch.tensor([[4]]), past_key_values=cache, use_cache=True)
    after = cache.layers[0].keys
    assert after is not None
    assert (before.shape[2], after.shape[2]) == (3, 4)
    assert before.data_ptr() == after.data_ptr()


def test_a_model_with_windows_keeps_its_own_cache() -> None:
    windowed = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=4)).eval()
    assert not any(isinstance(layer, Slab) for layer in growing_cache(windowed, 9).layers)
    tokens, attention = left_pad(PROMPTS, 0, "cpu")
    with torch.no_grad():
        assert type(decoder(windowed, tokens, attention, 11, graphs=True)) is Growing


def test_positions_begin_at_the_first_real_token() -> None:
    assert positions(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]
