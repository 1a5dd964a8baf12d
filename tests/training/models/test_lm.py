"""Documents of one row neither see nor predict each other: packed equals unpacked, and without boundaries it does not."""

import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers.integrations.flex_attention as flex
import transformers.modeling_flash_attention_utils as flash
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from contract.settings.training import Model
from tests.training.dispatched import Largest
from training import loss
from training.data.batch import Batch, Row, collate
from training.engine.pipeline import Lent
from training.engine.ranks import Ranks
from training.loss import log_probs
from training.models import llama
from training.models.lm import PLAIN_HEADS, heldout_loss, next_logits, plain_head, summed_nll, token_nll

CPU = torch.device("cpu")
SEQ_LEN = 40
LENGTHS = (11, 1, 17, 9)  # three tokens short of a whole row


@pytest.fixture(params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest) -> Any:
    made = llama.build(Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64), 97, SEQ_LEN, seed=0)
    made.set_attn_implementation(request.param)
    return made


def documents(seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 97, length) for length in LENGTHS]


def packed(*rows: list[np.ndarray], boundaries: bool = True) -> Batch:
    starts = np.cumsum((0, *LENGTHS))[:-1]
    return collate([Row(np.concatenate(row), starts) for row in rows], SEQ_LEN, boundaries)


@torch.no_grad()
def test_a_document_moves_no_logit_of_its_neighbours(model: Any) -> None:
    one, two = documents(1), documents(2)
    for changed in range(len(LENGTHS)):
        other = [*one]
        other[changed] = two[changed]
        begins, ends = sum(LENGTHS[:changed]), sum(LENGTHS[: changed + 1])
        outside = [at for at in range(SEQ_LEN) if not begins <= at < ends]
        before, after = (next_logits(model, packed(two, some), CPU) for some in (one, other))
        assert (before - after)[:, outside].abs().max() == 0.0
        assert (before - after)[1, begins:ends].abs().max() > 0.01
        if changed < 2:
            before, after = (next_logits(model, packed(two, some, boundaries=False), CPU) for some in (one, other))
            assert (before - after)[1, ends:].abs().max() > 0.01, "without boundaries they see each other"


@pytest.mark.parametrize("boundaries", [True, False])
def test_packed_rows_learn_what_their_documents_alone_would_teach(model: Any, boundaries: bool) -> None:
    rows = [documents(1), documents(2)]
    batch = packed(*rows, boundaries=boundaries)
    alone = [
        collate([Row(one, np.zeros(1, int))], max(len(one) - 1, 1), boundaries=False) for row in rows for one in row
    ]
    nll = token_nll(model, batch, CPU) * batch.mask
    (summed_nll(model, batch, CPU) / batch.count).backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    count = sum(one.count for one in alone)
    expected = [token_nll(model, one, CPU) * one.mask for one in alone]
    (sum(summed_nll(model, one, CPU) for one in alone) / count).backward()
    differences = [
        float((got - parameter.grad).abs().max() / parameter.grad.abs().max())
        for got, parameter in zip(found, model.parameters(), strict=True)
    ]
    if boundaries:
        assert batch.count == count == 2 * (sum(LENGTHS) - len(LENGTHS))
        losses = torch.cat([one[one > 0] for one in expected])
        assert torch.allclose(nll[batch.mask > 0], losses, rtol=2e-6, atol=0)
        assert max(differences) < 5e-6
    else:
        assert batch.count == 2 * (sum(LENGTHS) - 1)
        assert max(differences) > 0.1


def uncompiled(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, training: bool, **given: Any) -> Any:
    """FlexAttention as it is, because to compile it takes a minute."""
    return flex_attention(query, key, value, **given)


