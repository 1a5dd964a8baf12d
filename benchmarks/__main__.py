"""Throughput of every Spark stage and of pretraining on a fixed sample, against its floor: `python -m benchmarks`.

The sample is Python's own documentation, crawled once into `home/bench`: the same pages wherever the same Python runs. One Spark
session on `--cores` cores is warmed up first, so that a rate says how fast a stage is, not how fast a JVM starts. Exits with 1
when a stage is slower than its floor.
"""

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contract.manifest import Attempt, Manifest, find
from contract.plan import Run, Task, resolve
from contract.stages import STAGES
from demo import crawl_pydoc
from demo.source import PYDOC_OVERRIDES
from pipelines.job import Job

PAGES = 600
# Units a second and core that a stage must reach: half of what it reached on two cores of a laptop-class machine, so that a slower
# machine passes and a defect that halves the speed does not. extract: what the peer's extraction step reaches, 16.3 pages/s at 60 %
# of its time (datatrove 0.10.1, FineWeb's steps, trafilatura).
FLOORS: dict[str, tuple[str, float]] = {
    "crawl": ("pages", 100.0),
    "extract": ("pages", 27.0),
    "langid": ("pages", 100.0),
    "filter": ("pages", 30.0),
    "minhash_sign": ("pages", 50.0),
    "pack": ("tokens", 50_000.0),
    "pretrain": ("tokens", 1_000.0),
}


@dataclass(frozen=True)
class Measured:
    """One row of the report. `units` were done in `seconds` on all cores together."""

    stage: str
    seconds: float
    units: float
    unit: str
    floor: float | None

    def line(self, cores: int) -> str:
        rate = self.units / self.seconds / cores
        shown = f"{self.stage:<16}{self.seconds:>8.1f} s{rate:>14,.1f} {self.unit}/s/core"
        return f"{shown:<60}" + (
            "" if self.floor is None else f"floor {self.floor:>10,.1f}   x {rate / self.floor:.2f}"
        )

    def too_slow(self, cores: int) -> bool:
        return self.floor is not None and self.units / self.seconds / cores < self.floor


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--where", type=Path, default=Path("home/bench"))
    given = parser.parse_args()
    run = _prepare(given.where, given.cores)
    print(f"{PAGES} pages, {given.cores} cores\n")
    rows = []
    for task in run.tasks().values():
        if STAGES[task.stage].plane == "spark" or task.stage == "pretrain":
            row = _measure(run, task)
            rows.append(row)
            print(row.line(given.cores), flush=True)
    slow = [row.stage for row in rows if row.too_slow(given.cores)]
    print(f"\nslower than their floor: {', '.join(slow)}" if slow else "\nevery floor is reached")
    return 1 if slow else 0


def _prepare(where: Path, cores: int) -> Run:
    """The sample, a store of this run's own, and a Spark session that has done something."""
    sample = where / "PYDOC"
    if not sample.exists():
        crawl_pydoc.crawl(sample, PAGES)
    store = where / f"store-{time.strftime('%Y%m%dT%H%M%S')}"
    settings = (f"store={store}", f"spark.master=local[{cores}]", f"crawl.source={sample}", "pretrain.steps=30")
    run = resolve("recipes/tiny.yaml", "bench", (*settings, *PYDOC_OVERRIDES))
    first = next(iter(run.tasks().values()))
    Job(run, first, Attempt(run, first)).spark.sparkContext.parallelize(range(cores), cores).map(str).collect()
    return run


def _measure(run: Run, task: Task) -> Measured:
    began = time.perf_counter()
    if STAGES[task.stage].plane == "spark":
        importlib.import_module(f"pipelines.{task.stage}").run(Job(run, task, Attempt(run, task)))
    else:
        subprocess.run(
            [sys.executable, "-m", "training", task.stage, "--recipe", run.uri], check=True, stdout=subprocess.DEVNULL
        )
    seconds = time.perf_counter() - began
    manifest = find(run.store, task)
    assert manifest is not None
    unit, floor = FLOORS.get(task.stage, ("rows", None))
    return Measured(task.stage, float(manifest.metrics.get("seconds") or seconds), UNITS[unit](manifest), unit, floor)


def _rows(manifest: Manifest) -> float:
    return manifest.rows.read or manifest.rows.kept or sum(file.rows for file in manifest.files)


def _tokens(manifest: Manifest) -> float:
    return float(manifest.metrics["tokens"] or 0)


UNITS: dict[str, Callable[[Manifest], float]] = {"pages": _rows, "rows": _rows, "tokens": _tokens}

if __name__ == "__main__":
    sys.exit(main())
