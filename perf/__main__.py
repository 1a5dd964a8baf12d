"""Throughput of every Spark stage and of pretraining on a fixed sample, against its floor: `python -m perf`.

The sample is Python's own documentation, crawled once into `home/bench`: the same pages wherever the same Python runs. One Spark
session on `--cores` cores is warmed up first, so that a rate says how fast a stage is, not how fast a JVM starts. Exits with 1
when a stage is slower than its floor. `--crawl DIR` measures over WARC files of your own, with nothing relaxed for them.
"""

import argparse
import contextlib
import importlib
import io
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trafilatura

from contract.kinds import Kind
from contract.manifest import Attempt, Manifest, find
from contract.plan import Run, Task, resolve
from contract.stages import STAGES
from contract.tables import read_rows
from demo import crawl_pydoc
from demo.source import PYDOC_OVERRIDES
from pipelines.spark.job import Job

PAGES = 600
# Units a second and core that a stage must reach. Taken on two cores that other work shared, so a quiet machine passes with ease and
# what falls below has a defect. That of extract is measured beside it: a share of what trafilatura alone does in a loop over the same pages.
FLOORS: dict[str, tuple[str, float]] = {
    "crawl": ("pages", 50.0),
    "langid": ("pages", 300.0),
    "score": ("pages", 100.0),
    "filter": ("pages", 300.0),
    "minhash_sign": ("pages", 250.0),
    "pack": ("tokens", 30_000.0),
    "pretrain": ("tokens", 1_000.0),
}
PLAIN_PAGES = 150
PLAIN_SHARE = 0.7  # what Spark, the guard and the store may cost beside plain extraction: the rest


@dataclass(frozen=True)
class Measured:
    """One row of the report. `units` were done in `seconds` on all cores together."""

    stage: str
    seconds: float
    units: float
    unit: str
    floor: float | None
    written: int = 0
    """Bytes of the files that the stage wrote itself."""

    def line(self, cores: int) -> str:
        rate = self.units / self.seconds / cores
        shown = f"{self.stage:<16}{self.seconds:>8.1f} s{rate:>14,.1f} {self.unit}/s/core"
        shown = f"{shown:<58}{self.written / self.units:>10,.1f} B each"
        return f"{shown:<78}" + (
            "" if self.floor is None else f"floor {self.floor:>10,.1f}   x {rate / self.floor:.2f}"
        )

    def too_slow(self, cores: int) -> bool:
        return self.floor is not None and self.units / self.seconds / cores < self.floor


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--where", type=Path, default=Path("home/bench"))
    parser.add_argument("--crawl", type=Path, help="a folder of WARC files, instead of the sample")
    given = parser.parse_args()
    run = _prepare(given.where, given.cores, given.crawl)
    print(f"{given.crawl or f'{PAGES} pages'}, {given.cores} cores\n")
    rows = []
    floors = dict(FLOORS)
    for task in run.tasks().values():
        if STAGES[task.stage].plane == "spark" or task.stage == "pretrain":
            if task.stage == "extract":
                floors["extract"] = ("pages", PLAIN_SHARE * _plain_extraction(run))
            row = _measure(run, task, *floors.get(task.stage, ("rows", None)))
            rows.append(row)
            print(row.line(given.cores), flush=True)
    slow = [row.stage for row in rows if row.too_slow(given.cores)]
    print(f"\nslower than their floor: {', '.join(slow)}" if slow else "\nevery floor is reached")
    return 1 if slow else 0


def _prepare(where: Path, cores: int, crawl: Path | None) -> Run:
    """The sample, a store of this run's own, and a Spark session that has done something."""
    sample = crawl or where / "PYDOC"
    if not sample.exists():
        crawl_pydoc.crawl(sample, PAGES)
    store = where / f"store-{time.strftime('%Y%m%dT%H%M%S')}"
    settings = (f"store={store}", f"spark.master=local[{cores}]", f"crawl.source={sample}", "pretrain.steps=30")
    run = resolve("recipes/tiny.yaml", "bench", (*settings, *(() if crawl else PYDOC_OVERRIDES)))
    first = next(iter(run.tasks().values()))
    job = Job(run, first, Attempt(run, first))
    job.context.parallelize(range(cores), cores).map(str).collect()
    job.spark.range(cores).groupBy("id").count().collect()  # for the stages that work on tables
    return run


def _plain_extraction(run: Run) -> float:
    """Pages a second that trafilatura does on one core, in a plain loop, with the settings that the stage uses."""
    crawled = [find(run.store, task) for task in run.tasks().values() if task.stage == "crawl"]
    pages = [
        row["payload"]
        for done in crawled
        if done
        for file in done.of(Kind.PAGES)
        for row in read_rows(run.store, file.path)
    ]
    some = pages[:: max(1, len(pages) // PLAIN_PAGES)]
    trafilatura.extract(some[0])
    began = time.perf_counter()
    for payload in some:
        trafilatura.extract(payload.decode("utf-8", "replace"), include_comments=False)
    return len(some) / (time.perf_counter() - began)


def _measure(run: Run, task: Task, unit: str, floor: float | None) -> Measured:
    began = time.perf_counter()
    if STAGES[task.stage].plane == "spark":
        with contextlib.redirect_stdout(io.StringIO()):  # its progress lines
            importlib.import_module(f"pipelines.{task.stage}").run(Job(run, task, Attempt(run, task)))
    else:
        subprocess.run(
            [sys.executable, "-m", "training", task.stage, "--recipe", run.uri], check=True, stdout=subprocess.DEVNULL
        )
    seconds = time.perf_counter() - began
    manifest = find(run.store, task)
    assert manifest is not None
    own = f"{task.prefix}/"  # a manifest also lists files of the stages before, which it leaves as they are
    written = sum(file.bytes for file in manifest.files if file.path.startswith(own))
    spent = float(manifest.metrics.get("seconds") or seconds)
    return Measured(task.stage, spent, UNITS[unit](manifest), unit, floor, written)


def _rows(manifest: Manifest) -> float:
    documents = manifest.rows.read or manifest.rows.kept or manifest.metrics.get("sample_documents")
    return float(documents or sum(file.rows for file in manifest.files))


def _tokens(manifest: Manifest) -> float:
    return float(manifest.metrics["tokens"] or 0)


UNITS: dict[str, Callable[[Manifest], float]] = {"pages": _rows, "rows": _rows, "tokens": _tokens}

if __name__ == "__main__":
    sys.exit(main())
