"""The balancing loss against known answers, and that with it all experts are used."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from contract.manifest import need
from contract.results import Pretrain
from contract.settings.training import Model
from contract.sizes import idle_parameters, parameters
from training import pretrain, sft
from training.engine.job import Job
from training.models import llama
from training.models.experts import Routing, balance_loss, routers_of, routing_of
from training.models.lm import learn, summed_nll

SHAPE = Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=48, experts=4, balance_coef=0.5)
MOE = "pretrain.model={layers: 2, d_model: 32, heads: 4, kv_heads: 2, d_ff: 48, experts: 4, balance_coef: 0.5}"


def test_uniform_routing_gives_one_and_collapse_gives_experts_over_places() -> None:
    all_count = torch.ones(80)
    in_turn = torch.eye(8).repeat(10, 1) * 1e-4  # almost equal probabilities, and each expert is chosen as often
    assert balance_loss(in_turn, all_count, 1).item() == pytest.approx(1.0, abs=1e-4)
    one = torch.full((80, 8), -50.0)
    one[:, 3] = 50.0
    assert balance_loss(one, all_count, 1).item() == pytest.approx(8)
    one[:, 5] = 50.0
    assert balance_loss(one, all_count, 2).item() == pytest.approx(8 / 2)


def test_balance_by_hand() -> None:
    """Two tokens and three experts of which each token chooses two; the third token does not count."""
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6], [1.0, 0.0, 0.0]])
    places, mean = (1 / 4, 2 / 4, 1 / 4), (0.3, 0.3, 0.4)
    expected = 3 * sum(share * one for share, one in zip(places, mean, strict=True))
    found = balance_loss(probabilities.clamp(min=1e-9).log(), torch.tensor([1.0, 1.0, 0.0]), 2)
    assert found.item() == pytest.approx(expected)
    assert balance_loss(probabilities.log(), torch.zeros(3), 2).item() == 0.0, "nothing counts"


def test_it_is_transformers_loss_of_one_layer_by_the_places_of_a_token() -> None:
    scores = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    theirs = load_balancing_loss_func((scores,), 8, 2)
    assert balance_loss(scores, torch.ones(50), 2).item() == pytest.approx(float(theirs) / 2)


def test_only_probabilities_have_a_gradient_and_it_moves_scores_from_the_full_expert() -> None:
    scores = torch.zeros(10, 4)
    scores[:, 0] = 1.0
    scores.requires_grad_()
    balance_loss(scores, torch.ones(10), 1).backward()
    assert bool((scores.grad[:, 0] > 0).all())  # type: ignore[index]
    assert bool((scores.grad[:, 1:] < 0).all())  # type: ignore[index]


@pytest.mark.parametrize("recomputes", [False, True])
def test_scores_of_every_layer_are_those_that_transformers_gives(recomputes: bool) -> None:
    module = llama.build(SHAPE, 50, 16, seed=1)
    assert isinstance(module, MixtralForCausalLM)
    assert [index for _, index in routers_of(module)] == [0, 0]
    routing = routing_of(module)
    assert routing is routing_of(module)
    assert (routing.coef, routing.per_token) == (0.5, 2)
    module.train()
    if recomputes:
        module.activation_checkpointing_enable({"use_reentrant": False})
    tokens = torch.arange(32).reshape(2, 16) + 3
    for _ in range(2):  # the second time after a backward pass, which may run layers again
        theirs = module(input_ids=tokens, output_router_logits=True).router_logits
        expected = torch.stack([balance_loss(one, torch.ones(32), 2) for one in theirs]).mean()
        found = routing.balance(torch.ones(2, 16))
        assert found is not None
        assert found.item() == pytest.approx(expected.item(), abs=1e-7)
        assert routing.balance(torch.ones(2, 16)) is None, "a pass is read once"
        module.zero_grad()
        module(input_ids=tokens)
        loss = routing.balance(torch.ones(2, 16))
        assert loss is not None
        loss.backward()
        moved = {name for name, one in module.named_parameters() if one.grad is not None and bool(one.grad.any())}
        assert {"model.layers.0.mlp.gate.weight", "model.layers.1.mlp.gate.weight"} <= moved


def test_models_of_other_makers_are_balanced_as_they_say_and_those_without_experts_are_not() -> None:
    config = Qwen3MoeConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, router_aux_loss_coef=0.25,
    )  # fmt: skip
    module = Qwen3MoeForCausalLM(config)
    routing = Routing(module)
    module(input_ids=torch.arange(20)[None])
    assert routing.coef == 0.25
    found = routing.balance(torch.ones(1, 20))
    assert found is not None
    assert 0.9 < found.item() < 2
    plain = llama.build(SHAPE.model_copy(update={"experts": 0}), 50, 16, seed=1)
    routing = Routing(plain)
    plain(input_ids=torch.arange(20)[None])
    assert routing.balance(torch.ones(1, 20)) is None


EXPERTS = {"num_experts_per_tok": 2, "router_aux_loss_coef": 0.1, "num_key_value_heads": 2, "num_attention_heads": 4}


def routed(kind: str, **own: Any) -> tuple[Any, Routing]:
    shape = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **EXPERTS, **own))
    return module, Routing(module)


def test_scores_are_the_output_of_a_router_that_transformers_names() -> None:
    """JetMoE's come after others, among them the hidden states."""
    module, routing = routed("jetmoe", kv_channels=8, intermediate_size=32, num_local_experts=4)
    tokens = torch.arange(20)[None]
    theirs = module(tokens, output_router_logits=True).router_logits
    expected = torch.stack([balance_loss(one, torch.ones(20), 2) for one in theirs]).mean()
    found = routing.balance(torch.ones(1, 20))
    assert found is not None
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_compiled_layers_with_experts_share_one_program() -> None:
    module = llama.build(Model(layers=3, d_model=16, heads=2, kv_heads=1, d_ff=32, experts=4), 50, 16, 0)
    routing = routing_of(module)
    made = []

    def count(graph: Any, inputs: Any) -> Any:
        made.append(graph)
        return graph.forward

    for layer in module.model.layers:
        layer.compile(backend=count)
    tokens = torch.arange(32).view(2, 16)
    module(input_ids=tokens, use_cache=False)
    assert len(made) == 1
    found = routing.balance(torch.ones(2, 16))
    plain = llama.build(Model(layers=3, d_model=16, heads=2, kv_heads=1, d_ff=32, experts=4), 50, 16, 0)
    own = routing_of(plain)
    plain(input_ids=tokens, use_cache=False)
    assert torch.equal(found, own.balance(torch.ones(2, 16)))


