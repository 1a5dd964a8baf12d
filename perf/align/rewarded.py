"""Runs for the benches of alignment: stages in this very process, on a corpus and on preferences that are committed."""

import importlib
import io
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from contract.conversation import Preference
from contract.kinds import Kind
from contract.manifest import Attempt, Manifest, find, need
from contract.plan import Run, resolve
from contract.schema import PAIRS
from pipelines.preferences import row
from pipelines.spark import job as spark_job
from tests.training.conftest import commit, commit_corpus, join_alone
from training.engine.job import Job


def make_run(
    folder: Path, recipe: str, tokenizer: Tokenizer | None = None, write: Callable[[int, int], list[str]] | None = None
) -> Run:
    """A run of a recipe's text in a store of its own below the folder, whose corpus is committed.

    `write(count, seed)` gives the documents, seed 1 those to train on, and 2 those that are held out.
    """
    crawl, path = folder / "crawl", folder / "recipe.yaml"
    crawl.mkdir(parents=True)
    (crawl / "part.warc.gz").write_bytes(b"WARC")
    path.write_text(f"{recipe}\nstore: {folder}/store\ncrawl: {{source: {crawl}}}\n")
    os.environ["GRISTMILL_SCRATCH"] = str(folder / "scratch")
    join_alone()
    made = resolve(str(path), "bench")
    if write is None:
        commit_corpus(made, tokenizer)
    else:
        commit_corpus(made, tokenizer, write)
    return made


def job_of(run: Run, stage: str) -> Job:
    """A stage's job in this process, its only one."""
    task = run.task(stage)
    return Job(run, task, Attempt(run, task))


def make(run: Run, *stages: str) -> Manifest:
    """Run stages of the corpus or of training, but those that are done; returns the manifest of the last."""
    for stage in stages:
        if find(run.store, run.task(stage)) is None:
            module = importlib.import_module(f"{'pipelines' if stage in EXAMPLES else 'training'}.{stage}")
            if stage in EXAMPLES:
                with redirect_stdout(io.StringIO()):
                    module.run(spark_job.Job(run, run.task(stage), Attempt(run, run.task(stage))))
            else:
                module.run(job_of(run, stage))
    return need(run.store, run.task(stages[-1]))


EXAMPLES = ("instructions", "preferences")


def commit_pairs(run: Run, train: Sequence[Preference], heldout: Sequence[Preference]) -> None:
    """Commit preferences as the stage `preferences` does."""
    files = {}
    for kind, pairs in ((Kind.PAIRS, train), (Kind.HELDOUT_PAIRS, heldout)):
        rows = [{"id": f"{number:032x}", "source": "bench"} | row(pair) for number, pair in enumerate(pairs)]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, PAIRS), sink, write_page_checksum=True)
        files[f"{kind}.parquet"] = (kind, sink.getvalue(), len(rows))
    commit(run, "preferences", files)
