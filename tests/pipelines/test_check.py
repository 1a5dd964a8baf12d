"""What a stage would refuse is refused before the first one, with the stage's own words; what it has accepted is not asked again."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from contract.errors import InputError, RecipeError
from contract.manifest import Attempt
from contract.plan import Run
from contract.stages import STAGES, reads_setting
from pipelines.__main__ import main
from pipelines.check import check


@pytest.fixture
def run_with(tmp_path: Path, resolve_run: Any) -> Any:
    """`run_with({"filter.min_words": 3})`: a run in which nothing is done; `empty`, `broken.jsonl` and `short.jsonl` lie beside it."""
    for name in ("crawl", "lists/adult", "empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    (tmp_path / "lists" / "adult" / "domains").write_text("bad.test\n")
    (tmp_path / "lists" / "en").write_text("darn\n")
    (tmp_path / "empty" / "README").write_text("no list\n")
    (tmp_path / "broken.jsonl").write_text('{"question": "What is it?"}\n{"question": \n')
    (tmp_path / "half.jinja").write_text("{% for message in messages %}")
    (tmp_path / "short.jsonl").write_text('{"question": "What is it?"}\n')
    (tmp_path / "good.jsonl").write_text(json.dumps({"question": "What is it that all of us have been waiting for?"}))
    (tmp_path / "chats.jsonl").write_text(json.dumps({"instruction": "What is it?", "output": "A mill."}))

    def make(overrides: dict[str, Any]) -> Run:
        run: Run = resolve_run(tmp_path / "crawl", json.loads(json.dumps(overrides).replace("HERE", str(tmp_path))))
        return run

    return make


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"crawl.blocklists": ["HERE/lists", "HERE/empty"]}, InputError, r"^crawl\.blocklists: .*/empty is missing or"),
        ({"langid.languages": ["en", "cn"]}, RecipeError, r"^langid\.languages: lid\.176 does not know cn"),
        ({"langid.languages": ["en", "eo"]}, RecipeError, r"^langid\.languages: there are no stop words for eo"),
        ({"score.bad_words": "HERE/empty"}, InputError, r"^score\.bad_words: .*/empty holds no list"),
        ({"score.perplexity_model": "HERE/good.jsonl"}, RecipeError, r"^score\.perplexity_model: the package kenlm is not"),
        ({"dedup_substring.tokenizer": "HERE/good.jsonl"}, InputError, r"^dedup_substring\.tokenizer: .* is not a tokenizer"),
        ({"decontaminate.benchmarks": {"x": "HERE/broken.jsonl"}}, InputError, r"^decontaminate\.benchmarks\.x: .* line 2"),
        ({"sft.chat_template": "HERE/half.jinja"}, InputError, r"^sft\.chat_template: .*half\.jinja: is no Jinja template"),
        ({"decontaminate.benchmarks": {"x": "HERE/empty"}}, InputError, r"^decontaminate\.benchmarks\.x: .* cannot be read"),
        ({"decontaminate.benchmarks": {"x": "HERE/short.jsonl"}}, InputError, r"^decontaminate\.benchmarks\.x: none of the 1 items"),
        ({"instructions.data": "HERE/good.jsonl"}, InputError, r"^instructions\.data: .* no usable row \(good.jsonl line 1: missing text"),
        ({"preferences.data": "HERE/chats.jsonl"}, InputError, r"^preferences\.data: .* no usable row \(chats.jsonl line 1: missing"),
    ],
)  # fmt: skip
def test_refused(
    overrides: dict[str, Any], error: type, message: str, run_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(error, match=message):
        check(run_with(overrides))


def test_accepted(run_with: Any, capsys: pytest.CaptureFixture[str]) -> None:
    named = {
        "crawl.blocklists": ["HERE/lists"], "score.bad_words": "HERE/lists", "langid.languages": ["en", "zh"],
        "decontaminate.benchmarks": {"x": "HERE/good.jsonl"},
    }  # fmt: skip
    run = run_with(named)
    assert main(["check", "--recipe", run.uri]) == 0
    assert capsys.readouterr().out == (
        "benchmark x: 1 items, 1 sought, 1 files read\n"
        "        1 items in good.jsonl\n"
        f"checked {run.uri}: no stage refuses its settings\n"
    )


def test_a_benchmark_that_went_after_the_run_was_resolved(
    run_with: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_with({"decontaminate.benchmarks": {"x": "HERE/good.jsonl"}})
    (tmp_path / "good.jsonl").unlink()
    assert main(["check", "--recipe", run.uri]) == 65
    assert capsys.readouterr().err.startswith("error: decontaminate.benchmarks.x: ")
    for stage in ("decontaminate", "mix", "instructions", "preferences", "prompts"):  # all that search for it
        Attempt(run, run.task(stage)).commit([])
    assert main(["check", "--recipe", run.uri]) == 0, "the stages have read it"


@pytest.mark.parametrize("key", ["decontaminate.benchmarks", "instructions.data", "score.bad_words"])
def test_a_file_that_changed_after_the_run_was_resolved(
    key: str, run_with: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = {"decontaminate.benchmarks": {"x": "HERE/good.jsonl"}, "score.bad_words": "HERE/lists"}
    run = run_with({key: value.get(key, "HERE/chats.jsonl")})
    assert main(["check", "--recipe", run.uri]) == 0
    (tmp_path / "good.jsonl").write_text(json.dumps({"question": "What is it that none of us has been waiting for?"}))
    (tmp_path / "lists" / "en").write_text("drat it\n")
    (tmp_path / "chats.jsonl").write_text(json.dumps({"instruction": "What is it?", "output": "A mile."}))
    assert main(["check", "--recipe", run.uri]) == 65
    said = capsys.readouterr().err
    assert said.startswith(f"error: {key}")
    assert "the file changed since the run was resolved; start a new run" in said
    (named,) = run.outside
    for task in run.tasks().values():
        if reads_setting(task.stage, named):
            Attempt(run, task).commit([])
    assert main(["check", "--recipe", run.uri]) == 0, "the stages have read it"


def test_every_check_is_of_a_stage() -> None:
    for stage in (stage for stage in STAGES.values() if stage.plane == "spark"):
        assert hasattr(importlib.import_module(f"pipelines.{stage.name}"), "check") == stage.checks, stage.name


def test_spark_is_asked_for_while_a_spark_task_is_left(run_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("pipelines.check.check_setup", lambda settings: asked.append(settings.master))
    run = run_with({"spark.master": "local[3]"})
    tasks = [task for task in run.tasks().values() if STAGES[task.stage].plane == "spark"]
    for task in tasks[:-1]:
        Attempt(run, task).commit([])
    check(run)
    assert asked == ["local[3]"]
    Attempt(run, tasks[-1]).commit([])
    check(run)
    assert asked == ["local[3]"], "nothing is left"
