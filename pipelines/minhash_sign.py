"""Computes keys that near duplicates share, so that `dedup_fuzzy` compares documents without reading texts again.

The keys are stored by segment: to deduplicate a new crawl against old ones, only the new one must be signed.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import File
from contract.scores import SCORES
from contract.settings.corpus import MinhashSign
from contract.store import Store
from contract.tables import read_batches
from pipelines.dedup import minhash, simhash
from pipelines.filter import groups
from pipelines.spark.job import Job, Output, TableWriter
from pipelines.spark.survivors import number
from pipelines.text.hashing import buffers, shingles

BATCH_ROWS = 1024


def key_count(settings: MinhashSign) -> int:
    """The number of keys of a document."""
    return simhash.key_count(settings.distance) if settings.method == "simhash" else settings.bands


def signatures_schema(settings: MinhashSign) -> pa.Schema:
    """The columns of a signatures file: one row for each document, in the order of the documents file."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("length", pa.int64()),  # characters
            ("date", pa.timestamp("s", "UTC")),
            ("quality", pa.float64()),  # by `minhash_sign.quality`; more is better
            ("keys", pa.list_(pa.uint64(), key_count(settings))),  # documents that share a key are candidates
            ("fingerprint", pa.uint64()),  # SimHash's 64 bits; 0 for MinHash
        ]
    )


def sign_texts(texts: pa.Array, settings: MinhashSign) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Keys, shape (texts, key_count), and fingerprints, shape (texts,)."""
    data, offsets = buffers(texts)
    if settings.method == "simhash":
        prints = simhash.fingerprints(*shingles(data, offsets, settings.ngram))
        return simhash.keys(prints, settings.distance), prints
    count = settings.bands * settings.rows
    signed = minhash.signatures(data, offsets, settings.ngram, count, settings.seed)
    return minhash.band_keys(signed, settings.bands), np.zeros(len(texts), np.uint64)


def read_scores(store: Store, files: Sequence[File], name: str) -> pa.Table:
    """Columns id and the score `name` from files of `score`: all documents that `filter` read for one of its files."""
    tables = []
    for file in files:
        tables.append(pa.Table.from_batches(list(read_batches(store, file, BATCH_ROWS, ["id", name]))))
    return pa.concat_tables(tables)


def quality(batch: pa.RecordBatch, scores: pa.Table | None, settings: MinhashSign) -> pa.Array:
    """The quality of each document by `minhash_sign.quality`, more is better; null if it was not measured.

    scores: the table of `read_scores`, or None if the batch has the quality's column. Raises InputError if a document
    is missing in `scores`.
    """
    if scores is None:
        values = batch[settings.quality_column]
    else:
        rows = pc.index_in(batch["id"], value_set=scores["id"])
        if rows.null_count:
            raise InputError(
                f"minhash_sign.quality: {rows.null_count} documents are not in the files that `filter` read"
            )
        values = scores[settings.quality_column].take(rows).combine_chunks()
    values = values.cast(pa.float64())
    return pc.negate(values) if settings.quality.startswith("-") else values


def sign(store: Store, prefix: str, settings: MinhashSign, item: tuple[File, Sequence[File]], name: str) -> Output:
    """Write the signatures of one documents file.

    item: the documents file, and the files of `score` that it was filtered from, empty if it has the quality itself.
    """
    file, scored = item
    schema = signatures_schema(settings)
    writer = TableWriter(store, f"{prefix}/signatures-{name}.parquet", Kind.SIGNATURES, schema)
    scores = read_scores(store, scored, settings.quality_column) if scored else None
    read = ["id", "date", "text", *([] if scored else [settings.quality_column])]
    for batch in read_batches(store, file, BATCH_ROWS, read):
        keys, prints = sign_texts(batch["text"], settings)
        columns = {
            "id": batch["id"],
            "length": pc.utf8_length(batch["text"]).cast(pa.int64()),
            "date": batch["date"],
            "quality": quality(batch, scores, settings),
            "keys": pa.FixedSizeListArray.from_arrays(pa.array(keys.reshape(-1)), keys.shape[1]),
            "fingerprint": pa.array(prints),
        }
        writer.write_table(pa.table(columns, schema=schema))
    return Output(writer.close())


def run(job: Job) -> None:
    settings: MinhashSign = job.settings
    scored = groups(job) if settings.quality_column in SCORES else []
    items = [(file, scored[number(file)] if scored else []) for file in job.inputs("filter", Kind.DOCUMENTS)]
    output = job.map_files(items, partial(sign, job.store, job.prefix, settings))
    job.commit(output, documents=sum(file.rows for file in output.files))
