"""Causal models of many types: trained as a plain loop trains them, sampled with a cache, judged and saved."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from contract.manifest import need
from contract.results import Ppo, Pretrain
from tests.training.conftest import train_tokenizer
from training import export, pretrain
from training.chat.template import open_chat
from training.data.batch import Batch
from training.engine.job import Job
from training.engine.optimizers import decay_groups
from training.engine.schedule import lr_at
from training.models import llama, vocabulary
from training.models.causal import adapted, class_of, read_config
from training.models.documents import added, numbers
from training.reward import RewardModel, last, load_reward_model
from training.rollout import generate, left_pad, response_logits, row_seed

COMMON = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**COMMON, "num_key_value_heads": 2}
TYPES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "gpt_neox": {**COMMON, "hidden_dropout": 0.1, "attention_dropout": 0.1},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "hidden_dropout": 0.1},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "opt": {**COMMON, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "mixtral": {**GROUPED, "num_local_experts": 4, "router_aux_loss_coef": 0.0},
}


def config_of(kind: str, vocab_size: int, **other: Any) -> Any:
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1, "initializer_range": 0.1}
    return AutoConfig.for_model(kind, vocab_size=vocab_size, **{**special, **TYPES[kind], **other})


def folder_of(kind: str, folder: Path, vocab_size: int) -> Path:
    """A model of random weights, as transformers writes it."""
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(config_of(kind, vocab_size)).save_pretrained(folder)
    return folder


def documents_of(batch: Batch, row: int) -> list[tuple[Tensor, Tensor]]:
    """(tokens, mask of what is predicted) of each document of a row, alone."""
    assert batch.positions is not None
    starts = [*(batch.positions[row] == 0).nonzero().flatten().tolist(), batch.positions.shape[1]]
    return [(batch.tokens[row, first : end + 1], batch.mask[row, first:end]) for first, end in pairwise(starts)]


def plain_losses(module: nn.Module, batches: list[Batch], settings: Any) -> list[float]:
    """The losses of a loop that runs each document alone, with no padding and no mask, and torch's own optimizer."""
    optim = settings.optim
    groups = decay_groups(module.parameters(), optim.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas)
    found = []
    for step, batch in enumerate(batches):
        loss = torch.zeros(())
        for row in range(len(batch.tokens)):
            for tokens, mask in documents_of(batch, row):
                logits = module(input_ids=tokens[None, :-1], use_cache=False).logits[0]
                each = nn.functional.cross_entropy(logits, tokens[1:], reduction="none")
                loss = loss + (each * mask).sum() / batch.count
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), optim.clip)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, settings.steps, optim)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("kind", TYPES)
def test_two_steps_of_pretraining_are_those_of_a_plain_loop(
    kind: str, make_job: Callable[..., Job], tmp_path: Path, curves: Callable[[Job], dict[str, list[tuple[int, float]]]]
) -> None:
    folder = folder_of(kind, tmp_path / kind, 384)
    job = make_job("pretrain", f"pretrain.start_from={folder}", "pretrain.steps=2", "pretrain.eval_sequences=4")
    (folder / "tokenizer.json").write_bytes(open_chat(job).path.read_bytes())
    job = make_job(
        "pretrain", f"pretrain.start_from={folder}", "pretrain.steps=2", "pretrain.eval_sequences=4",
        f"pretrain.engine.activation_checkpointing={str(kind in ('bloom', 'mixtral')).lower()}",
    )  # fmt: skip
    with pretrain._draws(job).stream(job.ranks, 0) as stream:
        batches = [next(stream) for _ in range(2)]
    assert any(len(documents_of(batch, row)) > 1 for batch in batches for row in range(8))
    start = AutoModelForCausalLM.from_pretrained(folder).eval()  # without dropout
    expected = plain_losses(start, batches, job.settings)

    pretrain.run(job)
    found = curves(job)
    assert [value for _, value in found["loss"]] == pytest.approx(expected, rel=1e-5)
    assert ("balance_loss" in found) == (kind == "mixtral")
    manifest = need(job.store, job.task)
    figures = Pretrain.of(manifest)
    assert figures.parameters == sum(one.numel() for one in start.parameters())
    idle = 2 * 3 * 64 * 32 * 2 if kind == "mixtral" else 0  # of each of two layers two of four experts
    assert figures.active_parameters == figures.parameters - idle
    committed = llama.load_model(job, manifest)
    assert type(committed) is type(start)
    tokens = torch.arange(10, 30)[None]
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(llama.fetch(job, manifest)).eval()
        torch.testing.assert_close(theirs(tokens).logits, committed.eval()(tokens).logits, rtol=0, atol=0)
        torch.testing.assert_close(theirs(tokens).logits, start(tokens).logits, rtol=1e-3, atol=1e-3)


