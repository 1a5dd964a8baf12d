"""Distillation: which teachers are refused, and that a student learns its teacher's distribution."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from contract.errors import DamagedError, InputError
from contract.manifest import need
from contract.settings.training import Model
from training import pretrain
from training.chat.template import open_chat
from training.data.reading import TokenData
from training.engine.job import Job
from training.loss import kl_divergence
from training.models import llama
from training.models.lm import next_logits
from training.models.teacher import open_teacher

SHAPE = Model(layers=1, d_model=16, heads=2, kv_heads=1, d_ff=32)
KEY = r"pretrain\.distill\.teacher: "


@pytest.fixture
def folder(make_job: Callable[..., Job], tmp_path: Path) -> Path:
    """A teacher with the run's tokenizer."""
    chat = open_chat(make_job("pretrain"))
    made = tmp_path / "teacher"
    llama.save(llama.build(SHAPE, chat.vocab_size, 64, seed=5), made, chat)
    return made


def test_a_teacher_is_frozen_and_computes_in_the_dtype_of_the_recipe(
    make_job: Callable[..., Job], folder: Path
) -> None:
    job = make_job("pretrain", f"pretrain.distill={{teacher: {folder}, weight: 0.25}}", "pretrain.engine.dtype=bf16")
    teacher = open_teacher(job, open_chat(job))
    assert teacher is not None
    assert (teacher.weight, teacher.temperature) == (0.25, 2.0)
    assert {one.dtype for one in teacher.module.parameters()} == {torch.bfloat16}
    assert not any(one.requires_grad for one in teacher.module.parameters())
    assert not teacher.module.training
    assert open_teacher(make_job("pretrain"), open_chat(job)) is None


def test_what_cannot_teach_is_refused(make_job: Callable[..., Job], folder: Path, tmp_path: Path) -> None:
    job = make_job("pretrain", f"pretrain.distill.teacher={folder}")
    chat = open_chat(job)

    def refused(said: str) -> None:
        with pytest.raises(InputError, match=KEY + said):
            open_teacher(job, chat)

    llama.save(llama.build(SHAPE, chat.vocab_size, 32, seed=5), folder, chat)
    refused(".* was made for 32 tokens, and rows have 64; bring a teacher for longer")
    llama.save(llama.build(SHAPE, chat.vocab_size - 1, 64, seed=5), folder, chat)
    refused(".* has 383 embeddings for 384 tokens")
    (folder / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    refused(".* is a model of type 'mamba'")
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["added_tokens"][3]["content"] = "<other>"
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    refused(
        r".* has another vocabulary \('.*' has the id (3|None) there and (3|None) here\), so its logits are of other"
    )
    (folder / "tokenizer.json").unlink()
    refused(".* has no tokenizer.json, which says what its logits are of")


def test_a_teacher_may_be_of_any_type_that_sees_what_the_student_may(
    make_job: Callable[..., Job], tmp_path: Path
) -> None:
    """Neither type names a longest sequence."""
    shape = {"hidden_size": 32, "d_model": 32, "n_layers": 1, "n_layer": 1, "n_heads": 4, "n_head": 4}
    chat = open_chat(make_job("pretrain"))
    for kind, refused in (("bloom", False), ("mpt", True)):
        folder = tmp_path / kind
        config = AutoConfig.for_model(kind, vocab_size=chat.vocab_size, initializer_range=0.1, **shape)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        (folder / "tokenizer.json").write_bytes(chat.path.read_bytes())
        job = make_job("pretrain", f"pretrain.distill.teacher={folder}")
        if refused:
            with pytest.raises(
                InputError, match=KEY + "a model of type 'mpt' cannot keep the documents of a row apart"
            ):
                open_teacher(job, chat)
            job = make_job("pretrain", f"pretrain.distill.teacher={folder}", "pretrain.boundaries=false")
        assert open_teacher(job, chat) is not None


def heldout_kl(job: Job, teacher: Any, student: Any) -> float:
    data = TokenData(job, "heldout_tokens", 64)  # type: ignore[arg-type]
    batch = data.rows(data.sample(16))
    with torch.no_grad():
        one, two = (next_logits(model, batch, torch.device("cpu")) for model in (teacher, student))
    return float((kl_divergence(one, two) * batch.mask).sum() / batch.mask.sum())


def test_a_student_comes_nearer_to_its_teacher_than_the_text_alone_brings_it(
    make_job: Callable[..., Job], curves: Callable[[Job], dict[str, list[tuple[int, float]]]]
) -> None:
    """The teacher is a committed result, named by its manifest."""
    first = make_job("pretrain", "pretrain.steps=8")
    pretrain.run(first)
    manifest = need(first.store, first.task)
    named = f"pretrain.distill={{teacher: {first.store.full(manifest.path)}, weight: 0.9, temperature: 1}}"
    taught = make_job("pretrain", "pretrain.seed=1", "pretrain.steps=8", named)
    alone = make_job("pretrain", "pretrain.seed=1", "pretrain.steps=8")
    assert taught.task.fingerprint != alone.task.fingerprint
    assert list(taught.task.identity.outside) == ["pretrain.distill.teacher"]
    for job in (taught, alone):
        pretrain.run(job)
    teacher = llama.load_model(first, manifest)
    apart = [heldout_kl(first, teacher, llama.load_model(job, need(job.store, job.task))) for job in (taught, alone)]
    assert apart[0] < 0.75 * apart[1]
    found = curves(taught)
    assert [step for step, _ in found["distill_kl"]] == list(range(1, 9))
    assert found["distill_kl"][-1][1] < 0.5 * found["distill_kl"][0][1]
    assert found["loss"][0] == curves(alone)["loss"][0], "the loss is the nll of the text, whoever teaches"
    assert "distill_kl" not in curves(alone)

    (file,) = [one for one in manifest.files if one.path.endswith("/config.json")]
    path = first.store.local(file.path)
    committed = path.read_text()
    path.write_text(committed.replace("0", "1", 1))
    with pytest.raises(InputError, match=KEY + "config.json of .* is not the file that was committed"):
        open_teacher(taught, open_chat(taught))
    path.write_text(committed + "\n")
    with pytest.raises(DamagedError, match=r"config\.json: has .* bytes were committed"):
        open_teacher(taught, open_chat(taught))
