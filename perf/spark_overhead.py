"""What Spark costs the extract stage beside plain multiprocessing, and whether twice the input takes twice the time.

`python -m perf.spark_overhead [--data DIR]`: the test data's crawl files, several times over, are crawled into a store of this
run's own; then the stage extracts them on a warm Spark session, and a multiprocessing.Pool of as many workers calls the very same
function on the same groups of files. Starting the session and importing the libraries is in neither time: both have worked before.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import sys
import time
from functools import partial
from pathlib import Path

from contract.kinds import Kind
from contract.manifest import Attempt
from contract.plan import Run, Task, resolve
from perf.bars import Bars
from perf.extract import NAMES
from pipelines import crawl, extract
from pipelines.spark.job import Job
from pipelines.spark.tables import group_rows

OVERHEAD, DOUBLING = 0.10, 0.10


def crawled(where: Path, data: Path, copies: int, cores: int) -> tuple[Run, Task]:
    """A run whose crawl stage is done over the files, `copies` times; its task of the extract stage."""
    folder = where / f"CC-{copies:03d}"
    folder.mkdir(parents=True)
    for copy in range(copies):
        for name in NAMES:
            (folder / f"{copy:03d}-{name}.warc.gz").symlink_to((data / "html_gold" / f"{name}.dev.warc.gz").resolve())
    settings = (
        f"store={where / 'store'}",
        f"spark.master=local[{cores}]",
        f"crawl.source={folder}",
        "crawl.files_per_segment=1000",
    )
    run = resolve("recipes/tiny.yaml", f"bench-{copies}", settings)
    tasks = run.tasks().values()
    for task in tasks:
        if task.stage == "crawl":
            with contextlib.redirect_stdout(io.StringIO()):
                crawl.run(Job(run, task, Attempt(run, task)))
    [found] = [task for task in tasks if task.stage == "extract"]
    return run, found


def on_spark(run: Run, task: Task) -> tuple[float, int]:
    """(seconds, pages) of the stage's map over its groups, nothing committed."""
    job = Job(run, task, Attempt(run, task))
    groups, work = work_of(job)
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        output = job.map_files(groups, work, "groups")
    return time.perf_counter() - began, output.counts.read


def on_pool(run: Run, task: Task, pool: "multiprocessing.pool.Pool") -> tuple[float, int]:
    """The same with a pool of processes."""
    job = Job(run, task, Attempt(run, task))
    groups, work = work_of(job)
    named = [(group, f"{index:05d}") for index, group in enumerate(groups)]
    began = time.perf_counter()
    outputs = pool.starmap(work, named, chunksize=1)
    return time.perf_counter() - began, sum(output.counts.read for output in outputs)


def work_of(job: Job) -> tuple[list[extract.Share], partial]:
    """The stage's tasks, but that copies are worked on like other pages: the files here are copies of each other."""
    languages = tuple(sorted(job.setting("langid.languages")))
    groups = group_rows(job.inputs("crawl", Kind.PAGES), extract.GROUP_ROWS)
    return [extract.Share(files) for files in groups], partial(
        extract._work, job.store, job.prefix, job.settings, languages
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.spark_overhead", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--where", type=Path, default=Path(".bench"))
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--copies", type=int, default=8, help="of the crawl files; and twice as many")
    given = parser.parse_args()
    where = (given.where / time.strftime("spark-%Y%m%dT%H%M%S")).resolve()
    warm = crawled(where, given.data, 1, given.cores)
    once = crawled(where, given.data, given.copies, given.cores)
    twice = crawled(where, given.data, 2 * given.copies, given.cores)
    cold, _ = on_spark(*warm)
    started, pages = on_spark(*warm)
    print(f"{pages} pages: {cold:.1f} s with workers that start and import, {started:.1f} s with warm ones")
    with multiprocessing.Pool(given.cores) as pool:
        on_pool(*warm, pool)
        plain = [on_pool(*one, pool)[0] for one in (once, twice)]
    spark, counts = zip(*(on_spark(*one) for one in (once, twice)), strict=True)
    for count, ours, theirs in zip(counts, spark, plain, strict=True):
        print(
            f"{count:,} pages on {given.cores} cores: Spark {ours:.1f} s, multiprocessing {theirs:.1f} s, x {ours / theirs:.3f}"
        )
    bars = Bars()
    bars.at_most("extract_spark_overhead", sum(spark) / sum(plain) - 1, OVERHEAD)
    bars.at_most("extract_doubling_off_by", abs(spark[1] / spark[0] * counts[0] / counts[1] - 1), DOUBLING)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
