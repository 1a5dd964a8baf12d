"""Cuts every run of `min_tokens` tokens that occurs two or more times anywhere in the corpus (Lee et al. 2021)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from contract.kinds import Kind
from contract.manifest import File
from contract.recipe import StageSettings
from contract.schema import DOCUMENTS, Drop
from contract.settings.corpus import DedupSubstring
from contract.store import Store
from contract.tables import read_rows
from pipelines.dedup import suffixes
from pipelines.dedup.repeats import BUCKET_BYTES, id_keys, places, save_cuts, steps
from pipelines.dedup.substring import repeated
from pipelines.dedup.tokens import Item, blocks, load_tokenizer, read_cuts, without
from pipelines.spark import exchange
from pipelines.spark.heldout import heldout
from pipelines.spark.job import DocumentSink, Job, Output
from pipelines.spark.session import computing
from pipelines.spark.survivors import dropped_ids, parts


def find(job: Job, settings: DedupSubstring, items: Sequence[Item], fraction: float, size: int) -> list[dict[str, Any]]:
    """Find the repeats of one pass on Spark, by shuffles. size: bytes of text in the corpus.

    Returns a row for each documents file with repeats.
    """
    context = job.context
    buckets = context.defaultParallelism * max(1, -(-size // (BUCKET_BYTES * context.defaultParallelism)))
    shared = context.broadcast(list(items))
    work = steps(job.store, job.prefix, shared, len(items), settings, fraction, buckets)
    with computing(context, job.task):
        return [
            row for batch in exchange.shuffle(context, work, job.store.full(job.prefix)) for row in batch.to_pylist()
        ]


def find_alone(job: Job, settings: DedupSubstring, items: Sequence[Item], fraction: float) -> list[dict[str, Any]]:
    """The same as `find`, by one suffix array in this process."""
    held = [(file, block) for file, item in enumerate(items) for block in blocks(job.store, item, settings.tokenizer)]
    tokens, owner = suffixes.join([block.tokens for _, block in held])
    row = np.concatenate([block.rows for _, block in held] or [np.zeros(0, np.int64)])
    file = np.concatenate([np.full(len(block.rows), number) for number, block in held] or [np.zeros(0, np.int64)])
    ids = [key for _, block in held for key in block.ids]
    held_out = heldout(fraction, ids)
    start = np.arange(len(owner)) - tokens.bounds[owner]
    rank = places(held_out, *id_keys(ids), np.zeros(len(ids), np.int64))
    windows, first = suffixes.first_equal(tokens, rank[owner] | start.astype(np.uint64), settings.min_tokens)
    removed = windows != first
    if settings.cut == "all":
        groups = np.unique(first, return_inverse=True)[1]
        removed = repeated(groups, held_out[owner[windows]], np.zeros(len(windows), np.uint8))
    marked = np.sort(windows[removed])
    file, row, start = file[owner[marked]], row[owner[marked]], start[marked]
    rows = []
    for number in np.unique(file).tolist():
        in_file = file == number
        ones = np.ones(in_file.sum(), np.int64)
        facts = save_cuts(job.store, job.prefix, items[number], settings, number, row[in_file], start[in_file], ones)
        rows += facts.to_pylist()
    return rows


def cut(store: Store, prefix: str, min_chars: int, item: Item, name: str) -> Output:
    """Rewrite the documents of one part without the repeats, and drop those with too little text left."""
    dropped, cuts = dropped_ids(store, item.part), read_cuts(store, item)
    sink = DocumentSink(store, prefix, "dedup_substring", name, DOCUMENTS)
    for row, document in enumerate(read_rows(store, item.part.documents)):
        if document["id"] in dropped:
            continue
        text = document["text"]
        data = text.encode()
        left = without(data, cuts[row]) if row in cuts else data
        document["text"] = left.decode()
        remaining = len(document["text"].strip())
        if remaining < min_chars:
            sink.drop(document, Drop.SUBSTRING_TOO_SHORT, remaining, len(data), snippet=text)
        else:
            sink.keep(document, len(left), len(data))
    return sink.close()


def check(settings: StageSettings) -> None:
    """Raise InputError if the tokenizer that the recipe names cannot be loaded."""
    if settings.own.tokenizer:
        load_tokenizer(settings.own.tokenizer)


def run(job: Job) -> None:
    settings: DedupSubstring = job.settings
    items = [Item(part) for part in parts(job, "dedup_url", "dedup_fuzzy")]
    # Bytes of text: Parquet files are 2 to 100 times smaller, so their sizes say little.
    size = sum(manifest.rows.bytes_kept for manifest in job.manifests("dedup_fuzzy"))
    fraction = job.setting("mix.heldout_fraction")
    small = size <= settings.one_process_bytes
    documents: dict[int, int] = {}
    spans = tokens = 0
    for _ in range(settings.passes if items else 0):
        rows = find_alone(job, settings, items, fraction) if small else find(job, settings, items, fraction, size)
        if not rows:
            break
        for row in rows:
            file = File(path=row["path"], kind=Kind.CUTS, bytes=row["bytes"], rows=row["rows"], sha256=row["sha256"])
            items[row["file"]] = Item(items[row["file"]].part, file)
            spans, tokens = spans + row["spans"], tokens + row["tokens"]
            documents[row["file"]] = row["documents"]
    output = job.map_files(items, partial(cut, job.store, job.prefix, settings.min_chars))
    output.files.extend(item.cuts for item in items if item.cuts)
    job.commit(output, spans=spans, tokens_cut=tokens, documents_cut=sum(documents.values()))