def test_scores_that_are_not_of_tokens_make_no_balancing_loss() -> None:
    """Doge chooses experts by two halves of a key."""
    module, routing = routed("doge", intermediate_size=64, is_moe=True, num_experts=16)
    module(torch.arange(20)[None])
    assert routing.balance(torch.ones(1, 20)) is None


def test_a_mixture_of_the_recipe_has_the_parameters_of_its_shape() -> None:
    module = llama.build(SHAPE, 50, 16, seed=1)
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 4 * 3 * 32 * 48 + 4 * 32 + 2 * 32
    assert llama.parameters(module) == parameters(SHAPE, 50) == 50 * 32 + 2 * layer + 32
    assert llama.active_parameters(module) == llama.parameters(module) - idle_parameters(SHAPE)
    assert idle_parameters(SHAPE) == 2 * 2 * 3 * 32 * 48
    config = module.config
    assert (config.num_local_experts, config.num_experts_per_tok, config.router_aux_loss_coef) == (4, 2, 0.5)
    spread = module.model.layers[0].mlp.experts
    assert spread.down_proj.std().item() == pytest.approx(0.02 / 2, rel=0.05), "it ends in the residual stream"
    assert spread.gate_up_proj.std().item() == pytest.approx(0.02, rel=0.05)


def test_a_mixture_learns_balanced_and_is_tuned_and_loaded_by_transformers(
    make_job: Callable[..., Job], curves: Callable[[Job], dict[str, list[tuple[int, float]]]]
) -> None:
    job = make_job("pretrain", MOE, "pretrain.steps=12")
    pretrain.run(job)
    manifest, found = need(job.store, job.task), curves(job)
    figures = Pretrain.of(manifest)
    assert len(found["balance_loss"]) == 12
    assert all(0.99 < value < 2 for _, value in found["balance_loss"])
    assert found["loss"][-1][1] < found["loss"][0][1] - 0.3, "nll alone, without the balancing loss"
    assert found["heldout_loss"][-1][1] == pytest.approx(found["loss"][-1][1], abs=0.3)
    module = llama.load_model(job, manifest)
    names = {name for name, _ in module.named_parameters()}
    assert llama.stored_shapes(llama.fetch(job, manifest)).keys() == names, "by which ZeRO 3 reads them"
    assert figures.parameters == llama.parameters(module)
    assert figures.active_parameters == llama.parameters(module) - 2 * 2 * 3 * 32 * 48

    theirs: Any = AutoModelForCausalLM.from_pretrained(llama.fetch(job, manifest))
    tokens = torch.arange(5, 45)[None]
    with torch.no_grad():
        output = theirs(tokens, output_router_logits=True)
        torch.testing.assert_close(output.logits, module(tokens).logits, rtol=0, atol=1e-6)
    for scores in output.router_logits:
        used = scores.topk(2, -1).indices.flatten().bincount(minlength=4)
        assert bool((used > 0).all()), "every expert gets tokens"

    later = make_job("sft", MOE, "pretrain.steps=12")
    sft.run(later)
    assert len(curves(later)["balance_loss"]) == len(curves(later)["loss"])


def test_the_balancing_loss_is_part_of_what_is_learnt(make_job: Callable[..., Job]) -> None:
    """The gradients of `learn` are those of nll + coef x balance, over the parts of a batch."""
    from contract.settings.training import Engine as Settings
    from contract.settings.training import Optim
    from training.data.batch import Batch
    from training.engine.engine import Engine

    job = make_job("pretrain", MOE)
    module = llama.build(SHAPE, 50, 16, seed=1)
    tokens = torch.randint(0, 50, (4, 17), generator=torch.Generator().manual_seed(2))
    mask = torch.ones(4, 16)
    mask[0, 5:] = 0
    batch = Batch(tokens, mask, int(mask.sum()))
    reference = llama.build(SHAPE, 50, 16, seed=1)
    routing = Routing(reference)
    total = torch.zeros(())
    balances = []
    for part in batch.split(2):
        total = total + summed_nll(reference, part, torch.device("cpu")) / batch.count
        balance = routing.balance(part.mask)
        assert balance is not None
        balances.append(balance)
    (total + 0.5 * sum(balances) / 2).backward()
    engine = Engine(job, module, Optim(), Settings(micro_batch=2), 4, 10)
    shares = learn(job, engine, batch)
    assert float(shares["loss"]) == pytest.approx(total.item(), rel=1e-6)
    assert float(shares["balance_loss"]) == pytest.approx(sum(one.item() for one in balances) / 2, rel=1e-6)
    for (name, one), other in zip(engine.module.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7, msg=name)
