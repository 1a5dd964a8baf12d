"""The model that fills blanks: what sees what, and that what is committed is a LLaMA."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from contract.settings.training import Blanks, Model
from training.chat.template import open_chat
from training.data.batch import Batch, Row
from training.data.blanks import Infilling, collate
from training.engine.job import Job
from training.models import llama
from training.models.infilling import span_inputs, visible
from training.models.lm import next_logits

CPU = torch.device("cpu")
SHAPE = Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64)
LONGEST, LENGTH = 6, 65


@pytest.fixture
def module() -> Any:
    return llama.build(SHAPE, 97, LENGTH, seed=0, span_places=Blanks(longest_span=LONGEST).places).eval()


def batch_of(boundaries: bool = True) -> Batch:
    """Two rows of 65 tokens: one full, of three documents; one that is padded."""
    made = Infilling(Blanks(share=0.3, longest_span=LONGEST), 0, 94, 95, 96, boundaries)
    random = np.random.default_rng(0)
    rows = [Row(random.integers(1, 90, LENGTH), np.array([0, 20, 33])), Row(random.integers(1, 90, 30), np.array([0]))]
    return collate([made.row(row, LENGTH, 0, number) for number, row in enumerate(rows)])


def changed(module: Any, batch: Batch, row: int, at: int) -> torch.Tensor:
    """Where another token at a place moves the logits of its row, (T,)."""
    tokens = batch.tokens.clone()
    tokens[row, at] = (tokens[row, at] + 7) % 90
    other = replace(batch, tokens=tokens)
    with torch.no_grad():
        before, after = next_logits(module, batch, CPU), next_logits(module, other, CPU)
    assert torch.equal(before[1 - row], after[1 - row])
    return (before[row] - after[row]).abs().amax(-1) > 1e-6


@pytest.mark.parametrize("boundaries", [True, False])
def test_a_span_sees_the_context_and_what_stands_before_it_and_the_context_sees_itself_whole(
    module: Any, boundaries: bool
) -> None:
    batch = batch_of(boundaries)
    assert batch.places is not None
    assert batch.documents is not None
    spans = (batch.places[0, 1:] == 1).sum()
    assert spans > 3
    for at in range(LENGTH - 1):
        place, document = batch.places[0, at], batch.documents[0, at]
        alike = batch.documents[0] == document
        later = torch.arange(LENGTH - 1) >= at
        expected = alike & ((place == 0) | ((batch.places[0] > 0) & later))
        assert torch.equal(changed(module, batch, 0, at), expected), at
    assert len(set(batch.documents[0].tolist()) - {-1}) == (3 if boundaries else 1)


def test_padding_is_seen_by_nothing_and_has_finite_logits(module: Any) -> None:
    batch = batch_of()
    assert batch.documents is not None
    padded = batch.documents[1] == -1
    assert 0 < padded.sum() < 40
    assert not batch.mask[1][padded].any()
    assert next_logits(module, batch, CPU).isfinite().all()
    last = int(padded.nonzero()[-1])
    assert not changed(module, batch, 1, last)[~padded].any()


def test_no_copy_of_a_batch_holds_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    copied, to = [], torch.Tensor.to

    def noted(self: torch.Tensor, *where: Any, **how: Any) -> torch.Tensor:
        copied.append(how)
        return to(self, *where, **how)

    batch = batch_of()
    monkeypatch.setattr(torch.Tensor, "to", noted)
    known = span_inputs(batch, CPU)
    assert copied == [{"non_blocking": True}] * 3
    assert known["position_ids"].equal(batch.positions)
    assert known["places"].equal(batch.places)


def test_who_sees_whom_by_hand() -> None:
    places = torch.tensor([[0, 0, 1, 2, 1, 0]])
    documents = torch.tensor([[0, 0, 0, 0, 0, -1]])
    assert visible(places, documents)[0, 0].int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_both_positions_move_what_a_span_says(module: Any) -> None:
    batch = batch_of()
    assert batch.places is not None
    assert batch.positions is not None
    inside = (batch.places[0] > 0).nonzero()[-1]
    before = next_logits(module, batch, CPU)[0, inside]
    for name in ("positions", "places"):
        moved = getattr(batch, name).clone()
        moved[0, inside] += 1
        other = replace(batch, **{name: moved})
        assert not torch.allclose(next_logits(module, other, CPU)[0, inside], before), name


def test_the_context_has_no_place_and_never_gets_one(module: Any) -> None:
    weight = module.span_places.weight
    assert weight.shape == (LONGEST + 3, 32)
    assert not weight[0].any()
    assert weight[1:].std().item() == pytest.approx(0.02, rel=0.2)
    next_logits(module, batch_of(), CPU).square().sum().backward()
    assert not weight.grad[0].any()
    assert weight.grad[1:4].any(1).all()


def test_what_is_committed_is_a_llama_with_the_places_beside_it(make_job: Callable[..., Job], tmp_path: Path) -> None:
    chat = open_chat(make_job("pretrain"))
    module = llama.build(SHAPE, chat.vocab_size, LENGTH, seed=0, span_places=9).eval()
    assert {*chat.blanks().values()} < {*range(chat.vocab_size)}
    llama.save(module, tmp_path, chat)
    assert torch.equal(load_file(tmp_path / "span_places.safetensors")["span_places.weight"], module.span_places.weight)
    assert "span_places" not in (tmp_path / "config.json").read_text()
    theirs, found = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = torch.arange(40)[None]
    assert torch.equal(theirs(input_ids=tokens).logits, module(input_ids=tokens).logits), "from left to right"
    zeros = torch.zeros_like(tokens)
    assert torch.equal(module(input_ids=tokens, places=zeros).logits, theirs(input_ids=tokens).logits)
