"""Deduplication while its workers are killed: the same result as when none is. `python -m perf.kills FOLDER ARCHIVE [CASE ...]`.

Two executors, each a JVM of its own with one core, on the licence texts of ARCHIVE. In each case a worker is killed (kill -9) in the
middle of one step: it has sent something and not all. An executor that dies takes with it what earlier steps had shuffled to it. That
it was killed is shown by its task, which somebody else starts again.
"""

import argparse
import functools
import itertools
import json
import os
import shutil
import signal
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from contract.documents import parts_of, read_documents
from contract.kinds import Kind
from contract.manifest import Attempt, Manifest, need
from contract.plan import Run
from contract.tables import read_rows
from perf import synthetic
from perf.bars import Bars
from pipelines import dedup_fuzzy, dedup_substring, dedup_url, minhash_sign
from pipelines.dedup import duplicates, links
from pipelines.spark import exchange
from pipelines.spark.job import Job

MASTER = "local-cluster[2,1,1024]"
CLUSTER = {
    "spark.master": MASTER,
    "spark.executor_memory": "1g",
    "spark.shuffle_partitions": 2,
    "spark.conf": {  # the executors' workers import this file; little data: what takes time is to start, to compile, and to ask the dead again
        "spark.executorEnv.PYTHONPATH": str(Path(__file__).parents[1]),
        "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.codegen.wholeStage": "false",
        "spark.shuffle.io.maxRetries": "1",
        "spark.shuffle.io.retryWait": "100ms",
    },
}
STAGES = {"dedup_url": dedup_url, "dedup_fuzzy": dedup_fuzzy, "dedup_substring": dedup_substring}
CHECKED = {"dedup_fuzzy.min_jaccard": 0.7}
SPILLED = CHECKED | {"dedup_fuzzy.pairs_per_document": 1}
SIMHASH = {"minhash_sign.method": "simhash", "minhash_sign.distance": 8}
TIGHT = {"PAIRED_KEYS": 64, "REACH": 2}
ON_SPARK = {"dedup_fuzzy.driver_edge_limit": 1}
SUBSTRING = {"dedup_substring.one_process_bytes": 0, "dedup_substring.cut": "all"}


class Case(NamedTuple):
    """hook and step: where the worker dies; victim: python | executor; tight: of the keys that meet, most wait on the disk."""

    name: str
    stage: str
    settings: dict[str, Any]
    hook: str
    step: int
    victim: str = "executor"
    tight: bool = False


CASES = [
    Case("url_keys", "dedup_url", {}, "table", 0),
    Case("url_removed", "dedup_url", {}, "removed", 0),
    Case("url_drops", "dedup_url", {}, "files", 0, "python"),
    *(Case(f"fuzzy_step_{step + 1}", "dedup_fuzzy", {}, "step", step) for step in range(2)),
    *(Case(f"fuzzy_checked_step_{step + 1}", "dedup_fuzzy", CHECKED, "step", step) for step in range(4)),
    *(Case(f"fuzzy_spilled_step_{step + 1}", "dedup_fuzzy", SPILLED, "step", step, tight=True) for step in range(4)),
    *(Case(f"fuzzy_simhash_step_{step + 1}", "dedup_fuzzy", SIMHASH, "step", step, tight=True) for step in range(3)),
    Case("fuzzy_facts", "dedup_fuzzy", {}, "table", 0),
    Case("fuzzy_removed", "dedup_fuzzy", {}, "removed", 0),
    Case("fuzzy_components", "dedup_fuzzy", ON_SPARK, "turn", 1),
    Case("fuzzy_drops", "dedup_fuzzy", {}, "files", 0, "python"),
    *(Case(f"substring_step_{step + 1}", "dedup_substring", SUBSTRING, "step", step) for step in range(5)),
    Case("substring_cut", "dedup_substring", SUBSTRING, "files", 0, "python"),
    Case("substring_step_4_python", "dedup_substring", SUBSTRING, "step", 3, "python"),
]