@torch.no_grad()
def test_flex_attention_gets_the_documents_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    made = llama.build(Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64), 97, SEQ_LEN, seed=0)
    batch = packed(documents(1), documents(2))
    expected = next_logits(made, batch, CPU)
    monkeypatch.setattr(flex, "compile_friendly_flex_attention", uncompiled)
    made.set_attn_implementation("flex_attention")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled
        assert torch.allclose(next_logits(made, batch, CPU), expected, atol=1e-6)
        first = documents(3)[:1]
        changed = packed([*first, *documents(1)[1:]], documents(2))
        moved = (next_logits(made, changed, CPU) - expected).abs().amax(-1)
    assert moved[0, : LENGTHS[0]].min() > 1e-4
    assert moved[0, LENGTHS[0] :].max() < 1e-6
    assert moved[1].max() < 1e-6


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 2)])
def test_flex_attention_has_the_gradients_of_sdpa(monkeypatch: pytest.MonkeyPatch, heads: int, kv_heads: int) -> None:
    """By torch's own formula of its derivative, not compiled. transformers repeats keys where heads are no power of 2.

    On a CPU torch refuses derivatives of FlexAttention, because it compiles none there; the formula holds all the same.
    """
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *given: None)
    shape = Model(layers=2, d_model=8 * heads, heads=heads, kv_heads=kv_heads, d_ff=64)
    made = llama.build(shape, 97, SEQ_LEN, seed=0)
    batch = packed(documents(1), documents(2))
    monkeypatch.setattr(flex, "compile_friendly_flex_attention", uncompiled)
    found = []
    for kind in ("sdpa", "flex_attention"):
        made.set_attn_implementation(kind)
        made.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not compiled
            total = summed_nll(made, batch, CPU) / batch.count
            total.backward()
        found.append({"loss": total.detach()} | {name: one.grad for name, one in made.named_parameters()})
    for name, own in found[0].items():
        assert torch.allclose(found[1][name], own, rtol=1e-4, atol=1e-6), name
    assert all(one.abs().max() > 1e-4 for one in found[0].values()), "nothing is compared with zeros"


def joined(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **known: Any) -> torch.Tensor:
    """What flash-attn computes of joined sequences: q, k, v (tokens, heads, dimension)."""
    assert known["causal"]
    assert known["cu_seqlens_k"] is known["cu_seqlens_q"]
    lengths = known["cu_seqlens_q"].diff()
    assert known["max_seqlen_q"] == known["max_seqlen_k"] == int(lengths.max()), "the length that it makes room for"
    parts = zip(*(one.transpose(0, 1)[None].split(lengths.tolist(), 2) for one in (q, k, v)), strict=True)
    return torch.cat(
        [scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True)[0] for part in parts], 1
    ).transpose(0, 1)


def whole_rows(*_: Any, **__: Any) -> torch.Tensor:
    pytest.fail("documents would see each other")


