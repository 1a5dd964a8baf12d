"""Joins the crawl with decontaminated curated sources, repeats each source for its epochs, holds out some documents,
and shuffles the rest.

The shuffle goes through the store instead of Spark. First, each input file is dealt into row groups, each for one
shard. Then each shard collects its row groups from all files and sorts the rows by a hash of seed, document and copy.
A worker's memory must hold one shard, and 8 bytes for each held-out document.
"""

import gzip
import io
import json
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from contract import results
from contract.documents import Part, read_documents, read_part
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import File
from contract.schema import DOCUMENTS, Drop
from contract.settings.corpus import Decontaminate, Mix
from contract.store import Store, split_uri
from pipelines.decontaminate import Judge, describe, load_benchmarks
from pipelines.decontamination.findings import Findings, summarise
from pipelines.spark.documents import Counts, DocumentSink, Output
from pipelines.spark.heldout import contains, heldout, is_heldout
from pipelines.spark.job import Job
from pipelines.spark.tables import COMPRESSION, TableWriter
from pipelines.text.mixing import Hashes

KINDS = (Kind.DOCUMENTS, Kind.HELDOUT)
HELDOUT = -1  # the shard of held-out documents
HELD_BYTES = 64 << 20  # bytes of text that a worker buffers before it writes them

DEALT = pa.schema([("order", pa.uint64()), *DOCUMENTS])


@dataclass(frozen=True)
class Item:
    """One input: a part of the crawl, or the JSONL file of a curated source at `uri`."""

    source: str
    epochs: float
    part: Part | None = None
    uri: str = ""


def draw(seed: int, what: str, key: str) -> int:
    """64 pseudo-random bits, a pure function of the arguments."""
    return xxhash.xxh3_64_intdigest(f"{seed} {what} {key}".encode())


def copies(epochs: float, seed: int, key: str) -> int:
    """How often to take a document. With 2.5 epochs: twice, and a third time if its hash is in the lower half."""
    whole = int(epochs)
    return whole + (draw(seed, "epochs", key) < (epochs - whole) * 2**64)


def read_curated(source: str, uri: str) -> Iterator[dict[str, Any] | None]:
    """Yield the documents of a JSONL file (gzip or plain), and None for each line without a usable `text`.

    A document's id is a hash of source and line number. Raises InputError if the file cannot be read.
    """
    folder, name = split_uri(uri)
    try:
        with folder.open_input(name) as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if packed else io.BufferedReader(raw) as lines:
                for number, line in enumerate(lines):
                    if line.strip():
                        yield parse_curated(source, number, line)
    except (FileNotFoundError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"mix.sources.{source}.uri: {uri} cannot be read: {error}") from None


def parse_curated(source: str, number: int, line: bytes) -> dict[str, Any] | None:
    """One line as a row of DOCUMENTS; None if it is not a JSON object with a non-empty `text` of valid Unicode."""
    try:
        value = json.loads(line)
        text = value["text"]
        text.encode()
        text = unicodedata.normalize("NFC", text)  # like the texts of `extract`
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not text.strip():
        return None
    row = dict.fromkeys(DOCUMENTS.names)
    url = value.get("url")
    key = xxhash.xxh3_128_hexdigest(f"{source} {number}".encode())
    return row | {"id": key, "url": url if isinstance(url, str) else None, "source": source, "text": text}


class ShardedRows:
    """Writes rows to one Parquet file in which each row group belongs to one shard; the metadata lists these shards."""

    def __init__(self, store: Store, path: str) -> None:
        self._store, self._path = store, path
        self._rows: dict[int, list[dict[str, Any]]] = {}
        self._held = self._count = 0
        self._groups: list[int] = []
        self._sink: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None

    def add(self, shard: int, row: dict[str, Any], size: int) -> None:
        self._rows.setdefault(shard, []).append(row)
        self._held += size
        self._count += 1
        if self._held >= HELD_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._sink = self._store.open_output(self._path)
            self._writer = pq.ParquetWriter(self._sink, DEALT, compression=COMPRESSION)
        for shard, rows in sorted(self._rows.items()):
            self._writer.write_table(pa.Table.from_pylist(rows, DEALT), row_group_size=len(rows))
            self._groups.append(shard)
        self._rows, self._held = {}, 0

    def close(self) -> list[File]:
        if not self._count:
            return []
        self._flush()
        assert self._writer is not None
        assert self._sink is not None
        self._writer.add_key_value_metadata({"shards": json.dumps(self._groups)})
        self._writer.close()
        self._sink.close()
        return [File(path=self._path, kind=Kind.DEALT, bytes=0, rows=self._count)]


