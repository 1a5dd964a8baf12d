"""The keys under which near duplicates of a document meet, for `dedup_fuzzy` to compare without reading a text again.

They stay with their segment: when a new crawl is deduplicated against old ones, only the new one is signed.
"""

from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.errors import InputError
from contract.manifest import File
from contract.settings import MinhashSign
from contract.store import Store
from pipelines.job import Job, Output, TableWriter
from pipelines.text import minhash, simhash
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
            ("quality", pa.float64()),  # the column that `minhash_sign.quality` names
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


def sign(store: Store, prefix: str, settings: MinhashSign, file: File, name: str) -> Output:
    """The signatures of one documents file."""
    schema = signatures_schema(settings)
    writer = TableWriter(store, f"{prefix}/signatures-{name}.parquet", "signatures", schema)
    with store.open_input(file.path) as source:
        parquet = pq.ParquetFile(source)
        check_quality(settings.quality, parquet.schema_arrow)
        for batch in parquet.iter_batches(BATCH_ROWS, columns=list({"id", "date", "text", settings.quality})):
            keys, prints = sign_texts(batch["text"], settings)
            columns = {
                "id": batch["id"],
                "length": pc.utf8_length(batch["text"]).cast(pa.int64()),
                "date": batch["date"],
                "quality": batch[settings.quality].cast(pa.float64()),
                "keys": pa.FixedSizeListArray.from_arrays(pa.array(keys.reshape(-1)), keys.shape[1]),
                "fingerprint": pa.array(prints),
            }
            writer.write_table(pa.table(columns, schema=schema))
    return Output(writer.close())


def check_quality(name: str, schema: pa.Schema) -> None:
    """Raises InputError where a column is not there or holds no numbers."""
    numbers = [one.name for one in schema if pa.types.is_integer(one.type) or pa.types.is_floating(one.type)]
    if name not in schema.names:
        raise InputError(f"minhash_sign.quality: documents have no column {name!r}; there are {', '.join(numbers)}")
    if name not in numbers:
        raise InputError(f"minhash_sign.quality: column {name!r} holds no numbers; those that do: {', '.join(numbers)}")


def run(job: Job) -> None:
    settings: MinhashSign = job.settings
    output = job.map_files(job.inputs("filter", "documents"), partial(sign, job.store, job.prefix, settings))
    job.commit(output, documents=sum(file.rows for file in output.files))
