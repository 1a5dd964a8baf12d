"""The exported folder, opened as a stranger would: by transformers' Auto classes, without this project."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from contract import results
from contract.approval import Refusal, refuse
from contract.chat import SPECIAL_TOKENS
from contract.conversation import Turn
from contract.manifest import Attempt, find, need
from contract.settings.corpus import Tokenizer as Settings
from pipelines.vocabulary.brought import add_special
from pipelines.vocabulary.pieces import convert
from pipelines.vocabulary.training import train, train_sentencepiece
from tests.declared import only_declared
from training import export, gate
from training.chat.template import Chat, open_chat
from training.engine.job import Job
from training.models import llama as model


def exported(job: Job) -> Path:
    export.run(job)
    manifest = find(job.store, job.task)
    assert manifest is not None
    files = [job.scratch.download(file) for file in manifest.of("export")]
    assert {"README.md", "config.json", "generation_config.json", "model.safetensors", "sources.txt", "tokenizer.json",
            "tokenizer_config.json"} <= {path.name for path in files}  # fmt: skip
    return files[0].parent


@pytest.fixture(scope="module")
def opened(align: Callable[..., Job]) -> tuple[Job, Path]:
    job = align("export")
    return job, exported(job)


def test_the_same_logits(opened: tuple[Job, Path]) -> None:
    job, folder = opened
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    ours = model.load_model(job, job.manifest("ppo")).eval()
    assert loaded.dtype == torch.float32
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, ours(ids).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    "turns",
    [
        [Turn("user", "How does a mill work?")],
        [Turn("system", "Be brief.\n"), Turn("user", " spaces  and\nlines ")],
        [Turn("user", "one"), Turn("assistant", "two"), Turn("user", "Grüße, 你好 \U0001f600")],
    ],
)
def test_the_chat_template_gives_the_ids_of_training(opened: tuple[Job, Path], turns: list[Turn]) -> None:
    job, folder = opened
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]
    assert ids == open_chat(job).prompt(turns, 1000)
    reply = [*messages, {"role": "assistant", "content": "Slowly."}]
    whole = tokenizer.apply_chat_template(reply, tokenize=True, return_dict=True)["input_ids"]
    assert whole == open_chat(job).encode([*turns, Turn("assistant", "Slowly.")], 1000)[0]


def test_tokens_and_generation_settings(opened: tuple[Job, Path]) -> None:
    job, folder = opened
    chat = open_chat(job)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    text = "The river stands near the old mill. ½ 你好"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == chat.text(text)
    assert tokenizer.decode(chat.text(text)) == text
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (chat.end_of_text, chat.pad)
    assert set(tokenizer.all_special_tokens) == set(SPECIAL_TOKENS.values())
    reserved = tokenizer.convert_tokens_to_ids("<|reserved_3|>")
    assert tokenizer.decode([reserved, *chat.text(text), reserved], skip_special_tokens=True) == text
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert (loaded.generation_config.eos_token_id, loaded.generation_config.pad_token_id) == (
        chat.end_of_text,
        chat.pad,
    )
    prompt = torch.tensor([chat.prompt([Turn("user", "mill")], 20)])
    made = loaded.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=30)[
        0, prompt.shape[1] :
    ].tolist()
    assert len(made) == 30 or made[-1] == chat.end_of_text


def test_the_card_tells_where_the_model_is_from(opened: tuple[Job, Path]) -> None:
    job, folder = opened
    card = (folder / "README.md").read_text()
    for stage in ("mix", "tokenizer", "pack", "pretrain", "sft", "reward", "gate", "ppo", "judge", "evaluate"):
        assert f"| {stage} | all | `{job.attempt.run.task(stage).fingerprint}` |" in card
    assert job.task.fingerprint in card
    assert job.attempt.run.uri in card
    assert "| reward_last |" in card
    measured = results.Evaluate.of(job.manifest("evaluate"))
    for whose, won in (
        ("the reward model that PPO optimised", measured.win_rate),
        ("the judge, a second reward model that PPO never saw", measured.judge_win_rate),
    ):
        assert f"| {whose} | {won:.4g} | " in card
    assert "kept back" not in card


@pytest.mark.parametrize(
    ("bounds", "stage", "why"),
    [
        ("export.at_most={perplexity_ppo: 0.5}", "sft", r"perplexity_ppo [\d.]+ is above 0.5"),
        ("export.at_least={judge_win_rate: 1.5}", "sft", r"judge_win_rate [\d.]+ is under 1.5"),
        ("export.at_least={judge_win_rate_high: 0.0, prompts: 1}", "ppo", ""),
    ],
)
def test_a_figure_of_evaluate_beyond_its_bound_keeps_ppos_model_back(
    bounds: str, stage: str, why: str, align: Callable[..., Job]
) -> None:
    job = align("export", bounds)
    folder = exported(job)
    result = results.Export.of(need(job.store, job.task))
    assert result.stage == stage
    assert re.fullmatch(why, result.kept_back)
    card = (folder / "README.md").read_text()
    assert (f"PPO's model is kept back: {result.kept_back}." in card) == bool(why)
    exact, ours = load_file(folder / "model.safetensors"), model.load_model(job, job.manifest(stage)).state_dict()
    assert torch.equal(exact["model.norm.weight"], ours["model.norm.weight"])


def test_every_ancestor_comes_once_and_after_what_it_reads(align: Callable[..., Job]) -> None:
    task = align("export").task
    found = export.ancestors(task)
    assert len({(one.stage, one.partition) for one in found}) == len(found)
    names = [one.stage for one in found]
    assert {"crawl", "extract", "pack", "ppo"} <= set(names)
    for index, one in enumerate(found):
        assert all(before in found[:index] for before in one.inputs)


def test_a_closed_gate_exports_the_sft_model_in_half_precision(align: Callable[..., Job]) -> None:
    job = align("gate", "gate.min_accuracy=1.0", "export.dtype=bf16")
    if find(job.store, job.task) is None:
        gate.run(job)
    task = job.attempt.run.task("export")
    folder = exported(Job(only_declared(job.attempt.run, "export"), task, Attempt(job.attempt.run, task)))
    loaded = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    ours = model.load_model(job_of(job, "export"), job_of(job, "export").manifest("sft"))
    assert loaded.dtype == torch.bfloat16
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor.to(torch.bfloat16), rtol=0, atol=0)


def test_a_refused_ppo_exports_the_sft_model(align: Callable[..., Job]) -> None:
    job = align("gate", "gate.min_accuracy=0.001")  # open, and PPO is not done behind it
    if find(job.store, job.task) is None:
        gate.run(job)
    refuse(job.store, job.attempt.run.task("ppo"), Refusal("ann", "2026-11-22"))
    made = job_of(job, "export")
    export.run(made)
    assert need(made.store, made.task).metrics["stage"] == "sft"


def job_of(job: Job, stage: str) -> Job:
    task = job.attempt.run.task(stage)
    return Job(only_declared(job.attempt.run, stage), task, Attempt(job.attempt.run, task))


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece_bpe", "unigram", "wordpiece", "brought"])
def test_every_kind_of_tokenizer_is_opened_with_the_same_ids(kind: str, tmp_path: Path) -> None:
    texts = ["How does the mill turn?  By the river.", "Slowly: it turns 12 times."] * 20
    if kind == "brought":
        trained = train_sentencepiece(texts, Settings(kind="unigram", vocab_size=400), 300)
        trained.normalizer_spec.add_dummy_prefix = True
        made = convert(trained)
    else:
        made = train(texts, Settings(kind=kind, vocab_size=460), [])
    special = add_special(made, {"end_of_text": "</s>", "user": "[user]"})
    made.save(str(tmp_path / "tokenizer.json"))
    chat = Chat(tmp_path / "tokenizer.json", special)
    folder = tmp_path / "export"
    export.write_tokenizer(chat, folder, 100)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    turns = [Turn("user", "How  does it turn?"), Turn("assistant", "Slowly.")]
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    assert ids == chat.encode(turns, 100)[0]
    assert ids[-1] == chat.end_of_text == tokenizer.eos_token_id
    assert tokenizer.decode(chat.text("How  does it turn?")) == chat.decode(chat.text("How  does it turn?"))
    assert chat.decode(chat.text("How  does it turn?")) == "How  does it turn?"