def text_hash(text: str) -> int:
    """A 64-bit hash of a text."""
    return xxhash.xxh3_64_intdigest(text.encode())


def drawn(store: Store, settings: Mix, judge: Judge | None, item: Item, _: str) -> Hashes:
    """Hashes of the held-out texts of one file, shape (held-out documents,).

    Crawled documents are drawn by id, which stays the same when a stage cuts the text; curated ones by their text.
    """
    texts: list[str] = []
    if item.epochs and item.uri:
        for row in read_curated(item.source, item.uri):
            if row and is_heldout(settings.heldout_fraction, row["text"]):
                verdict = judge(row["text"]) if judge else None
                texts.append(row["text"] if verdict is None else verdict.left or "")
    elif item.epochs and item.part:
        for batch in read_part(store, item.part, ["id", "text"], 1024):
            chosen = heldout(settings.heldout_fraction, batch["id"].to_pylist())
            texts += batch["text"].filter(pa.array(chosen)).to_pylist()
    return np.array([text_hash(text) for text in texts], np.uint64)


def deal(store: Store, prefix: str, settings: Mix, judge: Judge | None, held: Any, item: Item, name: str) -> Output:
    """Sort one file's documents into shards: once into the held-out shard, or one row for each copy into the others.

    judge: finds benchmark text in curated documents; the crawl has been decontaminated already. held.value: the hashes
    of all held-out texts, ascending. Every document with one of these hashes is held out, so that no text is in both
    the training and the held-out documents.
    """
    sink = DocumentSink(store, prefix, "mix", name)
    sharded = ShardedRows(store, f"{prefix}/scratch/dealt-{name}.parquet")
    findings = Findings(store, prefix, judge.index, name) if judge else None
    crawled = read_documents(store, item.part, DOCUMENTS.names) if item.part else None
    for row in crawled or read_curated(item.source, item.uri):
        if row is None:
            sink.lose(f"{item.source}: line without text")
            continue
        size = len(row["text"].encode())
        verdict = judge(row["text"]) if judge and item.uri else None
        if verdict and findings:
            findings.note(row, verdict.found, verdict.left)
            if verdict.left is None:
                sink.drop(row, Drop.CONTAMINATED, verdict.value, size)
                continue
            row["text"] = verdict.left
        is_held = contains(held.value, text_hash(row["text"]))
        count = copies(item.epochs, settings.seed, row["id"])
        if not count:
            sink.drop(row, Drop.MIX_EPOCHS, item.epochs, size)
            continue
        kept_size = len(row["text"].encode())
        sink.counts += Counts(read=1, kept=1, bytes_read=size, bytes_kept=kept_size)
        for copy in range(1 if is_held else count):
            order = draw(settings.seed, f"order {copy}", row["id"])
            sharded.add(HELDOUT if is_held else order % settings.shards, row | {"order": order}, kept_size)
    output = sink.close()
    output.files += findings.close() if findings else []
    output.files += sharded.close()
    return output


def collect(store: Store, prefix: str, dealt: list[str], shard: int, name: str) -> Output:
    """Write one shard: the rows of its row groups from all dealt files, sorted by their `order` hash, then by id."""
    tables = []
    for path in dealt:
        with store.open_input(path) as source:
            parquet = pq.ParquetFile(source)
            groups = json.loads(parquet.metadata.metadata[b"shards"])
            tables += [parquet.read_row_group(group) for group, owner in enumerate(groups) if owner == shard]
    kind = Kind.HELDOUT if shard == HELDOUT else Kind.DOCUMENTS
    writer = TableWriter(store, f"{prefix}/{kind}-{name}.parquet", kind, DOCUMENTS)
    if tables:
        table = pa.concat_tables(tables).sort_by([("order", "ascending"), ("id", "ascending")])
        for batch in table.drop_columns("order").to_batches(max_chunksize=4096):
            writer.write_table(pa.Table.from_batches([batch]).cast(DOCUMENTS))
    return Output(writer.close())


