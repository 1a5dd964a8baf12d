"""How often a corpus's text is written: `python -m perf.written [--data DIR]`.

The test data's crawl files run through every stage that makes the corpus. What each stage writes of texts is compared with what it would
write if every stage that keeps documents wrote their texts again, as the first two of them and `mix` must. `mix` writes each text twice:
once on its way to the shards. Bytes are those of the texts in UTF-8; the pages of `crawl` are in neither sum.
"""

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
from pathlib import Path

import pyarrow.compute as pc

from contract.kinds import Kind
from contract.manifest import Attempt, Manifest, need
from contract.plan import Run, resolve
from contract.store import Store
from contract.tables import read_batches
from perf.bars import Bars
from perf.extract import NAMES
from pipelines.spark.job import Job

STAGES = (
    "crawl", "extract", "langid", "score", "filter", "minhash_sign", "curate", "dedup_url", "dedup_fuzzy", "dedup_substring",
    "decontaminate", "mix",
)  # fmt: skip
KEEP_TEXTS = ("extract", "langid", "score", "filter", "dedup_substring", "decontaminate", "mix")
TWICE = "mix"
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "pl", "ru", "zh", "ja")
RATIO = 0.6


def corpus(data: Path, where: Path, *overrides: str) -> Run:
    """A run over the crawl files that has made its mixture."""
    (where / "crawl").mkdir()
    for name in NAMES:
        (where / "crawl" / f"{name}.warc.gz").symlink_to((data / "html_gold" / f"{name}.dev.warc.gz").resolve())
    settings = {"store": f"{where}/store", "spark.master": "local[2]", "crawl.source": f"{where}/crawl"}
    settings |= {"langid.languages": json.dumps(LANGUAGES)}
    settings |= {"decontaminate.benchmarks": json.dumps({"gsm8k": str((data / "evals/gsm8k/train.jsonl").resolve())})}
    run = resolve("recipes/tiny.yaml", "bench", [*(f"{key}={value}" for key, value in settings.items()), *overrides])
    for (stage, _), task in run.tasks().items():
        if stage in STAGES:
            with contextlib.redirect_stdout(io.StringIO()):
                importlib.import_module(f"pipelines.{stage}").run(Job(run, task, Attempt(run, task)))
    return run


def text_bytes(store: Store, manifest: Manifest) -> int:
    """The bytes of all texts that the task itself wrote."""
    return sum(
        pc.sum(pc.binary_length(batch["text"])).as_py() or 0
        for file in manifest.of(Kind.DOCUMENTS, Kind.HELDOUT)
        if file.path.startswith(f"{manifest.prefix}/")
        for batch in read_batches(store, file, 1024, ["text"])
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.written", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    written, kept = dict.fromkeys(STAGES, 0), dict.fromkeys(STAGES, 0)
    with tempfile.TemporaryDirectory(prefix="gristmill-written-") as where:
        run = corpus(given.data, Path(where))
        for (stage, _), task in run.tasks().items():
            if stage in KEEP_TEXTS:
                times, manifest = 1 + (stage == TWICE), need(run.store, task)
                written[stage] += times * text_bytes(run.store, manifest)
                kept[stage] += times * manifest.rows.bytes_kept
    extracted = written["extract"]
    for stage in KEEP_TEXTS:
        print(f"{stage:<16} keeps {kept[stage]:>12,} bytes of text and writes {written[stage]:>12,}")
    now, then = sum(written.values()), sum(kept.values())
    print(f"for each byte of extracted text {now / extracted:.2f} are written, and {then / extracted:.2f} if all wrote")
    bars = Bars()
    bars.at_most("text_written_ratio", now / then, RATIO)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
