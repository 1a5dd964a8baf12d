"""Documents a second and core, and bytes written, of the stages that work on the whole corpus: `python -m perf.rates [--documents N]`.

`python -m perf --crawl DIR` measures the stages before them, on real pages. These need more documents than a test has, or Spark's
start is all that is measured; so they get made-up ones, of the length and with the duplicates of a crawl. training/rates.py holds
what this printed.
"""

import argparse
import contextlib
import importlib
import io
import tempfile
import time
from pathlib import Path

from contract.manifest import Attempt, Manifest, find
from contract.plan import Run, Task, open_run, resolve
from perf import synthetic
from pipelines.spark.job import Job

STAGES = ("minhash_sign", "dedup_url", "dedup_fuzzy", "dedup_substring", "decontaminate", "mix", "tokenizer", "pack")
WORDS = 350  # a document: about 620 tokens' worth of characters


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m perf.rates", description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--cores", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = synthetic.make_run(Path(folder), synthetic.texts(given.documents, WORDS), {})
        # Another setting of dedup_url, because that of `made` is committed already.
        recipe = open_run(made.uri).recipe
        run = resolve(made.uri.partition("#")[0], "rates", ("dedup_url.keep=first", f"store={recipe.store}"))
        print(f"{given.documents:,} documents, {given.cores} cores\n", flush=True)
        measure(run, run.task("curate"))  # it has no sources here, but the stages behind it need its manifest
        for task in run.tasks().values():
            if task.stage in STAGES:
                print(line(task, *measure(run, task), given.cores), flush=True)


def measure(run: Run, task: Task) -> tuple[float, Manifest]:
    """(seconds, the stage's manifest)."""
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module(f"pipelines.{task.stage}").run(Job(run, task, Attempt(run, task)))
    seconds, manifest = time.perf_counter() - began, find(run.store, task)
    assert manifest is not None
    return seconds, manifest


def line(task: Task, seconds: float, manifest: Manifest, cores: int) -> str:
    """A stage's documents a second and core, and the bytes that it wrote itself for each."""
    documents = manifest.rows.read or manifest.metrics.get("sample_documents") or manifest.metrics.get("documents")
    documents = float(documents or sum(file.rows for file in manifest.files))
    written = sum(file.bytes for file in manifest.files if file.path.startswith(f"{task.prefix}/"))
    rate = documents / seconds / cores
    return f"{task.stage:<16}{seconds:>8.1f} s{rate:>12,.1f} documents/s/core{written / documents:>10,.1f} B each"


if __name__ == "__main__":
    main()
