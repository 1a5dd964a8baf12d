"""LAMB by hand, Muon and AdamW together, and which parameters go where."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel

from contract.settings.training import Model, Optim
from training.engine.optimizers import Both, Lamb, decay_groups, hidden_matrices, make
from training.models import llama as model
from training.reward import RewardModel

SHAPE = Model(layers=1, d_model=16, heads=2, kv_heads=1, d_ff=32, tie_embeddings=False)


def names(module: nn.Module, chosen: list[nn.Parameter]) -> set[str]:
    own = {id(one) for one in chosen}
    return {name for name, one in module.named_parameters() if id(one) in own}


def test_norms_are_not_decayed() -> None:
    matrices, vectors = decay_groups(model.build(SHAPE, 50, 16, 0).parameters(), 0.1)
    assert matrices["weight_decay"] == 0.1
    assert vectors["weight_decay"] == 0.0
    assert {one.dim() for one in matrices["params"]} == {2}
    assert len(vectors["params"]) == 3  # two norms in the layer, one at the end
    assert [len(group["params"]) for group in decay_groups(nn.Linear(2, 2, bias=False).parameters(), 0.1)] == [1]


@pytest.mark.parametrize("tied", [True, False])
def test_hidden_matrices_are_those_of_the_layers(tied: bool) -> None:
    module = model.build(SHAPE.model_copy(update={"tie_embeddings": tied}), 50, 16, 0)
    ends = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert {name.split(".")[-2] for name in names(module, hidden_matrices(module))} == set(ends)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    judge = RewardModel(LlamaModel(config), seed=0)
    assert len(hidden_matrices(judge)) == 7
    assert not any(name.startswith("head") for name in names(judge, hidden_matrices(judge)))


def test_lamb_by_hand() -> None:
    """Two updates of one matrix with gradients (3, 0) and (1, 4): each moves it by lr x its norm, along Adam's step."""
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    lamb = Lamb([{"params": [weight], "weight_decay": 0.1}], 0.01, (0.9, 0.99))
    weight.grad = torch.tensor([[3.0, 0.0]])
    lamb.step()
    step = torch.tensor([[1.0 + 0.3, 0.4]])  # m / sqrt(v) is 1 after one update; decay adds 0.1 w
    expected = torch.tensor([[3.0, 4.0]]) - 0.01 * 5.0 * step / step.norm()
    torch.testing.assert_close(weight.data, expected, rtol=1e-5, atol=1e-6)

    weight.grad = torch.tensor([[1.0, 4.0]])
    mean = torch.tensor([[0.9 * 0.3 + 0.1, 0.4]]) / (1 - 0.9**2)
    square = torch.tensor([[0.99 * 0.09 + 0.01, 0.16]]) / (1 - 0.99**2)
    step = mean / square.sqrt() + 0.1 * expected
    expected = expected - 0.01 * expected.norm() * step / step.norm()
    lamb.step()
    torch.testing.assert_close(weight.data, expected, rtol=1e-5, atol=1e-6)


def test_lamb_takes_plain_steps_of_vectors_and_of_what_is_zero() -> None:
    vector, nothing = nn.Parameter(torch.tensor([3.0, 4.0])), nn.Parameter(torch.zeros(1, 2))
    lamb = Lamb([{"params": [vector, nothing], "weight_decay": 0.0}], 0.01, (0.9, 0.99))
    vector.grad, nothing.grad = torch.tensor([2.0, -2.0]), torch.tensor([[5.0, 5.0]])
    lamb.step()
    torch.testing.assert_close(vector.data, torch.tensor([2.99, 4.01]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(nothing.data, torch.tensor([[-0.01, -0.01]]), rtol=1e-5, atol=1e-6)


def test_muon_moves_the_hidden_matrices_and_adamw_the_others() -> None:
    module = model.build(SHAPE, 50, 16, 0)
    both = make(module, Optim(optimizer="muon", lr=0.02, weight_decay=0.1))
    assert isinstance(both, Both)
    apart = model.build(SHAPE, 50, 16, 0)
    hidden = hidden_matrices(apart)
    own = {id(one) for one in hidden}
    parts = [
        torch.optim.Muon(hidden, 0.02, 0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            decay_groups((one for one in apart.parameters() if id(one) not in own), 0.1), 0.02, (0.9, 0.95), fused=True
        ),
    ]
    for _ in range(2):
        tokens = torch.arange(16)[None]
        for one in (module, apart):
            one.zero_grad()
            one(input_ids=tokens, labels=tokens).loss.backward()
        both.step()
        for part in parts:
            part.step()
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), apart.parameters(), strict=True))
    assert [group["weight_decay"] for group in both.param_groups] == [0.1, 0.1, 0.0]
    assert {key for state in both.state.values() for key in state} >= {"momentum_buffer", "exp_avg", "exp_avg_sq"}
    before = [one.detach().clone() for one in module.parameters()]
    for group in both.param_groups:
        group["lr"] = 0.0
    both.step()
    assert all(torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True)), "the rate reaches both"


def test_the_default_is_adamw() -> None:
    assert type(make(model.build(SHAPE, 50, 16, 0), Optim())) is torch.optim.AdamW