class Killer:
    """Work that kills its worker after its first output, once: whoever makes the file `struck` in the folder.

    Everyone who starts on the work leaves a file there that is named by its Spark stage, partition and attempt.
    """

    def __init__(self, work: Callable[..., Any], folder: Path, victim: str) -> None:
        self._work, self._folder, self._victim = work, folder, victim

    def __call__(self, *given: Any) -> Iterator[Any]:
        from pyspark import TaskContext

        here: Any = TaskContext.get()
        name = f"{here.stageId()}.{here.partitionId()}"
        (self._folder / f"{name}.{here.taskAttemptId()}").touch()
        sent = iter(self._work(*given))
        yield from itertools.islice(sent, 1)
        self._strike(name)
        yield from sent

    def _strike(self, name: str) -> None:
        try:
            with (self._folder / "struck").open("x") as marker:
                marker.write(name)
        except FileExistsError:
            return
        if self._victim == "executor":
            daemon = os.getppid()
            executor = int(Path(f"/proc/{daemon}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(executor, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def tries(folder: Path) -> int:
    """How often the task that was killed was started; 0 where none was."""
    return sum(len(list(folder.glob(f"{struck.read_text()}.*"))) for struck in folder.glob("struck"))


class Noted(exchange.Spill):
    """A spill that makes a file when something is added."""

    def __init__(self, note: Path) -> None:
        super().__init__()
        self._note = note

    def add(self, table: Any) -> None:
        self._note.touch()
        super().add(table)


class Tight:
    """Work in a worker that holds few keys at a time. The file `note` is there when others waited on the disk."""

    def __init__(self, work: exchange.Work, note: Path) -> None:
        self._work, self._note = work, note

    def __call__(self, place: int, batches: Any) -> Iterator[Any]:
        before = {name: getattr(links, name) for name in (*TIGHT, "Spill")}
        vars(links).update(TIGHT | {"Spill": functools.partial(Noted, self._note)})
        try:
            yield from self._work(place, batches)
        finally:
            vars(links).update(before)


class Hooks:
    """Puts what a case asks for into the one place that it names, and takes it out again. Without `kill` nobody dies."""

    def __init__(self, case: Case, folder: Path, kill: bool) -> None:
        self._case, self._folder, self._kill, self._count = case, folder.absolute(), kill, itertools.count()
        self._folder.mkdir()

    def _killer(self, work: Callable[..., Any]) -> Callable[..., Any]:
        return Killer(work, self._folder, self._case.victim) if self._kill else work

    def __enter__(self) -> None:
        self._before = (
            exchange.shuffle,
            Job.read_table,
            Job.map_files,
            duplicates._write_removed,
            dedup_fuzzy.keep_edges,
        )
        shuffle, read_table, map_files, write_removed, keep_edges = self._before
        hook, step = self._case.hook, self._case.step

        def killing_shuffle(context: Any, steps: Any, *uri: str) -> Any:
            held = [
                (places, Tight(work, self._folder / "spilled") if self._case.tight else work) for places, work in steps
            ]
            killing = [(places, self._killer(work) if at == step else work) for at, (places, work) in enumerate(held)]
            return shuffle(context, killing, *uri)

        def killing_table(job: Job, items: Any, read: Any, schema: str) -> Any:
            return read_table(job, items, self._killer(read) if next(self._count) == step else read, schema)

        def killing_files(job: Job, files: Any, work: Any, unit: str = "files") -> Any:
            return map_files(job, files, Once(self._killer(functools.partial(as_iterator, work))), unit)

        if hook == "step":
            exchange.shuffle = killing_shuffle
        elif hook == "table":
            Job.read_table = killing_table  # type: ignore[method-assign]
        elif hook == "files":
            Job.map_files = killing_files  # type: ignore[method-assign]
        elif hook == "removed":
            duplicates._write_removed = self._killer(write_removed)  # type: ignore[assignment]
        elif hook == "turn":
            dedup_fuzzy.keep_edges = self._killer(keep_edges)  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        exchange.shuffle, Job.read_table, Job.map_files = self._before[:3]  # type: ignore[method-assign]
        duplicates._write_removed, dedup_fuzzy.keep_edges = self._before[3:]


class Once:
    """The one result of work that was made an iterator."""

    def __init__(self, work: Callable[..., Iterator[Any]]) -> None:
        self._work = work

    def __call__(self, *given: Any) -> Any:
        (result,) = self._work(*given)
        return result


def as_iterator(work: Callable[..., Any], *given: Any) -> Iterator[Any]:
    yield work(*given)


def make(folder: Path, texts: list[str], case: Case) -> Run:
    """The texts in four files."""
    stage = "dedup_fuzzy" if case.stage == "dedup_substring" else "filter"
    return synthetic.make_run(folder, texts, case.settings | CLUSTER, len(texts) // 4 + 1, stage)


def result(run: Run, stage: str) -> list[Any]:
    """What was committed, in an order of its own: documents that are left, drops, cuts and edges, counts and metrics."""
    done: Manifest = need(run.store, run.task(stage))
    rows = [
        json.dumps(row, default=str, sort_keys=True)
        for kind in (Kind.DROPS, Kind.CUTS, Kind.EDGES)
        for file in done.of(kind)
        for row in read_rows(run.store, file.path)
    ]
    rows += [
        json.dumps(row) for part in parts_of(done) for row in read_documents(run.store, part, ["id", "url", "text"])
    ]
    return [
        *sorted(rows),
        done.rows.model_dump_json(),
        sorted((k, v) for k, v in done.metrics.items() if k != "seconds"),
    ]


def prepare(run: Run, case: Case) -> Run:
    """Everything before the stage that dies."""
    if case.stage == "dedup_url":
        run.store.delete(run.task("dedup_url").prefix)
        return run
    if case.stage == "dedup_substring":
        return run
    for segment in run.segments:
        task = run.task("minhash_sign", segment.partition)
        minhash_sign.run(Job(run, task, Attempt(run, task)))
    return run


def compute(run: Run, case: Case) -> list[Any]:
    task = run.task(case.stage)
    STAGES[case.stage].run(Job(run, task, Attempt(run, task)))
    return result(run, case.stage)


def bench_kills(bars: Bars, folder: Path, archive: Path, only: list[str]) -> None:
    """The cases named, or all."""
    try:
        run_cases(bars, folder, archive, only)
    finally:
        stop()


def run_cases(bars: Bars, folder: Path, archive: Path, only: list[str]) -> None:
    with tarfile.open(archive) as tar:
        texts = [file.read().decode() for one in tar if one.isfile() and (file := tar.extractfile(one))]
    undisturbed: dict[str, list[Any]] = {}
    for case in CASES:
        if only and case.name not in only:
            continue
        key, calm = f"{case.stage} {case.settings}", folder / f"{case.name}_calm"
        if key not in undisturbed:
            run = prepare(make(calm, texts, case), case)
            with Hooks(case, calm / "hooks", kill=False):
                undisturbed[key] = compute(run, case)
        run = prepare(make(folder / case.name, texts, case), case)
        hooks = folder / case.name / "hooks"
        with Hooks(case, hooks, kill=True):
            same = compute(run, case) == undisturbed[key]
        bars.at_least(f"killed_{case.name}_tries", tries(hooks), 2)
        if case.tight:
            bars.at_least(f"killed_{case.name}_spilled", float((hooks / "spilled").exists()), 1)
        bars.at_least(f"killed_{case.name}_same_result", float(same), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("archive", type=Path)
    parser.add_argument("only", nargs="*", choices=[[], *(case.name for case in CASES)])
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    bars = Bars()
    bench_kills(bars, given.folder, given.archive, given.only)
    return bars.code


def stop() -> None:
    """End the session and remove what its executors logged: such a cluster keeps that beside Spark itself."""
    import pyspark

    context = pyspark.SparkContext._active_spark_context
    if context is not None:
        name = context.applicationId
        context.stop()
        shutil.rmtree(Path(pyspark.__file__).parent / "work" / name, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
