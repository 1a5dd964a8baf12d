"""Cuts every run of `min_tokens` tokens that occurs two or more times anywhere in the corpus (Lee et al. 2021)."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from contract import results
from contract.cuts import read_cuts, without
from contract.documents import Part, read_documents
from contract.kinds import Kind
from contract.manifest import File
from contract.recipe import StageSettings
from contract.schema import Drop
from contract.settings.corpus import DedupSubstring
from contract.store import Store
from pipelines.dedup import suffixes
from pipelines.dedup.repeats import BUCKET_BYTES, id_keys, places, save_cuts, steps
from pipelines.dedup.substring import repeated
from pipelines.dedup.tokens import blocks, load_tokenizer
from pipelines.spark import exchange
from pipelines.spark.documents import IndexSink, Output
from pipelines.spark.heldout import heldout
from pipelines.spark.job import Job
from pipelines.spark.session import computing


def find_by_shuffles(
    job: Job, settings: DedupSubstring, parts: Sequence[Part], fraction: float, size: int
) -> list[dict[str, Any]]:
    """Find the repeats of one pass on Spark, by shuffles. size: bytes of text in the corpus.

    Returns a row for each part with repeats.
    """
    context = job.context
    buckets = context.defaultParallelism * max(1, -(-size // (BUCKET_BYTES * context.defaultParallelism)))
    shared = context.broadcast(list(parts))
    work = steps(job.store, job.prefix, shared, len(parts), settings, fraction, buckets)
    with computing(context, job.task):
        return [
            row for batch in exchange.shuffle(context, work, job.store.full(job.prefix)) for row in batch.to_pylist()
        ]


def find_alone(job: Job, settings: DedupSubstring, parts: Sequence[Part], fraction: float) -> list[dict[str, Any]]:
    """The same as `find_by_shuffles`, by one suffix array in this process."""
    held = [(at, block) for at, part in enumerate(parts) for block in blocks(job.store, part, settings.tokenizer)]
    tokens, owner = suffixes.join([block.tokens for _, block in held])
    row = np.concatenate([block.rows for _, block in held] or [np.zeros(0, np.int64)])
    part = np.concatenate([np.full(len(block.rows), at) for at, block in held] or [np.zeros(0, np.int64)])
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
    part, row, start = part[owner[marked]], row[owner[marked]], start[marked]
    rows: list[dict[str, Any]] = []
    for number in np.unique(part).tolist():
        mine = part == number
        ones = np.ones(mine.sum(), np.int64)
        facts = save_cuts(job.store, job.prefix, parts[number], settings, number, row[mine], start[mine], ones)
        rows += facts.to_pylist() if facts is not None else []
    return rows


def drop_short(store: Store, prefix: str, min_chars: int, spared: Collection[str], part: Part, name: str) -> Output:
    """Drop the documents of a part of which the cuts leave too little text, unless its source is spared."""
    least = 0 if part.source in spared else min_chars
    cuts = read_cuts(store, part.cuts)
    sink = IndexSink(store, prefix, "dedup_substring", name)
    for row in read_documents(store, replace(part, cuts=None), ["id", "url", "text"]):
        data = row["text"].encode()
        left = without(data, cuts.get(row["row"], []))
        remaining = len(left.decode().strip())
        if remaining < least:
            sink.drop(row, Drop.SUBSTRING_TOO_SHORT, remaining, len(data))
        else:
            sink.keep(row["row"], len(left), len(data))
    sink.finish(part)
    output = sink.close()
    if part.cuts and not output.parts:  # of documents that are all too short now
        output.files.append(part.cuts)
    return output


def check(settings: StageSettings) -> None:
    """Raise InputError if the tokenizer that the recipe names cannot be loaded."""
    if settings.own.tokenizer:
        load_tokenizer(settings.own.tokenizer)


def run(job: Job) -> None:
    settings: DedupSubstring = job.settings
    spared = job.setting("curate.not_deduplicated")
    parts = [part for part in job.parts() if part.source not in spared]
    others = [part for part in job.parts() if part.source in spared]
    # Bytes of text: Parquet files are 2 to 100 times smaller, so their sizes say little.
    size = sum(manifest.rows.bytes_kept for manifest in job.manifests())
    fraction = job.setting("mix.heldout_fraction")
    small = size <= settings.one_process_bytes
    documents: dict[int, int] = {}
    spans = tokens = 0
    for _ in range(settings.passes if parts else 0):
        rows = (
            find_alone(job, settings, parts, fraction)
            if small
            else find_by_shuffles(job, settings, parts, fraction, size)
        )
        if not rows:
            break
        for row in rows:
            file = File(path=row["path"], kind=Kind.CUTS, bytes=row["bytes"], rows=row["rows"], sha256=row["sha256"])
            if before := parts[row["part"]].cuts:
                job.store.delete(before.path)  # the new cuts contain those of the pass before
            parts[row["part"]] = replace(parts[row["part"]], cuts=file)
            spans, tokens = spans + row["spans"], tokens + row["tokens"]
            documents[row["part"]] = row["documents"]
    output = job.map_files([*parts, *others], partial(drop_short, job.store, job.prefix, settings.min_chars, spared))
    result = results.DedupSubstring(spans=spans, tokens_cut=tokens, documents_cut=sum(documents.values()))
    job.commit(output, result)
