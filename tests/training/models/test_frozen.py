"""Models that only compute: they lend themselves, and one of a policy with adapters is the policy without them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

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


class WithAdapter(nn.Linear):
    """A layer whose adapter adds one, unless it is switched off; as peft's models offer it."""

    on = True

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows) + self.on

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        self.on = False
        yield
        self.on = True


def test_the_reference_of_a_policy_with_adapters_is_the_policy_without_them() -> None:
    policy = WithAdapter(2, 2).train()
    rows = torch.ones(1, 2)
    kept = Adapted(policy)
    with kept.held(), kept.awake() as reference:
        assert not reference.training
        without = reference(rows)
    assert policy.training
    assert torch.equal(policy(rows), without + 1), "afterwards the adapter is on again"
