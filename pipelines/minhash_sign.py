"""The keys under which near duplicates of a document meet, for `dedup_fuzzy` to compare without reading a text again.

They stay with their segment: when a new crawl is deduplicated against old ones, only the new one is signed.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract.errors import InputError
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
    """Keys a document has."""
    return simhash.key_count(settings.distance) if settings.method == "simhash" else settings.bands


def signatures_schema(settings: MinhashSign) -> pa.Schema:
    """One row a document, in the order of its documents file."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("length", pa.int64()),  # characters
            ("date", pa.timestamp("s", "UTC")),
            ("quality", pa.float64()),  # by `minhash_sign.quality`; more is better
            ("keys", pa.list_(pa.uint64(), key_count(settings))),  # two documents that share one are candidates
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
    """Columns id and one score, of the documents that `filter` judged for one of its files."""
    tables = []
    for file in files:
        tables.append(pa.Table.from_batches(list(read_batches(store, file, BATCH_ROWS, ["id", name]))))
    return pa.concat_tables(tables)


def quality(batch: pa.RecordBatch, scores: pa.Table | None, settings: MinhashSign) -> pa.Array:
    """What `minhash_sign.quality` names for each document, such that more is better; null where it was not measured."""
    if scores is None:
        found = batch[settings.quality_column]
    else:
        rows = pc.index_in(batch["id"], value_set=scores["id"])
        if rows.null_count:
            raise InputError(
                f"minhash_sign.quality: {rows.null_count} documents are not in the files that `filter` read"
            )
        found = scores[settings.quality_column].take(rows).combine_chunks()
    found = found.cast(pa.float64())
    return pc.negate(found) if settings.quality.startswith("-") else found


def sign(store: Store, prefix: str, settings: MinhashSign, item: tuple[File, Sequence[File]], name: str) -> Output:
    """The signatures of one documents file; beside it the files of scores that it was filtered from, or none if it holds the quality."""
    file, scored = item
    schema = signatures_schema(settings)
    writer = TableWriter(store, f"{prefix}/signatures-{name}.parquet", "signatures", schema)
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
    items = [(file, scored[number(file)] if scored else []) for file in job.inputs("filter", "documents")]
    output = job.map_files(items, partial(sign, job.store, job.prefix, settings))
    job.commit(output, documents=sum(file.rows for file in output.files))
