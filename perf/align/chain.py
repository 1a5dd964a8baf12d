"""A run whose stages before alignment are done, of the tests' little texts and a model of two layers."""

import contextlib
import importlib
import io
import os
from pathlib import Path

from contract.manifest import Attempt, find
from contract.plan import Run, resolve
from perf.pretrain.forked import forked
from pipelines.spark import job as spark_job
from tests.training.conftest import ALIGN, RECIPE, commit_corpus, join_alone
from training.engine.job import Job

EXAMPLES = ("instructions", "preferences", "prompts")


def make_chain(folder: Path, *overrides: str, name: str = "bench") -> Run:
    """A run below the folder; what the stage that aligns reads is made where it is not there.

    Runs of one folder share a store, and so all results that their overrides leave alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    crawl, recipe = folder / "crawl", folder / "recipe.yaml"
    if not crawl.exists():
        crawl.mkdir()
        (crawl / "part.warc.gz").write_bytes(b"WARC")
        recipe.write_text(f"{RECIPE}crawl: {{source: {crawl}}}\n")
    run = resolve(str(recipe), name, [f"store={folder}/store", *ALIGN, *overrides])
    if find(run.store, run.task("pack")) is None:
        commit_corpus(run)
    for stage in EXAMPLES:
        if find(run.store, run.task(stage)) is None:
            assert make_examples(run, stage) == 0, stage
    for task in run.task(run.recipe.align).inputs:
        _made(run, task.stage)
    return run


def make_examples(run: Run, stage: str) -> int:
    """The exit code of a stage that makes examples, in a process of its own."""

    def work() -> int:
        task = run.task(stage)
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(f"pipelines.{stage}").run(spark_job.Job(run, task, Attempt(run, task)))
        return 0

    return forked(work)


def _made(run: Run, stage: str) -> None:
    """Run a stage of the GPU plane, and those that it reads, in processes of their own."""
    task = run.task(stage)
    if find(run.store, task) is None:
        for before in task.inputs:
            _made(run, before.stage)
        assert run_stage(run, stage) == 0, stage


def run_stage(run: Run, stage: str) -> int:
    """The exit code of a stage in a process of its own; its output is not shown."""

    def work() -> int:
        from training.__main__ import main

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return main([stage, "--recipe", run.uri])

    return forked(work)


def job_of(run: Run, stage: str) -> Job:
    """A stage of a run in this process, its only one."""
    join_alone()
    return Job(run, run.task(stage), Attempt(run, run.task(stage)))
