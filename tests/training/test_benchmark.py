"""The stage benchmark: real models answer real items, each model and benchmark apart; what is stopped starts again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract import results
from contract.approval import Refusal, refuse
from contract.errors import InputError, Interrupted, NotReadyError
from contract.kinds import Kind
from contract.manifest import Attempt, find, need
from evals.grading import report
from evals.records import Record, read_records
from evals.tasks.prompts import Prompt
from tests.declared import only_declared
from tests.evals.conftest import needs_sandbox
from training import benchmark
from training.__main__ import main
from training.engine.job import Job

THINGS = ("river", "mill", "baker", "lantern", "harbour", "garden")


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, str]:
    """The overrides that name three benchmarks: one scored by likelihood, one that is written, and one of code."""
    choices = [
        {"question": f"What stands near the {one}?", "choices": [*THINGS[:4]], "answer": at % 4}
        for at, one in enumerate(THINGS * 3)
    ]
    sums = [{"question": f"What is {at} and 1?", "answer": f"#### {at + 1}"} for at in range(10)]
    code = [
        {
            "task_id": f"test/{at}",
            "prompt": f"def give_{at}():\n",
            "canonical_solution": f"    return {at}",
            "test": f"def check(candidate):\n    assert candidate() == {at}",
            "entry_point": f"give_{at}",
        }
        for at in range(3)
    ]
    named = {}
    for name, rows, how in (
        ("mmlu", choices, "k: 0"),
        ("gsm8k", sums, "k: 0, max_tokens: 8"),
        ("humaneval", code, "max_tokens: 8, samples: 2, temperature: 1.0"),
    ):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        named[name] = f"{name}: {{items: {file}, {how}}}"
    return named


def override(*named: str) -> str:
    return f"benchmark.tasks={{{', '.join(named)}}}"


def records(job: Job) -> list[Record]:
    [file] = need(job.store, job.task).of(Kind.RECORDS)
    return read_records(job.scratch.download(file))


def figures(job: Job) -> results.Benchmark:
    return results.Benchmark.of(need(job.store, job.task))


def test_every_item_is_a_row_and_the_figures_are_those_of_the_rows(
    align: Callable[..., Job], sets: dict[str, str]
) -> None:
    job = align("benchmark", override(sets["mmlu"]), partition="sft.mmlu")
    benchmark.run(job)
    rows, found = records(job), figures(job)
    assert [one.id for one in rows] == [f"mmlu/{at}" for at in range(18)]
    assert all(one.prompt.endswith("Answer:") and len(one.output.split()) == 4 for one in rows)
    assert {one.extracted for one in rows} <= {*"ABCD"}
    assert found.score == pytest.approx(sum(one.score for one in rows) / 18) == report(rows).score.mean
    assert (found.task, found.ability, found.model, found.n, found.outputs) == ("mmlu", "knowledge en", "sft", 18, 18)
    assert found.made_by == f"sft/{job.task.of('sft')[0].fingerprint}"
    assert found.extraction_rate == 1
    other = align("benchmark", override(sets["mmlu"]), partition="pretrain.mmlu")
    benchmark.run(other)
    assert [one.output for one in records(other)] != [one.output for one in rows], "another model answers"
    assert figures(other).made_by.startswith("pretrain/")


def test_outputs_are_written_and_graded(align: Callable[..., Job], sets: dict[str, str]) -> None:
    job = align("benchmark", override(sets["gsm8k"]), partition="aligned.gsm8k")
    benchmark.run(job)
    rows = records(job)
    assert (len(rows), figures(job).ability) == (10, "maths")
    assert figures(job).made_by.startswith("ppo/")
    assert any(one.output for one in rows)


@needs_sandbox
def test_programs_run_in_the_sandbox_and_have_pass_at_k(align: Callable[..., Job], sets: dict[str, str]) -> None:
    job = align("benchmark", override(sets["humaneval"]), partition="sft.humaneval")
    benchmark.run(job)
    found = figures(job)
    assert (found.n, found.outputs, found.ability) == (3, 6, "code")
    assert found.several.keys() == {"pass@1"}, "whether a program passed is nothing to vote on"


def test_the_reward_model_chooses_the_best_of_several_outputs(align: Callable[..., Job], sets: dict[str, str]) -> None:
    several = sets["gsm8k"].replace("k: 0", "k: 0, samples: 3, temperature: 1.0, by_reward: true")
    job = align("benchmark", override(several), partition="sft.gsm8k")
    benchmark.run(job)
    rows, rewards = records(job), benchmark.judge_of(job)
    assert rewards is not None
    alone = [rewards([Prompt(one.prompt)], [one.output])[0] for one in rows]
    assert [one.reward for one in rows] == pytest.approx(alone, abs=1e-4)
    assert len({*alone}) > len(rows) / 2, "it judges each output"
    best = [max(rows[at : at + 3], key=lambda one: one.reward or 0.0).score for at in range(0, len(rows), 3)]
    assert figures(job).several["best"]["score"] == sum(best) / len(best)
    older = align("benchmark", override(several), partition="pretrain.gsm8k")
    assert benchmark.judge_of(older) is None, "a base model is there before the reward model"


def test_without_a_sandbox_code_is_refused_before_the_model_is_read(
    align: Callable[..., Job], sets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evals.sandbox._missing", lambda: "bwrap was not found")
    monkeypatch.setattr(benchmark, "opened", None)
    job = align("benchmark", override(sets["humaneval"]), "benchmark.seed=9", partition="sft.humaneval")
    with pytest.raises(Exception, match="runs only in a sandbox, and this machine has none: bwrap was not found"):
        benchmark.run(job)
    assert find(job.store, job.task) is None


def test_a_stop_keeps_what_other_partitions_have_done(align: Callable[..., Job], sets: dict[str, str]) -> None:
    given = override(sets["mmlu"], sets["gsm8k"])
    first = align("benchmark", given, "benchmark.seed=5", partition="sft.mmlu")
    benchmark.run(first)
    done = need(first.store, first.task)
    second = align("benchmark", given, "benchmark.seed=5", partition="sft.gsm8k")
    second.ranks.stop.raised = True
    with pytest.raises(Interrupted):
        benchmark.run(second)
    assert find(second.store, second.task) is None
    again = align("benchmark", given, "benchmark.seed=5", partition="sft.gsm8k")
    benchmark.run(again)
    assert len(records(again)) == 10
    assert need(first.store, first.task) == done


def test_a_model_that_was_refused_is_not_asked(align: Callable[..., Job], sets: dict[str, str]) -> None:
    def unaligned(*overrides: str) -> Job:
        run = align("ppo", override(sets["mmlu"]), *overrides).attempt.run
        task = run.task("benchmark", "aligned.mmlu")
        return Job(only_declared(run, "benchmark"), task, Attempt(run, task))

    job = unaligned("gate.min_accuracy=1.0")
    benchmark.run(job)
    found = need(job.store, job.task)
    assert found.of(Kind.RECORDS) == []
    assert figures(job).left_out.startswith("PPO is left out, because the gate is closed")
    assert (figures(job).score, figures(job).n) == (None, 0)
    refused = unaligned("ppo.seed=78")
    [ppo] = refused.task.of("ppo")
    refuse(refused.store, ppo, Refusal("ann", "2026-01-01T00:00:00Z"))
    benchmark.run(refused)
    assert "ann rejected it" in figures(refused).left_out


def test_a_step_of_pretraining_answers_as_it_did_then(align: Callable[..., Job], sets: dict[str, str]) -> None:
    given = (
        override(sets["mmlu"]), "benchmark.steps=[20, 60, 33]", "pretrain.seed=3",
        "pretrain.engine={micro_batch: 4, checkpoint_steps: 20, keep_every: 20}",
    )  # fmt: skip
    answers = {}
    for model in ("pretrain-20", "pretrain-60", "pretrain"):
        job = align("benchmark", *given, partition=f"{model}.mmlu")
        benchmark.run(job)
        answers[model] = [one.output for one in records(job)]
        step = f"/step-{20 if model.endswith('20') else 60:08d}" if model != "pretrain" else ""
        assert figures(job).made_by == f"pretrain/{job.task.of('pretrain')[0].fingerprint}{step}"
    assert answers["pretrain-60"] == answers["pretrain"], "its last step"
    assert answers["pretrain-20"] != answers["pretrain"]
    job = align("benchmark", *given, partition="pretrain-33.mmlu")
    with pytest.raises(NotReadyError, match=r"there is no checkpoint of this step; pretrain\.engine\.keep_every says"):
        benchmark.run(job)


def test_a_result_of_another_run_answers_with_its_own_tokenizer(
    align: Callable[..., Job], sets: dict[str, str]
) -> None:
    one = align("benchmark", override(sets["mmlu"]), partition="sft.mmlu")
    benchmark.run(one)
    made = figures(one).made_by
    other = align(
        "benchmark", override(sets["mmlu"]), f"benchmark.others={{old: {made}}}", "sft.seed=99", partition="old.mmlu"
    )
    assert other.task.inputs == ()
    benchmark.run(other)
    assert [row.output for row in records(other)] == [row.output for row in records(one)]
    assert figures(other).made_by == made
    missing = align(
        "benchmark", override(sets["mmlu"]), f"benchmark.others={{old: sft/{'0' * 40}}}", partition="old.mmlu"
    )
    with pytest.raises(NotReadyError, match="sft"):
        benchmark.run(missing)


def test_two_processes_answer_as_one_does(
    align: Callable[..., Job], run_two: Callable[..., list[str]], sets: dict[str, str]
) -> None:
    given = (override(sets["gsm8k"]), "benchmark.seed=11")
    job = align("benchmark", *given, partition="sft.gsm8k")
    output = "".join(
        run_two("-m", "training", "benchmark", "--recipe", job.attempt.run.uri, "--partition", "sft.gsm8k")
    )
    assert "committed benchmark sft.gsm8k: score" in output
    two = records(job)
    job.store.delete(f"{job.task.prefix}/manifest.json")
    again = align("benchmark", *given, partition="sft.gsm8k")
    benchmark.run(again)
    assert records(again) == two


def test_a_finished_partition_is_skipped_and_an_unknown_one_is_named(
    align: Callable[..., Job], sets: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    job = align("benchmark", override(sets["mmlu"]), partition="sft.mmlu")
    if find(job.store, job.task) is None:
        benchmark.run(job)
    uri = job.run_uri
    assert main(["benchmark", "--recipe", uri, "--partition", "sft.mmlu"]) == 0
    assert "done benchmark sft.mmlu: score" in capsys.readouterr().out
    assert main(["benchmark", "--recipe", uri, "--partition", "sft.arc"]) != 0
    assert "stage benchmark has no partition 'sft.arc'; there are pretrain.mmlu, sft.mmlu" in capsys.readouterr().err


def test_items_that_are_not_the_tasks_are_refused(align: Callable[..., Job], tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "no question"}\n')
    given = f"benchmark.tasks={{mmlu: {{items: {tmp_path}/bad.jsonl}}}}"
    job = align("benchmark", given, partition="sft.mmlu")
    with pytest.raises(InputError, match=r"bad\.jsonl.*is no item of mmlu: it lacks 'A'"):
        benchmark.run(job)


def test_figures_of_a_report() -> None:
    def row(item: int, sample: int, score: float, reward: float | None) -> Record:
        return Record("gsm8k", "maths", str(item), str(item), sample, "q", "o", "1", "1", score, reward)  # type: ignore[call-arg]

    rows = [row(0, 0, 1, 0.5), row(0, 1, 0, 0.1), row(1, 0, 0, 0.2), row(1, 1, 1, 0.9)]
    made: Any = benchmark.figures(report(rows))
    assert (made["n"], made["outputs"], made["score"], made["extraction_rate"]) == (2, 4, 0.5, 1.0)
    assert made["several"]["pass@1"]["score"] == 0.5
    assert made["several"]["best"]["score"] == 1.0
    assert set(made["several"]) == {"pass@1", "majority", "best"}
