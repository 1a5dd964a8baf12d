"""Computes keys that near duplicates share, so that `dedup_fuzzy` compares documents without reading texts again.

The keys are stored by segment: to deduplicate a new crawl against old ones, only the new one must be signed.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract import results
from contract.documents import Part, read_part
from contract.kinds import Kind
from contract.settings.corpus import MinhashSign
from contract.store import Store
from pipelines.dedup import minhash, simhash
from pipelines.spark.documents import Output
from pipelines.spark.job import Job
from pipelines.spark.tables import TableWriter
from pipelines.text.hashing import buffers, shingles

BATCH_ROWS = 1024


def key_count(settings: MinhashSign) -> int:
    """The number of keys of a document."""
    return simhash.key_count(settings.distance) if settings.method == "simhash" else settings.bands


def signatures_schema(settings: MinhashSign) -> pa.Schema:
    """The columns of a signatures file: one row for each document, in the order of the documents file."""
    return pa.schema(
        [
            ("row", pa.int64()),  # of the documents file
            ("id", pa.string()),
            ("snapshot", pa.string()),
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


def quality(batch: pa.RecordBatch, settings: MinhashSign) -> pa.Array:
    """The quality of each document by `minhash_sign.quality`, more is better; null if it was not measured."""
    values = batch[settings.quality_column].cast(pa.float64())
    return pc.negate(values) if settings.quality.startswith("-") else values


def sign(store: Store, prefix: str, settings: MinhashSign, part: Part, name: str) -> Output:
    """Write the signatures of the documents that are left of a part."""
    schema = signatures_schema(settings)
    writer = TableWriter(store, f"{prefix}/signatures-{name}.parquet", Kind.SIGNATURES, schema)
    columns = dict.fromkeys(("id", "snapshot", "date", "text", settings.quality_column))
    for batch in read_part(store, part, list(columns), BATCH_ROWS):
        keys, prints = sign_texts(batch["text"], settings)
        signed = {name: batch[name] for name in ("row", "id", "snapshot", "date")} | {
            "length": pc.utf8_length(batch["text"]).cast(pa.int64()),
            "quality": quality(batch, settings),
            "keys": pa.FixedSizeListArray.from_arrays(pa.array(keys.reshape(-1)), keys.shape[1]),
            "fingerprint": pa.array(prints),
        }
        writer.write_table(pa.table(signed).select(schema.names).cast(schema))
    return Output(parts=[replace(part, signatures=file) for file in writer.close()])


def run(job: Job) -> None:
    output = job.map_files(job.parts(), partial(sign, job.store, job.prefix, job.settings))
    job.commit(output, results.MinhashSign(documents=sum(part.rows for part in output.parts)))
