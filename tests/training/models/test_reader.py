"""What a reader says of rows that share, against whole passes of each text alone, for many kinds of models."""

from typing import Any

import pytest
import torch
import transformers

from training.models.causal import adapted
from training.models.reader import Reader, Rows, aligned, told_what_is_seen

TOP: dict[str, Any] = {"vocab_size": 97, "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": 0}
LLAMA: dict[str, Any] = TOP | {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "llama": ("Llama", LLAMA, True),
    "qwen2": ("Qwen2", LLAMA, True),
    "qwen3": ("Qwen3", LLAMA | {"head_dim": 8}, True),
    "mixtral": ("Mixtral", LLAMA | {"num_local_experts": 4}, True),
    "gpt2": ("GPT2", TOP | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, True),
    "neox": ("GPTNeoX", {**LLAMA, "num_key_value_heads": 4}, True),
    "window": ("Mistral", LLAMA | {"sliding_window": 4}, False),
    "bloom": ("Bloom", TOP | {"hidden_size": 32, "n_layer": 2, "n_head": 4}, False),
    "gemma2": ("Gemma2", LLAMA | {"head_dim": 8, "sliding_window": 4, "pad_token_id": 0}, False),
}


def made(kind: str, attention: str = "sdpa") -> Any:
    name, shape, _ = KINDS[kind]
    torch.manual_seed(1)
    config = getattr(transformers, f"{name}Config")(**shape)
    config._attn_implementation = "eager" if name in ("Bloom", "Gemma2") else attention
    named = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    return adapted(getattr(transformers, named)(config)).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_only_models_share_that_get_the_same_numbers_so(kind: str) -> None:
    assert Reader(made(kind)).shares is KINDS[kind][2]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", [kind for kind, (*_, shares) in KINDS.items() if shares])
@torch.no_grad()
def test_branches_behind_a_memory_are_rows_of_their_own(kind: str, attention: str) -> None:
    """Two rows: behind 3 tokens of memory a trunk with branches, and behind 2 others a single text, padded."""
    model = made(kind, attention)
    reader = Reader(model)
    memory, filled = aligned([reader.memory([5, 6, 7]), reader.memory([8, 9])], reader.device)
    tokens = torch.tensor([[10, 11, 12, 13, 14], [15, 16, 0, 0, 0]])
    positions = torch.tensor([[3, 4, 5, 4, 5], [2, 3, 0, 0, 0]])
    branch = torch.tensor([[0, 1, 1, 2, 2], [0, 0, -1, -1, -1]])
    near = ((branch[:, None] == 0) | (branch[:, :, None] == branch[:, None])).tril()
    seen = torch.cat((filled[:, None].expand(-1, 5, -1), near), 2)[:, None]
    at = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 2, 4, 1])
    found = reader.log_likelihoods(Rows(tokens, positions, seen, memory), at, torch.tensor([20, 21, 22, 23]))
    texts = [[5, 6, 7, 10], [5, 6, 7, 10, 11, 12], [5, 6, 7, 10, 13, 14], [8, 9, 15, 16]]
    wanted = [
        float(model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[target])
        for ids, target in zip(texts, (20, 21, 22, 23), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=0, atol=1e-5)


@torch.no_grad()
def test_logits_that_a_model_caps_are_capped() -> None:
    model = made("gemma2")
    rows = Rows(torch.tensor([[5, 6, 7]]), torch.tensor([[0, 1, 2]]), torch.ones(1, 3).long(), [])
    found = Reader(model).log_likelihoods(rows, (torch.tensor([0]), torch.tensor([1])), torch.tensor([9]))
    wanted = model(torch.tensor([[5, 6]])).logits[0, -1].log_softmax(-1)[9]
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-5)


def test_longest_is_what_the_configuration_says() -> None:
    assert Reader(made("gpt2")).longest == 64
    assert Reader(made("bloom")).longest == 2048, "it says nothing"


def test_attention_is_set_back() -> None:
    model = made("llama")
    model.config._attn_implementation = "flex_attention"
    with told_what_is_seen(model):
        assert model.config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == "flex_attention"