def explain_empty(job: Job, dealt: Counts) -> str:
    """A message that names the stage that dropped the last documents, and why. `dealt` has the counts of `mix`."""
    if dealt.read:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in dealt.reasons.most_common())
        return (
            f"mix dropped all {dealt.read:,} documents that reached it ({reasons}); "
            "raise mix.crawl_epochs or a source's epochs, or name a larger source"
        )
    for level in job.funnel():
        if level.read and not level.kept:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in level.reasons.most_common(3))
            return (
                f"{level.stage} dropped all {level.read:,} documents that reached it ({reasons}); "
                "loosen its settings or name a larger crawl"
            )
        if level.losses and not level.read:
            losses = ", ".join(f"{kind} {count:,}" for kind, count in level.losses.most_common(5))
            return (
                f"{level.stage} found no page in the crawl files ({losses}; its log names the files); "
                "name other files as crawl.source"
            )
    return "no stage read a document; check crawl.source, or give mix.sources an epochs above 0"


def check_not_empty(job: Job, settings: Mix, files: list[File], dealt: Counts) -> None:
    """Raise InputError if training or evaluation would have nothing to read."""
    train = sum(file.rows for file in files if file.kind == Kind.DOCUMENTS)
    heldout = sum(file.rows for file in files if file.kind == Kind.HELDOUT)
    if not train and not heldout:
        raise InputError(f"mix: the corpus is empty: {explain_empty(job, dealt)}")
    if not train:
        raise InputError(
            f"mix: all {heldout:,} documents were held out at mix.heldout_fraction {settings.heldout_fraction:g}; "
            "lower it or name a larger crawl"
        )
    if not heldout and settings.heldout_fraction:
        raise InputError(
            f"mix: none of {train:,} documents was held out at mix.heldout_fraction {settings.heldout_fraction:g}; "
            "raise it or name a larger crawl"
        )


def run(job: Job) -> None:
    settings: Mix = job.settings
    items = [Item("crawl", settings.crawl_epochs, part) for part in job.parts()]
    items += [Item(name, source.epochs, uri=source.uri) for name, source in sorted(settings.sources.items())]
    decontaminate: Decontaminate = job.setting("decontaminate")
    benchmarks = load_benchmarks(decontaminate) if decontaminate.benchmarks and settings.sources else None
    if benchmarks:
        print(*describe(benchmarks), sep="\n", flush=True)
    judge = Judge(benchmarks.index, decontaminate.action, decontaminate.min_coverage) if benchmarks else None
    chosen = job.map_each(items, partial(drawn, job.store, settings, judge)) if settings.heldout_fraction else []
    held = job.context.broadcast(np.unique(np.concatenate([np.zeros(0, np.uint64), *chosen])))
    dealt = job.map_files(items, partial(deal, job.store, job.prefix, settings, judge, held))
    paths = [file.path for file in dealt.files if file.kind == Kind.DEALT]
    shards = [*range(settings.shards), HELDOUT] if paths else []
    collected = job.map_files(shards, partial(collect, job.store, job.prefix, paths), "shards")
    check_not_empty(job, settings, collected.files, dealt.counts)
    metrics = summarise(job.store, job.prefix, benchmarks.sets, benchmarks.index, dealt) if benchmarks else {}
    job.store.delete(f"{job.prefix}/scratch")
    output = Output([*collected.files, *(file for file in dealt.files if file.kind != Kind.DEALT)], dealt.counts)
    train, heldout = (sum(file.rows for file in collected.files if file.kind == kind) for kind in KINDS)
    extra = train + heldout - dealt.counts.kept
    job.commit(output, results.Mix(training_rows=train, heldout_documents=heldout, extra_copies=extra, **metrics))
