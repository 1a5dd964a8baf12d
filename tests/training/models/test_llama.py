"""The model as `transformers` sees it: shape, seed, saved and loaded again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from contract.errors import InputError
from contract.results import Pretrain
from contract.settings.training import Model
from training import reward
from training.chat.template import open_chat
from training.engine.job import Job
from training.engine.metrics import flops_per_token, mfu, peak_flops
from training.models import llama as model

SHAPE = Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64)
COUNT = 50 * 32 + 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 2 * 32) + 32


def test_it_has_the_parameters_of_its_shape() -> None:
    assert model.parameters(model.build(SHAPE, 50, 64, 0)) == COUNT
    untied = SHAPE.model_copy(update={"tie_embeddings": False})
    assert model.parameters(model.build(untied, 50, 64, 0)) == COUNT + 50 * 32


def test_the_seed_decides_the_weights_and_nothing_else_is_drawn() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two, three = (model.build(SHAPE, 50, 64, seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], three["model.embed_tokens.weight"])
    assert torch.equal(torch.get_rng_state(), before)


def test_later_tokens_do_not_change_earlier_logits() -> None:
    module = model.build(SHAPE, 50, 64, 0)
    tokens = torch.arange(20)[None] % 50
    changed = tokens.clone()
    changed[0, 10:] = 3
    with torch.no_grad():
        one, two = module(input_ids=tokens).logits, module(input_ids=changed).logits
    torch.testing.assert_close(one[:, :10], two[:, :10])
    assert not torch.allclose(one[:, 10:], two[:, 10:])


def test_what_is_committed_loads_the_same_here_and_in_transformers(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    chat = open_chat(job)
    module = model.build(SHAPE, chat.vocab_size, 64, 0)
    folder = job.scratch.fresh("result")
    model.save(module, folder, chat)
    tokens = torch.tensor([chat.text("The mill stands near the river.")])
    with torch.no_grad():
        expected = module(input_ids=tokens).logits
        theirs = AutoModelForCausalLM.from_pretrained(folder)
        assert torch.equal(theirs(input_ids=tokens).logits, expected)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("The mill stands near the river.")["input_ids"] == tokens[0].tolist()

    job.commit(folder, Pretrain.model_construct(seconds=1.0))
    later = Job(job.attempt.run, job.attempt.run.task("sft"), job.attempt)
    manifest = later.manifest("pretrain")
    assert {Path(file.path).name: file.kind for file in manifest.files}["metrics.jsonl"] == "metrics"
    with torch.no_grad():
        assert torch.equal(model.load_model(later, manifest)(input_ids=tokens).logits, expected)
    with pytest.raises(InputError, match="lists no model; run pack again"):
        model.load_model(later, job.manifest("pack"))


def test_flash_attention_is_for_half_precision_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (model.attention("bf16"), model.attention("fp32")) == ("flash_attention_2", "sdpa")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert model.attention("bf16") == "sdpa"


def test_a_model_file_that_was_cut_short_is_said(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    folder = job.scratch.fresh("result")
    model.save(model.build(SHAPE, open_chat(job).vocab_size, 64, 0), folder, open_chat(job))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    job.commit(folder, Pretrain.model_construct())
    later = Job(job.attempt.run, job.attempt.run.task("sft"), job.attempt)
    for load in (model.load_model, reward.load_reward_model):
        with pytest.raises(InputError, match=r"cannot be loaded .* run (pretrain|reward) again"):
            load(later, later.manifest("pretrain"))


def test_flops_and_mfu_by_hand() -> None:
    assert flops_per_token(1_000_000, 2, 32, 64) == 6e6 + 12 * 2 * 32 * 64
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA GeForce RTX 4090") is None
    assert mfu(1e5, 6e9, 989e12, 8) == pytest.approx(6e14 / (8 * 989e12))