@pytest.fixture(params=TYPES)
def module(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(5)
    config = config_of(request.param, 50, initializer_range=0.3)
    kind = class_of(config)
    config._attn_implementation = llama.attention("fp32", kind)
    return adapted(kind(config)).eval()


def test_every_type_is_sampled_with_its_cache_as_a_whole_pass_says(module: Any) -> None:
    prompts, seeds = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9]], [row_seed(1, row) for row in range(3)]
    together = generate(module, prompts, seeds, 12, end_of_text=0)
    for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        alone = generate(module, [prompt], [seed], 12, end_of_text=0)
        assert alone.texts()[0] == together.texts()[row], "padding on the left moves nothing"
        whole = response_logits(module, alone.tokens, alone.attention, alone.mask.shape[1])
        bare = module(input_ids=alone.tokens).logits[:, len(prompt) - 1 : -1]
        torch.testing.assert_close(whole, bare, rtol=1e-4, atol=1e-4)


def test_a_reward_model_of_every_type_is_saved_and_loaded(
    module: Any, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    judge = RewardModel(module.base_model, seed=1).eval()
    judge.save_pretrained(tmp_path)
    job = make_job("pretrain")
    monkeypatch.setattr(llama, "fetch", lambda *_: tmp_path)
    loaded = load_reward_model(job, job.manifest("pack")).eval()
    tokens, attention = left_pad([[5, 6, 7], [3, 4, 5, 6, 7, 8]], 1, "cpu")
    with torch.no_grad():
        expected = last(judge(tokens, attention), attention)
        assert torch.equal(last(loaded(tokens, attention), attention), expected)
        alone, seen = left_pad([[5, 6, 7]], 1, "cpu")
        torch.testing.assert_close(last(judge(alone, seen), seen), expected[:1], rtol=1e-4, atol=1e-5)


def test_nothing_in_a_model_is_random_once_its_configuration_is_read(tmp_path: Path) -> None:
    folder_of("gpt_neox", tmp_path, 50)
    assert json.loads((tmp_path / "config.json").read_text())["hidden_dropout"] == 0.1
    config = read_config(tmp_path)
    assert (config.hidden_dropout, config.attention_dropout, config.layer_norm_eps) == (0.0, 0.0, 1e-5)
    module = class_of(config)(config).train()
    tokens = torch.arange(20)[None]
    assert torch.equal(module(tokens).logits, module(tokens).logits)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "mamba"}, "a model of type 'mamba', which has no key-value cache to sample with"),
        ({"model_type": "t5"}, "a model of type 't5', of which transformers knows no causal language model"),
        ({"model_type": "bart"}, "a model of type 'bart', which is no plain decoder of text"),
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}},
            "a model of type 'llama' with quantized weights, which cannot be trained",
        ),
    ],
)
def test_what_cannot_be_trained_and_sampled_is_refused(config: dict[str, Any], why: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(vocabulary.InputError, match=f"uri is {why}"):
        vocabulary.check_folder(tmp_path, "uri")


def test_code_beside_a_model_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("open('ran', 'w')")
    for kind in ("evil", "llama"):
        described = {
            "model_type": kind,
            "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        }
        (tmp_path / "config.json").write_text(json.dumps(described))
        with pytest.raises(vocabulary.InputError, match=r"transformers does not know; code|has no .*safetensors"):
            vocabulary.check_folder(tmp_path, "uri")


def test_a_mask_of_documents_by_hand() -> None:
    low = torch.finfo(torch.float32).min
    found = added(numbers(torch.tensor([[0, 1, 0]])), torch.float32)
    assert found.tolist() == [[[[0, low, low], [0, 0, low], [low, low, 0]]]]


def test_a_bloom_goes_through_the_whole_chain(align: Callable[..., Job], tmp_path: Path) -> None:
    folder = folder_of("bloom", tmp_path / "bloom", 384)
    (folder / "tokenizer.json").write_bytes(train_tokenizer().to_str().encode())
    fewer = ("pretrain.steps=4", "reward.epochs=1", "gate.min_accuracy=0", "ppo.steps=1", "sft.batch=16")
    job = align("export", f"pretrain.start_from={folder}", *fewer)
    export.run(job)
    exported = [job.scratch.download(file) for file in need(job.store, job.task).of("export")]
    loaded = AutoModelForCausalLM.from_pretrained(exported[0].parent).eval()
    assert type(loaded).__name__ == "BloomForCausalLM"
    ours = llama.load_model(job, job.manifest("ppo")).eval()
    tokens = torch.arange(10, 30)[None]
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, ours(tokens).logits)
    assert Ppo.of(job.manifest("ppo")).reward_first is not None
