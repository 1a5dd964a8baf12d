"""A run whose corpus is committed, for the benches that train: the one of the tests, of a few hundred little texts."""

import os
from pathlib import Path

from contract.manifest import Attempt
from contract.plan import Run, resolve
from tests.training.conftest import RECIPE, commit_corpus, join_alone, train_tokenizer
from training.engine.job import Job


def make_run(folder: Path, *overrides: str, entries: int = 0) -> Run:
    """A run in a store of its own below the folder.

    `entries`: of the vocabulary. The little texts need few; the rest are tokens that never occur, so that the model has
    a head as wide as a real one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    crawl, recipe = folder / "crawl", folder / "recipe.yaml"
    crawl.mkdir()
    (crawl / "part.warc.gz").write_bytes(b"WARC")
    recipe.write_text(f"{RECIPE}crawl: {{source: {crawl}}}\n")
    made = resolve(str(recipe), "bench", [f"store={folder}/store", *overrides])
    tokenizer = train_tokenizer()
    tokenizer.add_tokens([f"<unused {number}>" for number in range(tokenizer.get_vocab_size(), entries)])
    commit_corpus(made, tokenizer)
    return made


def make_job(folder: Path, *overrides: str, entries: int = 0) -> Job:
    """Pretraining of such a run in this process, its only one."""
    os.environ["GRISTMILL_SCRATCH"] = str(folder / "scratch")
    join_alone()
    made = make_run(folder, *overrides, entries=entries)
    task = made.task("pretrain")
    return Job(made, task, Attempt(made, task))
