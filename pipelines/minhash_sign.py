"""MinHash signature and band keys of every document, for `dedup_fuzzy` to compare without reading a text again."""

from functools import partial

import pyarrow as pa

from contract.manifest import File
from contract.settings import MinhashSign
from contract.store import Store
from pipelines.job import Job, Output, TableWriter, read_rows
from pipelines.text.minhash import band_keys, shingles, signature


def signatures_schema(settings: MinhashSign) -> pa.Schema:
    """One row a document, in the order of its documents file."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("length", pa.int64()),  # characters
            ("date", pa.timestamp("s", "UTC")),
            ("bands", pa.list_(pa.int64(), settings.bands)),
            ("signature", pa.list_(pa.uint32(), settings.bands * settings.rows)),
        ]
    )


def sign(store: Store, prefix: str, settings: MinhashSign, file: File, name: str) -> Output:
    """The signatures of one documents file."""
    writer = TableWriter(store, f"{prefix}/signatures-{name}.parquet", "signatures", signatures_schema(settings))
    for row in read_rows(store, file.path, ["id", "date", "text"]):
        values = signature(shingles(row["text"], settings.ngram), settings.bands * settings.rows, settings.seed)
        writer.write(
            {
                "id": row["id"],
                "length": len(row["text"]),
                "date": row["date"],
                "bands": band_keys(values, settings.bands),
                "signature": values,
            }
        )
    return Output(writer.close())


def run(job: Job) -> None:
    settings: MinhashSign = job.settings
    output = job.map_files(job.inputs("filter", "documents"), partial(sign, job.store, job.prefix, settings))
    job.commit(output, documents=sum(file.rows for file in output.files))
