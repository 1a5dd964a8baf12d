"""The model as `transformers` sees it: shape, seed, saved and loaded again."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import import_utils

from contract.errors import InputError
from contract.results import Pretrain
from contract.settings.training import Engine, Model
from training import reward
from training.chat.template import open_chat
from training.engine.compiled import COMPILERS
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


def test_the_padding_token_begins_at_zero_and_norms_at_one() -> None:
    module = model.build(SHAPE, 50, 64, 0, pad=7)
    embedding = module.model.embed_tokens.weight
    assert [row for row in range(50) if not embedding[row].any()] == [7]
    assert embedding.std().item() == pytest.approx(0.02, rel=0.1)
    assert all(bool((value == 1).all()) for name, value in module.named_parameters() if "norm" in name)
    assert module.lm_head.weight is embedding


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


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ((), "sdpa"),
        (("flash_attention_2",), "flash_attention_2"),
        (("flash_attention_4",), "flash_attention_4"),
        (("flash_attention_3", "flash_attention_4"), "flash_attention_3"),
    ],
)
def test_transformers_says_which_flash_attention_there_is(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], expected: str
) -> None:
    for name in model.FLASH:
        monkeypatch.setitem(model.FLASH, name, lambda name=name: name in installed)
    llama, bloom = LlamaForCausalLM, BloomForCausalLM
    assert [model.attention(dtype, llama) for dtype in ("bf16", "fp16", "fp32")] == [expected, expected, "sdpa"]
    assert model.attention("bf16", bloom) == "eager", "it has no other"
    without = expected if installed else "flex_attention"
    assert [model.attention(dtype, llama, flex=True) for dtype in ("bf16", "fp32")] == [without, "flex_attention"]
    assert model.attention("bf16", bloom, flex=True) == "eager"


@pytest.mark.parametrize(
    ("device", "width", "compiler", "because"),
    [
        ("cuda", 64, True, None),
        ("cpu", 64, True, "FlexAttention is for GPUs"),
        ("cuda", 32, True, "FlexAttention needs heads of 16 numbers or more, and these have 8"),
        ("cuda", 64, False, f"FlexAttention must be compiled, and this machine lacks {COMPILERS}"),
    ],
)
def test_a_gpu_that_cannot_run_flex_attention_keeps_sdpa_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    device: str, width: int, compiler: bool, because: str | None,
) -> None:  # fmt: skip
    for name in model.FLASH:
        monkeypatch.setitem(model.FLASH, name, lambda: False)
    monkeypatch.setattr(model, "has_compiler", lambda ranks: compiler)
    shape = Model(layers=1, d_model=width, heads=4, kv_heads=2, d_ff=32)
    made: Any = model.build(shape, 50, 64, 0)
    ranks: Any = SimpleNamespace(device=torch.device(device), rank=0)
    assert model.why_not_flex(made.config, ranks) == because
    job: Any = SimpleNamespace(task=SimpleNamespace(stage="pretrain"), ranks=ranks)
    model.set_attention(job, made, "bf16", apart=True)
    kind = "sdpa" if because else "flex_attention"
    assert model.attention_of(made) == kind
    model.set_attention(job, made, "bf16", apart=False)
    assert model.attention_of(made) == "sdpa", "of one document in a row, SDPA needs no mask"
    said = f"pretrain: attention by {kind}" + (f", because {because}" if because else "")
    assert capsys.readouterr().out.splitlines() == [said, "pretrain: attention by sdpa"]


def test_the_size_of_a_head_is_what_its_configuration_says() -> None:
    ranks: Any = SimpleNamespace(device=torch.device("cuda"))
    config = LlamaConfig(hidden_size=64, num_attention_heads=4, head_dim=8)
    assert "these have 8" in str(model.why_not_flex(config, ranks))


def test_each_flash_attention_is_asked_for_by_the_name_of_its_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """flash-attn 2 and 4 both install a package `flash_attn`."""
    monkeypatch.setattr(import_utils, "_is_package_available", lambda name, return_version=False: (True, "4.0.0"))
    monkeypatch.setattr(import_utils, "is_torch_cuda_available", lambda: True)
    monkeypatch.setattr(import_utils, "_package_distribution_mapping", lambda: {"flash_attn": ["flash-attn-4"]})
    for name, available in list(model.FLASH.items()):
        monkeypatch.setitem(model.FLASH, name, available.__wrapped__)  # type: ignore[attr-defined]  # past the cache
    assert model.attention("bf16", LlamaForCausalLM) == "flash_attention_4"
    monkeypatch.setattr(import_utils, "_package_distribution_mapping", lambda: {"flash_attn": ["flash_attn"]})
    assert model.attention("bf16", LlamaForCausalLM) == "flash_attention_2"


@pytest.mark.parametrize("layers", [2, 8])
def test_projections_into_the_residual_stream_start_smaller_with_depth(layers: int) -> None:
    deep = model.build(SHAPE.model_copy(update={"layers": layers}), 50, 64, 0).model.layers
    spread = {
        name: torch.cat([layer.get_submodule(name).weight.flatten() for layer in deep]).std().item()
        for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "self_attn.o_proj", "mlp.down_proj")
    }
    smaller = 0.02 / math.sqrt(2 * layers)
    expected = {name: smaller if name.endswith(("o_proj", "down_proj")) else 0.02 for name in spread}
    assert spread == pytest.approx(expected, rel=0.06)


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


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_a_model_that_lacks_a_tensor_or_has_another_shape_is_refused(
    make_job: Callable[..., Job], zero_stage: int
) -> None:
    from safetensors.torch import load_file, save_file

    engine = Engine(zero_stage=zero_stage)
    norm = "model.layers.1.mlp.down_proj.weight"
    for number, changed in enumerate(({}, {norm: torch.zeros(32, 8)})):
        job = make_job("pretrain", name=f"store-{number}")
        folder = job.scratch.fresh("result")
        model.save(model.build(SHAPE, open_chat(job).vocab_size, 64, 0), folder, open_chat(job))
        tensors = load_file(folder / "model.safetensors")
        del tensors[norm]
        save_file(tensors | changed, folder / "model.safetensors", {"format": "pt"})
        job.commit(folder, Pretrain.model_construct())
        later = Job(job.attempt.run, job.attempt.run.task("sft"), job.attempt)
        said = r"has the shape \(32, 8\), not \(32, 64\)" if changed else "is missing"
        with pytest.raises(InputError, match=rf"cannot be loaded \({norm} {said}\); run pretrain again"):
            model.load_model(later, later.manifest("pretrain"), "fp32", engine)


def test_flops_and_mfu_by_hand() -> None:
    assert flops_per_token(1_000_000, 2, 32, 64) == 6e6 + 12 * 2 * 32 * 64
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA GeForce RTX 4090") is None
    assert mfu(1e5, 6e9, 989e12, 8) == pytest.approx(6e14 / (8 * 989e12))
