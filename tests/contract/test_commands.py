"""The command of each task, as a shell runs it."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from contract import __main__ as command
from contract import ablation
from contract.plan import Run
from contract.stages import ALIGNING, STAGES

VARIANTS = "ablate.variants={base: [], strict: [filter.min_words=99]}"


def printed(run: Run, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    assert command.main(["commands", "--recipe", run.uri]) == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


def test_a_run_goes_from_crawl_to_export(make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("sft.engine.processes=2", "sft.batch=16")
    lines = printed(run, capsys)
    stages = [next(word for word in line if word in STAGES) for line in lines]
    assert list(dict.fromkeys(stages)) == [
        name for name in STAGES if name not in ("dpo", "grpo", "benchmark", "sample", "probe", "ablate")
    ]
    lines_of_dpo = printed(make_run("align=dpo", run="two"), capsys)
    assert [word for line in lines_of_dpo for word in line if word in ALIGNING] == ["dpo"]
    assert lines[0][1:] == [
        "-m", "pipelines", "crawl", "--recipe", run.uri, "--partition", run.segments[0].partition,
    ]  # fmt: skip
    assert stages.count("crawl") == stages.count("extract") == len(run.segments)
    assert lines[stages.index("pretrain")][1:] == ["-m", "training", "pretrain", "--recipe", run.uri]
    launched = lines[stages.index("sft")]
    assert launched[0].endswith("deepspeed")
    assert launched[1:] == [
        "--hostfile", "/dev/null", "--num_accelerators", "2", "--module", "training", "sft", "--recipe", run.uri,
    ]  # fmt: skip


def test_a_benchmark_has_a_line_for_each_model(
    make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "items.jsonl").write_text("{}")
    run = make_run(f"benchmark.tasks={{mmlu: {{items: {tmp_path}/items.jsonl}}}}")
    lines = [line for line in printed(run, capsys) if "benchmark" in line]
    assert [line[1:] for line in lines] == [
        ["-m", "training", "benchmark", "--recipe", run.uri, "--partition", f"{model}.mmlu"]
        for model in ("pretrain", "sft", "aligned")
    ]


def test_a_recipe_with_variants_gives_each_task_of_theirs_once(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_run(VARIANTS, "ablate.seeds=[0, 1]")
    lines = printed(base, capsys)
    made = ablation.resolve(base)
    assert len(lines) == len(list(made.tasks()))
    crawl, probe, last = lines[0], lines[-2], lines[-1]
    assert crawl[1:4] == ["-m", "pipelines", "crawl"]
    assert crawl[-4:] == ["--recipe", made.runs["base", 0].uri, "--partition", base.segments[0].partition]
    assert probe[1:] == ["-m", "training", "probe", "--recipe", made.runs["strict", 1].uri]
    assert last[1:] == ["-m", "training", "ablate", "--recipe", made.comparison.uri]
