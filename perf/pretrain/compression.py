"""Compare compressors with a model that trained for about ten minutes on two cores, on text that neither has seen.

The crawl files of the test data run through the stages that make the corpus; more than 400 kB of its text is held out. The model's bits are
its held-out nll over all of that text; each byte that it is not asked for, as the first of a document, costs it 8 bits. gzip and zstd compress
the same documents as one stream; zstd is also given all of the training text as its dictionary.

`bits_per_byte_vs_gzip`, `_vs_zstd19` and `_vs_zstd19_dictionary`: the model's bits per byte over the compressor's.
"""

import contextlib
import gzip
import importlib
import io
import math
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import zstandard

from contract.kinds import Kind
from contract.manifest import Attempt, need
from contract.plan import Run
from contract.tables import read_batches
from perf.bars import Bars
from perf.written import corpus
from pipelines.spark.job import Job as SparkJob
from tests.training.conftest import join_alone
from training import pretrain
from training.chat.template import open_chat
from training.data.reading import TokenData
from training.engine.job import Job
from training.models import llama
from training.models.lm import heldout_loss, heldout_text

SETTINGS = (
    "mix.heldout_fraction=0.16",
    "tokenizer.vocab_size=4096",
    "pack.seq_len=256",
    "pretrain.model={layers: 4, d_model: 192, heads: 4, kv_heads: 4, d_ff: 512}",
    "pretrain.optim={optimizer: muon, lr: 4.0e-3, schedule: linear, min_lr_fraction: 0.0}",
    "pretrain.batch=16",
    "pretrain.engine={micro_batch: 16, checkpoint_steps: 500}",
    "pretrain.steps=600",
    "pretrain.eval_steps=200",
    "pretrain.eval_sequences=64",
)
LEAST_BYTES = 400_000


def run(bars: Bars, data: Path) -> None:
    with TemporaryDirectory() as folder:
        made = corpus(data, Path(folder), *SETTINGS)
        for stage in ("tokenizer", "pack"):
            with contextlib.redirect_stdout(io.StringIO()):
                importlib.import_module(f"pipelines.{stage}").run(
                    SparkJob(made, made.task(stage), Attempt(made, made.task(stage)))
                )
        seen, unseen = (texts(made, kind) for kind in (Kind.DOCUMENTS, Kind.HELDOUT))
        bars.at_least("heldout_bytes", len(unseen), LEAST_BYTES)
        model = bits_of_model(made, Path(folder), len(unseen)) / len(unseen)
        print(f"model: {model:.3f} bits per byte of {len(unseen):,} bytes held out, {len(seen):,} to train on")
        bounds = {"gzip": 1.0, "zstd19": math.inf, "zstd19_dictionary": math.inf}
        for name, size in compressed(unseen, seen).items():
            print(f"{name}: {8 * size / len(unseen):.3f} bits per byte")
            bars.at_most(f"bits_per_byte_vs_{name}", model / (8 * size / len(unseen)), bounds[name])


def texts(run: Run, kind: Kind) -> bytes:
    """All documents of a kind, one after the other."""
    files = need(run.store, run.task("mix")).of(kind)
    batches = (batch for file in files for batch in read_batches(run.store, file, 1024, ["text"]))
    return "".join(text.as_py() for batch in batches for text in batch["text"]).encode()


def bits_of_model(run: Run, folder: Path, size: int) -> float:
    """The bits that a model, trained here, needs for all held-out text, of `size` bytes."""
    os.environ["GRISTMILL_SCRATCH"] = str(folder / "scratch")
    join_alone()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    task = run.task("pretrain")
    job = Job(run, task, Attempt(run, task))
    with job.leading(job.attempt), job.scratch.held():
        pretrain.run(job)
        module = llama.load_model(job, need(run.store, task))
        heldout = TokenData(job, Kind.HELDOUT_TOKENS, job.setting("pack.seq_len"))
        batches = heldout_text(job, heldout, len(heldout), 16)
        found = heldout_loss(job, module, batches, 16, open_chat(job).token_bytes(), list(heldout.sources))
    nll, asked = (sum(getattr(one, name) for one in found.values()) for name in ("nll", "bytes"))
    return float(nll / math.log(2) + 8 * (size - asked))


def compressed(text: bytes, dictionary: bytes) -> dict[str, int]:
    """The size in bytes of the text after each compressor."""
    known = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    settings = zstandard.ZstdCompressionParameters.from_level(
        19, source_size=len(text), dict_size=len(dictionary), window_log=math.ceil(math.log2(len(text + dictionary)))
    )
    return {
        "gzip": len(gzip.compress(text, 9)),
        "zstd19": len(zstandard.ZstdCompressor(level=19).compress(text)),
        "zstd19_dictionary": len(zstandard.ZstdCompressor(compression_params=settings, dict_data=known).compress(text)),
    }
