"""A model answers the items of a benchmark, and the answers are graded.

A partition is one model and one benchmark, so that each is done, and resumed, by itself. Every item's prompt, output,
extracted answer and verdict is a row of `records.parquet`. Programs run in a sandbox or not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contract import results
from contract.approval import without_ppo
from contract.benchmarks import KNOWN, Measured, step_of
from contract.identity import Input
from contract.kinds import Kind
from contract.manifest import need
from contract.metrics import Progress
from contract.settings.training import Benchmark, BenchmarkTask
from contract.stages import ALIGNING
from evals.asking import Asking, Files, read_asking
from evals.grading import Report, Score, grade, report
from evals.records import Output, Record, write_records
from evals.sandbox import require
from training import reward
from training.answering import Asked, Rewards, answer, by_reward_model
from training.chat.template import open_chat
from training.engine.job import Job
from training.engine.scratch import Scratch
from training.models import llama
from training.models.opened import Opened, open_folder, open_result, open_step

FILE = "records.parquet"


@dataclass(frozen=True)
class Chosen:
    """The model of a partition: a result of a store or a folder. left_out: why there is none."""

    made: Input | None = None
    folder: str = ""
    step: int | None = None
    left_out: str = ""


def choose(job: Job, model: str) -> Chosen:
    """Which model a partition asks. The aligned one is left out where the gate is closed."""
    settings: Benchmark = job.settings
    step = step_of(model)
    if step is not None:
        return Chosen(job.task.read("pretrain")[0], step=step)
    if model in settings.others:
        made = job.task.elsewhere
        return Chosen(made[0]) if made else Chosen(folder=settings.others[model])
    if model != "aligned":
        return Chosen(job.task.read(model)[0])
    [own] = [as_read for stage in ALIGNING for as_read in job.task.read(stage)]
    why = without_ppo(job.store, job.manifest("gate"), own)
    return Chosen(left_out=why) if why else Chosen(own)


def opened(job: Job, model: str, chosen: Chosen) -> Opened:
    """The chosen model, on this process's device."""
    settings: Benchmark = job.settings
    dtype, device = settings.engine.dtype, job.ranks.device
    if chosen.made is None:
        folder = job.scratch.fetch_all(chosen.folder)
        return open_folder(folder, chosen.folder, f"benchmark.others.{model}", dtype, device)
    if chosen.step is None:
        made = need(job.store, chosen.made)
    else:
        made = open_step(job.store, chosen.made.fingerprint, chosen.step)
    return open_result(job.scratch, made, dtype, device, job.ranks.rank)


def asking_of(scratch: Scratch, named: BenchmarkTask) -> Asking:
    """A benchmark's items and how they are asked; its files are fetched if they lie in a store.

    Raises InputError if they are not those of the task.
    """
    shots = scratch.fetch_all(named.shots) if named.shots else None
    names = scratch.fetch_all(named.names) if named.names else None
    words = scratch.fetch_all(named.words) if named.words else None
    files = Files(scratch.fetch_all(named.items), named.split, shots, named.shots_split, names, words)
    return read_asking(named.task, files, limit=named.limit, k=named.k, style=named.style, dialogue=named.dialogue)


def asked_of(named: BenchmarkTask, seed: int) -> Asked:
    return Asked(named.samples, named.temperature, named.max_tokens, seed)


def judge_of(job: Job) -> Rewards | None:
    """What the run's reward model says of answers; None where the recipe does not ask it or it is not there yet."""
    if not job.task.read("reward"):
        return None
    settings: Benchmark = job.settings
    dtype, device = settings.engine.dtype, job.ranks.device
    module = llama.cast(reward.load_reward_model(job, job.manifest("reward"), dtype), dtype).to(device).eval()
    return by_reward_model(module, open_chat(job), device)


def graded(asking: Asking, outputs: Sequence[Sequence[Output]], by_byte: bool) -> list[Record]:
    """A record for each output, in the order of the items."""
    by_item = {item.id: some for item, some in zip(asking.items, outputs, strict=True)}
    return grade(asking.task, asking.items, by_item, asking.prompt, by_byte)


def figures(made: Report) -> dict[str, Any]:
    """What a report shows, as the figures of a result."""
    several = {f"pass@{k}": score for k, score in made.pass_at.items()}
    more = ("majority", "best", "bits_per_byte")
    several |= {name: score for name in more if (score := getattr(made, name)) is not None}
    return {
        **_of(made.score),
        "n": made.score.n,
        "sources": made.score.sources,
        "shots": made.shots,
        "outputs": made.outputs,
        "extraction_rate": made.extraction_rate,
        "several": {name: _of(score) for name, score in several.items()},
    }


def _of(score: Score) -> dict[str, float]:
    return {"score": score.mean, "low": score.low, "high": score.high}


def run(job: Job) -> None:
    settings: Benchmark = job.settings
    one = Measured.of(job.task.partition)
    named = settings.tasks[one.benchmark]
    known: dict[str, Any] = {"task": named.task, "ability": KNOWN[named.task].ability, "model": one.model}
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    chosen = choose(job, one.model)
    if chosen.left_out:
        job.commit(folder, results.Benchmark(**known, made_by="", left_out=chosen.left_out))
        return
    asking = asking_of(job.scratch, named)
    if asking.task.program:
        require()
    found = opened(job, one.model, chosen)
    progress = Progress(job.task.stage, job.task.partition, "items", len(asking.items))

    prompts = [asking.prompt(item) for item in asking.items]
    outputs = answer(
        found.module, found.wording, prompts, asked_of(named, settings.seed), job.ranks, judge_of(job), progress.advance
    )
    figured: dict[str, Any] = {}
    if job.ranks.rank == 0:
        progress.finish()
        records = graded(asking, outputs, named.by_byte)
        write_records(folder / FILE, records)
        made = report(records, shots=asking.shots)
        figured = figures(made)
    job.commit(folder, results.Benchmark(**known, made_by=found.made_by, **figured), {FILE: Kind.RECORDS})