@torch.no_grad()
def test_flash_attention_gets_the_documents_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes here as flash-attn does, on the CPU. From positions alone it would split a batch of one row only."""
    made = llama.build(Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64), 97, SEQ_LEN, seed=0)
    batch = packed(documents(1), documents(2))
    expected = next_logits(made, batch, CPU)

    def options(is_causal: bool, query_length: int, key_length: int, **known: Any) -> dict[str, Any]:
        return {"causal": is_causal, **known}

    functions = ((whole_rows, joined, None, None, None), (options, None))
    monkeypatch.setattr(flash, "lazy_import_flash_attention", lambda implementation: functions)
    made.config._attn_implementation = "flash_attention_2"
    assert torch.allclose(next_logits(made, batch, CPU), expected, atol=1e-6)
    with pytest.raises(pytest.fail.Exception, match="documents would see each other"):
        made(input_ids=batch.tokens[:, :-1], position_ids=batch.positions, use_cache=False)


def test_held_out_losses_are_those_of_each_source(model: Any) -> None:
    batch = packed(*(documents(seed) for seed in range(5)))
    lengths = np.arange(97)
    alone = [heldout_loss(job_alone(), model, [batch.rows(slice(row, row + 1))], 1, lengths)[""] for row in range(5)]
    numbered = replace(batch, sources=torch.tensor([2, 0, 2, 2, 0]))
    found = heldout_loss(job_alone(), model, [numbered], 2, lengths, ["code", "books", "crawl"])
    assert list(found) == ["code", "crawl"], "nothing of books is predicted"
    for source, rows in (("code", (1, 4)), ("crawl", (0, 2, 3))):
        assert found[source].nll == pytest.approx(sum(alone[row].nll for row in rows), rel=1e-6)
        assert (found[source].tokens, found[source].bytes) == (
            sum(alone[row].tokens for row in rows),
            sum(alone[row].bytes for row in rows),
        )


def job_alone() -> Any:
    return SimpleNamespace(ranks=Ranks())


SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
OTHERS = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}}


@pytest.mark.parametrize("model_type", sorted(PLAIN_HEADS | {"cohere", "phi", "granite"}))
def test_the_loss_of_each_kind_of_model_is_that_of_its_logits(model_type: str) -> None:
    """Of those whose logits are more than a product, such as Cohere's, which are scaled, also."""
    torch.manual_seed(0)
    said = {**SMALL, **OTHERS.get(model_type, {}), "logits_scaling": 8.0}
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **said))
    assert (plain_head(made) is not None) == (model_type in PLAIN_HEADS)
    batch = packed(documents(1), documents(2), boundaries=False)
    nll = -log_probs(next_logits(made, batch, CPU), batch.tokens[:, 1:])
    (nll * batch.mask).sum().backward()
    expected = {name: one.grad.clone() for name, one in made.named_parameters()}
    made.zero_grad()
    assert torch.allclose(token_nll(made, batch, CPU), nll, rtol=1e-5, atol=1e-6)
    found = summed_nll(made, batch, CPU)
    found.backward()
    assert found.item() == pytest.approx((nll * batch.mask).sum().item(), rel=1e-5)
    for name, one in made.named_parameters():
        assert torch.allclose(one.grad, expected[name], rtol=1e-4, atol=1e-4), name
    assert next_logits(made, batch, CPU).shape[-1] == 97, "the head gives logits again"


def test_training_and_measuring_never_hold_a_batch_s_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", {"cpu": 4 * 5000})
    made = llama.build(Model(layers=1, d_model=8, heads=1, kv_heads=1, d_ff=8), 5000, SEQ_LEN, seed=0)
    batch = packed(documents(1), documents(2))
    for measure in (lambda: summed_nll(made, batch, CPU).backward(), lambda: token_nll(made, batch, CPU)):
        with Largest() as largest:
            measure()
        assert largest.bytes == max(4 * 5000 * 8, 4 * 5000 * 4), "no more than the embeddings, or four tokens' logits"


def test_a_lent_head_learns_as_one_of_its_own_and_never_holds_a_batch_s_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", {"cpu": 4 * 5000})
    shape = Model(layers=1, d_model=8, heads=1, kv_heads=1, d_ff=8, tie_embeddings=False)
    made = llama.cast(llama.build(shape, 5000, SEQ_LEN, seed=0), "bf16")
    batch = packed(documents(1), documents(2))
    expected, measured = summed_nll(made, batch, CPU), token_nll(made, batch, CPU)
    expected.backward()
    own = made.lm_head.weight
    made.lm_head = Lent()
    made.lm_head.weight = own.detach().float().requires_grad_()
    with Largest() as largest:
        found = summed_nll(made, batch, CPU)
        found.backward()
    assert found.item() == expected.item()
    assert torch.equal(made.lm_head.weight.grad, own.grad.float())
    assert torch.equal(token_nll(made, batch, CPU), measured)
    assert largest.bytes == 5000 * 8 * 4, "the lent weights; all logits would take 80 x 5,000 x 2"


def test_a_head_that_failed_gives_logits_again() -> None:
    made = llama.build(Model(layers=1, d_model=8, heads=1, kv_heads=1, d_ff=8), 97, SEQ_LEN, seed=0)
    batch = packed(documents(1))
    with pytest.raises(IndexError):
        token_nll(made, replace(batch, tokens=batch.tokens + 97), CPU)
    assert next_logits(made, batch, CPU).shape == (1, SEQ_LEN, 97)
