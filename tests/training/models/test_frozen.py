"""Models that only compute: they lend themselves, and one of a policy with adapters is the policy without them."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from contract.settings.training import Lora, Model
from training.models import llama, lora
from training.models.frozen import Adapted, Frozen


def test_a_frozen_model_learns_nothing_and_computes_the_same() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.9))
    rows = torch.ones(4, 3)
    expected = module[0](rows).detach()
    kept = Frozen(module.train())
    with kept.awake() as one, kept.held(), kept.awake() as two:
        assert one is two is module
        assert torch.equal(one(rows), expected), "in evaluation mode"
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_reference_of_a_policy_with_adapters_is_the_policy_without_them() -> None:
    pytest.importorskip("peft")
    plain = llama.build(Model(layers=1, d_model=32, heads=2, kv_heads=2, d_ff=64), 96, 64, 0)
    policy = lora.with_adapters(deepcopy(plain), Lora(enabled=True, rank=2), 0).train()
    learned = {name: one for name, one in policy.named_parameters() if one.requires_grad}
    assert learned.keys() == {name for name, _ in policy.named_parameters() if "lora_" in name}
    with torch.no_grad():
        for one in learned.values():
            one.add_(0.1)
    rows = torch.arange(8)[None]
    moved, kept = policy(rows).logits, Adapted(policy)
    assert not torch.allclose(moved, plain(rows).logits, atol=1e-2)
    with kept.held(), kept.awake() as reference:
        assert not reference.training
        assert torch.equal(reference(rows).logits, plain(rows).logits)
    assert policy.training
    assert torch.equal(policy(rows).logits, moved), "afterwards the adapters are on again"
    assert {name for name, one in policy.named_parameters() if one.requires_grad} == learned.keys(), "and learn again"


def test_an_offloaded_model_is_on_the_device_only_while_it_is_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be copied to a GPU is copied within the CPU's memory."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *given, **named: self.clone())
    module = nn.Linear(3, 2)
    expected = module.weight.detach().clone()
    kept, host = Frozen(module, "cuda", offload=True), module.weight.data_ptr()
    with kept.held():
        with kept.awake() as one:
            copied = one.weight.data_ptr()
            assert copied != host
        with kept.awake():
            assert module.weight.data_ptr() == copied, "it stays from one use to the next"
            assert torch.equal(module.weight, expected)
    assert module.weight.data_ptr() == host
    assert torch.equal(module.weight, expected)
