"""Writes the documents of each source once: shuffled within the source, and some of them held out.

How much of which source a model sees, and in which order, is decided where the files are read. The shuffle goes through
the store instead of Spark (`pipelines.spark.dealing`). A worker's memory must hold one shard, and 8 bytes for each
held-out document, 16 for each that another run holds out.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from contract import results
from contract.documents import Part, read_part, stored_columns
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import File
from contract.schema import DOCUMENTS, MIXED
from contract.settings.corpus import Mix
from contract.store import Store
from contract.tables import read_batches
from pipelines.spark.dealing import ShardedRows, collect
from pipelines.spark.documents import Counts, Output
from pipelines.spark.heldout import contains, heldout
from pipelines.spark.job import Job
from pipelines.spark.tables import TableWriter
from pipelines.text.mixing import Hashes

KINDS = (Kind.DOCUMENTS, Kind.HELDOUT)
HELDOUT = -1  # the shard of a source's held-out documents
DEALT = pa.schema([("order", pa.uint64()), *MIXED])


class Surveyed(NamedTuple):
    """What is known of a part before it is dealt: its bytes of text, and hashes of its held-out texts."""

    bytes: int
    held: Hashes


def draw(seed: int, what: str, key: str) -> int:
    """64 pseudo-random bits, a pure function of the arguments."""
    return xxhash.xxh3_64_intdigest(f"{seed} {what} {key}".encode())


def text_hash(text: str) -> int:
    """A 64-bit hash of a text."""
    return xxhash.xxh3_64_intdigest(text.encode())


def survey(store: Store, fraction: float, part: Part, _: str) -> Surveyed:
    """Read a part once for what `deal` must know. Documents are drawn by id, which no cut in the text changes."""
    size, held = 0, list[int]()
    for batch in read_part(store, part, ["id", "text"], 1024):
        size += sum(len(text.encode()) for text in batch["text"].to_pylist())
        chosen = heldout(fraction, batch["id"].to_pylist())
        held += map(text_hash, batch["text"].filter(pa.array(chosen)).to_pylist())
    return Surveyed(size, np.array(held, np.uint64))


def id_hash(key: str) -> int:
    """A 64-bit hash of a document's id, apart from those of texts."""
    return draw(0, "id", key)


def hash_held(store: Store, file: File, _: str) -> Hashes:
    """The hashes of the ids and the texts that another run holds out.

    The ids, because a page whose text it has in common with another may have a text of its own here.
    """
    hashes: list[int] = []
    for batch in read_batches(store, file, 1024, ["id", "text"]):
        hashes += map(id_hash, batch["id"].to_pylist())
        hashes += map(text_hash, batch["text"].to_pylist())
    return np.array(hashes, np.uint64)


def shards_of(sizes: Mapping[str, int], shards: int) -> dict[str, int]:
    """The number of shards of each source, given its bytes of text: all `shards` for the largest, 1 at least."""
    most = max(sizes.values(), default=0) or 1
    return {source: max(1, -(-shards * size // most)) for source, size in sizes.items()}


def deal(store: Store, prefix: str, seed: int, shards: Mapping[str, int], held: Any, part: Part, name: str) -> Output:
    """Deal the documents of a part to the shards of its source.

    held.value: the hashes of all held-out texts, and of the ids that another run holds out, ascending. Every document
    with one of these hashes is held out, so that no text is in both the training and the held-out documents, whatever
    its sources.
    """
    sharded = ShardedRows(store, f"{prefix}/scratch/dealt-{name}.parquet", DEALT, part.source)
    counts = Counts()
    for batch in read_part(store, part, [*DOCUMENTS.names, *stored_columns(store, part, ["license"])]):
        for row in batch.to_pylist():
            size, order = len(row["text"].encode()), draw(seed, "order", row["id"])
            away = any(contains(held.value, one) for one in (text_hash(row["text"]), id_hash(row["id"])))
            shard = HELDOUT if away else order % shards[part.source]
            sharded.add(shard, row | {"order": order}, size)
            counts += Counts(read=1, kept=1, bytes_read=size, bytes_kept=size)
    return Output(sharded.close(), counts)


def write_shard(store: Store, prefix: str, dealt: list[File], item: tuple[str, int], name: str) -> Output:
    """Write one shard of a source: its rows from all dealt files, sorted by their `order` hash, then by id."""
    source, shard = item
    kind = Kind.HELDOUT if shard == HELDOUT else Kind.DOCUMENTS
    writer = TableWriter(store, f"{prefix}/{kind}-{name}.parquet", kind, MIXED)
    table = collect(store, [file.path for file in dealt if file.source == source], shard)
    if table is not None:
        ordered = table.sort_by([("order", "ascending"), ("id", "ascending")])
        for batch in ordered.drop_columns("order").to_batches(max_chunksize=4096):
            writer.write_table(pa.Table.from_batches([batch]).cast(MIXED))
    return Output([file.model_copy(update={"source": source}) for file in writer.close()])


def explain_empty(job: Job) -> str:
    """A message that names the stage that dropped the last documents, and why."""
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
    return "no stage read a document; check crawl.source"


def check_not_empty(job: Job, settings: Mix, files: list[File]) -> None:
    """Raise InputError if training or evaluation would have nothing to read."""
    train = sum(file.rows for file in files if file.kind == Kind.DOCUMENTS)
    heldout = sum(file.rows for file in files if file.kind == Kind.HELDOUT)
    if not train and not heldout:
        raise InputError(f"mix: the corpus is empty: {explain_empty(job)}")
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
    parts = job.parts()
    surveyed = job.map_each(parts, partial(survey, job.store, settings.heldout_fraction))
    sizes: Counter[str] = Counter()
    for part, found in zip(parts, surveyed, strict=True):
        sizes[part.source] += found.bytes
    shards = shards_of(sizes, settings.shards)
    others = job.inputs("mix", Kind.HELDOUT)  # of the run that `also_held_out` names
    also = job.map_each(others, partial(hash_held, job.store)) if others else []
    hashes = np.concatenate([np.zeros(0, np.uint64), *(found.held for found in surveyed), *also])
    held = job.context.broadcast(np.unique(hashes)) if parts else None
    dealt = job.map_files(parts, partial(deal, job.store, job.prefix, settings.seed, shards, held))
    items = [(source, shard) for source in sorted(shards) for shard in (*range(shards[source]), HELDOUT)]
    output = job.map_files(items, partial(write_shard, job.store, job.prefix, dealt.files), "shards")
    check_not_empty(job, settings, output.files)
    job.store.delete(f"{job.prefix}/scratch")
    output.counts = dealt.counts
    train, heldout = (sum(file.rows for file in output.files if file.kind == kind) for kind in KINDS)
    for source in sorted(sizes):
        said = (sum(file.rows for file in output.files if (file.source, file.kind) == (source, kind)) for kind in KINDS)
        print("source {}: {:,} documents for training, {:,} held out".format(source, *said), flush=True)
    job.commit(output, results.Mix(training_documents=train, heldout_documents=heldout))
