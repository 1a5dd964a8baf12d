"""How long a step of pretraining waits for its batch, from a store that takes 20 ms to answer each request.

Model, batch and sequence length are those of recipes/tiny.yaml, on one core. Blocks are of 128 rows, so that one is
begun every 16 steps of 8 rows, as blocks of 4,096 rows are by batches of 256. Chunks and cache are smaller likewise.
"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from tokenizers import Tokenizer, models

from contract.chat import SPECIAL_TOKENS, dump_special_tokens
from contract.kinds import Kind
from contract.manifest import Attempt, File, need
from contract.output import write_file
from contract.plan import Run, resolve
from contract.results import result_of
from contract.store import Store
from perf.bars import Bars
from perf.packed import write_shard
from perf.slow_store import Asked, slow_store
from training import pretrain
from training.data import order, reading
from training.data.reading import TokenData
from training.data.stream import Ranges
from training.engine.job import Job
from training.engine.ranks import join
from training.engine.scratch import Scratch

DELAY_S = 0.02
VOCABULARY, SEQ_LEN, STEPS = 4096, 256, 240
BLOCK, CHUNK, CACHE = 128, 1 << 16, 1 << 20
SHARDS, DOCUMENTS = 4, 4000


def write_corpus(run: Run) -> None:
    """Commit a tokenizer of the recipe's size, which encodes nothing here, and shards of random documents."""
    names = [*SPECIAL_TOKENS.values(), *(f"t{number}" for number in range(VOCABULARY - len(SPECIAL_TOKENS)))]
    vocabulary = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, [])).to_str().encode()
    attempt = Attempt(run, run.task("tokenizer"))
    files = [
        write_file(run.store, attempt.path("tokenizer.json"), Kind.TOKENIZER, vocabulary),
        write_file(run.store, attempt.path("special.json"), Kind.SPECIAL_TOKENS, dump_special_tokens(SPECIAL_TOKENS)),
    ]
    attempt.commit(files, result=result_of("tokenizer").model_construct())
    attempt = Attempt(run, run.task("pack"))
    random, packed = np.random.default_rng(0), list[File]()
    for part, kind in enumerate([*[Kind.TOKENS] * SHARDS, Kind.HELDOUT_TOKENS]):
        texts = [random.integers(0, VOCABULARY, size).tolist() for size in random.integers(1, 600, DOCUMENTS)]
        packed += write_shard(run.store, attempt.path(f"part-{part}"), part, kind, texts, [SEQ_LEN])
    attempt.commit(packed, result=result_of("pack").model_construct())


@contextlib.contextmanager
def far(folder: Path) -> Iterator[Asked]:
    """Let training read tokens from a slow store; manifests and results stay in the run's own."""

    def ranges(scratch: Scratch) -> Ranges:
        away = Scratch(Store("s3://runs"), scratch.stage, scratch.attempt)
        return Ranges(away, limit=CACHE, chunk=CHUNK)

    with slow_store(folder, DELAY_S) as (endpoint, asked), contextlib.ExitStack() as changed:
        keys = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        changed.enter_context(mock.patch.dict(os.environ, keys))
        changed.enter_context(mock.patch.object(reading, "Ranges", ranges))
        changed.enter_context(mock.patch.object(order, "BLOCK", BLOCK))
        yield asked


def run(bars: Bars, data: Path) -> None:
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="gristmill-reading-"))
    try:
        _measure(bars, folder)
    finally:
        shutil.rmtree(folder)


def _measure(bars: Bars, folder: Path) -> None:
    (folder / "crawl").mkdir()
    (folder / "crawl" / "part.warc.gz").write_bytes(b"WARC")
    given = (f"store={folder / 'runs'}", f"crawl.source={folder / 'crawl'}", f"pretrain.steps={STEPS}")
    run = resolve("recipes/tiny.yaml", "bench", (*given, "pretrain.eval_sequences=8"))
    write_corpus(run)
    os.environ["GRISTMILL_SCRATCH"] = str(folder / "scratch")
    ranks = join()
    first: list[dict[str, int]] = []
    whole = TokenData.batch

    def batch(self: TokenData, *given: Any, **more: Any) -> Any:
        made = whole(self, *given, **more)
        first.append(dict(asked.sent))
        return made

    with far(folder) as asked, mock.patch.object(TokenData, "batch", batch):
        task = run.task("pretrain")
        with contextlib.redirect_stdout(io.StringIO()):
            pretrain.run(Job(run, task, Attempt(run, task), ranks))
    manifest = need(run.store, run.task("pretrain"))
    figures = manifest.metrics
    step_s = figures["seconds"] / STEPS
    size = sum(file.bytes for file in need(run.store, run.task("pack")).of(Kind.TOKENS))
    print(
        f"{STEPS} steps of {step_s * 1000:.0f} ms, waiting {figures['reader_share'] * step_s * 1000:.2f} ms each; "
        f"{asked.requests} requests of {DELAY_S * 1000:.0f} ms; tokens fetched by the first batch "
        f"{first[0]['.bin'] / 1e6:.2f} MB, in all {asked.sent['.bin'] / 1e6:.2f} MB of {size / 1e6:.1f} MB"
    )
    bars.at_most("reader_share_of_step", figures["reader_share"], 0.02)
