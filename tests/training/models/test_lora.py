"""Adapters: which layers get them, that they alone learn, and that merging is the formula."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from contract.errors import InputError, SetupError
from contract.settings.training import Lora, Model
from training.models import llama as model
from training.models import lora

EVERY = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def tiny() -> Any:
    return model.build(Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64), 96, 64, 0)


def test_which_layers_get_adapters() -> None:
    assert lora.targets_of(tiny(), Lora(enabled=True)) == EVERY
    assert lora.targets_of(tiny(), Lora(enabled=True, targets=("v_proj", "q_proj"))) == ["q_proj", "v_proj"]
    with pytest.raises(InputError, match=r"lora\.targets: the model has no linear layer 'query'; it has down_proj"):
        lora.targets_of(tiny(), Lora(enabled=True, targets=("q_proj", "query")))


def test_only_adapters_learn_and_begin_as_nothing() -> None:
    pytest.importorskip("peft")
    ids = torch.arange(5, 25)[None]
    before = tiny()(input_ids=ids).logits
    settings = Lora(enabled=True, rank=3, targets=("q_proj", "up_proj"))
    made, again, other = (lora.with_adapters(tiny(), settings, seed) for seed in (1, 1, 2))
    learned = {name: one for name, one in made.named_parameters() if one.requires_grad}
    assert sum(one.numel() for one in learned.values()) == 2 * 3 * (32 + 32) + 2 * 3 * (32 + 64)
    assert {name.split(".")[-4] for name in learned} | {name.split(".")[-5] for name in learned} >= {"self_attn", "mlp"}
    torch.testing.assert_close(made(input_ids=ids).logits, before, rtol=0, atol=0)
    same = dict(again.named_parameters())
    assert all(torch.equal(one, same[name]) for name, one in learned.items()), "the same seed gives the same adapters"
    third = dict(other.named_parameters())
    assert not all(torch.equal(one, third[name]) for name, one in learned.items())


def test_merging_adds_the_scaled_product() -> None:
    pytest.importorskip("peft")
    settings = Lora(enabled=True, rank=2, alpha=6.0, targets=("q_proj",))
    plain = tiny()
    trained = lora.with_adapters(copy.deepcopy(plain), settings, 0)
    weights = {name: torch.randn_like(one) for name, one in trained.named_parameters() if one.requires_grad}
    with torch.no_grad():
        for name, one in trained.named_parameters():
            if one.requires_grad:
                one.copy_(weights[name])
    merged = lora.merged(copy.deepcopy(plain), settings, weights)
    assert [name for name, _ in merged.named_parameters()] == [name for name, _ in plain.named_parameters()]
    old = dict(plain.named_parameters())
    for name, one in merged.named_parameters():
        expected = old[name]
        if "q_proj" in name:
            part = name.removesuffix(".weight")
            down, up = (weights[f"{part}.lora_{side}.default.weight"] for side in "AB")
            expected = old[name] + 3.0 * up @ down
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6)
    ids = torch.arange(5, 25)[None]
    torch.testing.assert_close(merged(input_ids=ids).logits, trained(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


def test_four_bits_need_a_gpu(tmp_path: Path) -> None:
    job: Any = SimpleNamespace(ranks=SimpleNamespace(device=torch.device("cpu")))
    with pytest.raises(SetupError, match=r"sft\.lora\.quantised needs a GPU, and there is none"):
        lora.quantised(tmp_path, job)
