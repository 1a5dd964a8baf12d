"""Any model is opened with its own tokenizer and chat template: results, steps, and folders of transformers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from contract.conversation import Turn
from contract.errors import InputError, NotReadyError
from contract.identity import Input
from contract.manifest import need, read
from tests.training.conftest import train_tokenizer
from training.engine.job import Job
from training.models import llama as model
from training.models import opened

CPU = torch.device("cpu")
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}[bot]{% endif %}"


def folder_of_transformers(folder: Path, template: str | None = TEMPLATE) -> Path:
    """A tiny model with a tokenizer and a chat template that are not ours."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(400), eos_token="<|endoftext|>", chat_template=template
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_folder_brings_its_own_tokenizer_and_template(tmp_path: Path) -> None:
    folder = folder_of_transformers(tmp_path / "theirs")
    found = opened.open_folder(folder, "/models/theirs/", "benchmark.others.x", "fp32", CPU)
    assert found.made_by == "folder theirs"
    assert not found.module.training
    assert not any(one.requires_grad for one in found.module.parameters())
    turns = (Turn("user", "Hi"), Turn("assistant", "Yes"), Turn("user", "So?"))
    ids = found.wording.dialogue(turns, 100)
    assert found.wording.decode(ids) == "[user] Hi [assistant] Yes [user] So? [bot]"


def test_a_folder_without_a_model_or_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"benchmark\.others\.x: empty has no readable config\.json"):
        opened.open_folder(tmp_path / "empty", "empty", "benchmark.others.x", "fp32", CPU)
    folder = folder_of_transformers(tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="tokenizer"):
        opened.open_folder(folder, "bare", "benchmark.others.x", "fp32", CPU)


def test_a_result_has_the_runs_tokenizer_and_its_weights(align: Callable[..., Job]) -> None:
    job = align("reward")
    made = job.manifest("sft")
    found = opened.open_result(job.scratch, made, "fp32", CPU)
    direct = model.load_model(job, made).eval()
    ids = torch.tensor([found.wording.bare("The river")])
    with torch.no_grad():
        assert torch.equal(found.module(ids).logits, direct(ids).logits)
    assert found.made_by == f"sft/{made.fingerprint}"
    assert found.wording.decode(found.wording.bare("The river")) == "The river"


def test_a_result_without_a_model_is_refused(align: Callable[..., Job]) -> None:
    job = align("ppo")
    with pytest.raises(InputError, match="lists no model; run gate again"):
        opened.open_result(job.scratch, job.manifest("gate"), "fp32", CPU)


def test_a_step_that_was_not_kept_is_named(align: Callable[..., Job]) -> None:
    job = align("sft")
    with pytest.raises(NotReadyError, match="step-00000001: there is no checkpoint of this step"):
        opened.open_step(job.store, job.task.of("pretrain")[0].fingerprint, 1)


def test_a_step_of_a_model_whose_result_is_gone_is_refused(
    align: Callable[..., Job], make_run: Callable[..., object]
) -> None:
    job = align("sft", "pretrain.seed=4", "pretrain.engine={micro_batch: 4, checkpoint_steps: 20, keep_every: 20}")
    fingerprint = job.task.of("pretrain")[0].fingerprint
    step = opened.open_step(job.store, fingerprint, 20)
    assert opened.open_result(job.scratch, step, "fp32", CPU).made_by == f"pretrain/{fingerprint}/step-00000020"
    shard = next(file for file in step.files if file.path.endswith(".safetensors") and "shard" in file.path)
    content = job.store.read_bytes(shard.path)
    job.store.write_bytes(shard.path, bytes(len(content)))
    with pytest.raises(InputError, match="its model cannot be read"):
        opened.open_result(job.scratch, step, "fp32", CPU)
    job.store.write_bytes(shard.path, content)
    place = f"pretrain/{fingerprint}/all"
    kept = job.store.read_bytes(f"{place}/manifest.json")
    job.store.delete(f"{place}/manifest.json")
    with pytest.raises(NotReadyError):
        opened.open_result(job.scratch, step, "fp32", CPU)
    job.store.write_bytes(f"{place}/manifest.json", kept)
    assert need(job.store, Input(stage="pretrain", partition="all", fingerprint=fingerprint)) == read(job.store, place)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"/s/sft/{'a' * 40}/all/manifest.json", ("/s", f"sft/{'a' * 40}/all")),
        (f"s3://b/p/pretrain/{'a' * 40}/step-00000010/manifest.json", ("s3://b/p", f"pretrain/{'a' * 40}/step-00000010")),
        (f"/s/sft/{'a' * 40}/all", ("/s", f"sft/{'a' * 40}/all")),
        (f"/s/sft/{'a' * 40}/all/", ("/s", f"sft/{'a' * 40}/all")),
        (f"/s/export/{'a' * 40}/all/attempt-1", None),
        ("/models/mine", None),
        ("/models/manifest.json", None),
    ],
)  # fmt: skip
def test_the_uri_of_a_result_is_told_from_a_folder_of_transformers(text: str, found: tuple[str, str] | None) -> None:
    match = opened.RESULT.fullmatch(text)
    assert (match and (match["store"], match["prefix"])) == found
