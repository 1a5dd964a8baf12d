"""A command asks any model: a folder of transformers with its own template, and a result of a store."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from contract.kinds import Kind
from contract.manifest import need
from evals.records import read_records
from tests.training.models.test_opened import folder_of_transformers
from training import benchmark
from training.__main__ import main
from training.engine.job import Job
from training.engine.ranks import Ranks


@pytest.fixture
def items(tmp_path: Path) -> Path:
    rows = [{"question": f"What is {at} and 1?", "answer": f"#### {at + 1}"} for at in range(5)]
    file = tmp_path / "gsm8k.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def ask(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The command, without the end of the process group, which other tests go on with."""
    monkeypatch.setattr("training.engine.ranks.Ranks.leave", lambda ranks: None)
    monkeypatch.setattr("training.ask.join", lambda stop: Ranks(stop=stop))
    return main(["ask", *map(str, words)])


def test_a_folder_answers_with_its_own_tokenizer_and_template(
    items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = folder_of_transformers(tmp_path / "theirs"), tmp_path / "rows.parquet"
    given = ("gsm8k", "--items", items, "--model", folder, "--k", 0, "--dialogue", "--max-tokens", 6, "--out", out)
    assert ask(monkeypatch, *given) == 0
    said = capsys.readouterr().out
    assert "gsm8k (maths): 0.0000" in said
    rows = read_records(out)
    tokenizer, module = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    for row in rows:
        turns = [{"role": "user", "content": row.prompt.removeprefix("user: ")}]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        made = module.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
        assert row.output.strip() == tokenizer.decode(made, skip_special_tokens=True).strip()


def test_a_result_answers_as_in_the_stage(
    align: Callable[..., Job], items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = f"benchmark.tasks={{gsm8k: {{items: {items}, k: 0, max_tokens: 8}}}}"
    job = align("benchmark", named, partition="sft.gsm8k")
    benchmark.run(job)
    [file] = need(job.store, job.task).of(Kind.RECORDS)
    [sft] = job.task.of("sft")
    out, uri = tmp_path / "rows.parquet", job.store.full(sft.prefix)
    assert ask(monkeypatch, "gsm8k", "--items", items, "--model", uri, "--k", 0, "--max-tokens", 8, "--out", out) == 0
    assert read_records(out) == read_records(job.scratch.download(file))


def test_what_is_not_there_is_told(
    items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"{tmp_path}/store/sft/{'a' * 40}/all/manifest.json"
    given = ("gsm8k", "--items", items, "--out", tmp_path / "rows.jsonl", "--model")
    assert ask(monkeypatch, *given, place) != 0
    assert f"--model: {place} is not there" in capsys.readouterr().err
    assert ask(monkeypatch, *given, tmp_path / "nowhere") != 0
    assert "nowhere: is not there" in capsys.readouterr().err
