"""Keeps one document of each canonical URL. Spark handles only hashes, ids and dates, and reads only dropped texts."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import xxhash

from contract.manifest import File
from contract.schema import Drop
from contract.settings.corpus import DedupUrl
from contract.store import Store
from contract.tables import read_batches
from pipelines.spark.job import Job
from pipelines.spark.session import computing
from pipelines.spark.survivors import Part, drop_duplicates, parts, write_removed
from pipelines.urls.canonical import canonical

KEYS = "file int, key binary, date bigint, id string"


def keys(store: Store, part: Part, number: int) -> Iterator[pa.RecordBatch]:
    """Yield batches of KEYS, a row for each document with a URL.

    key: a 128-bit hash of the canonical URL. date: the capture date in seconds since 1970, or null.
    """
    for batch in read_batches(store, part.documents, 1 << 16, ["id", "url", "date"]):
        rows = [row for row in batch.to_pylist() if row["url"]]
        yield pa.record_batch(
            {
                "file": pa.array([number] * len(rows), pa.int32()),
                "key": pa.array([xxhash.xxh3_128_digest(_bytes(row["url"])) for row in rows], pa.binary()),
                "date": pa.array([row["date"] and int(row["date"].timestamp()) for row in rows], pa.int64()),
                "id": pa.array([row["id"] for row in rows], pa.string()),
            }
        )


def _bytes(url: str) -> bytes:
    return canonical(url).encode("utf-8", "surrogatepass")


def duplicates(frame: Any, keep: str) -> Any:
    """The documents to remove, as columns file, id, stays (the id that stays), group (empty). frame: columns of KEYS.

    keep: `newest` keeps the last capture of a URL, `first` the earliest. Documents without a date come last; ties go to
    the smallest id.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    date = f.col("date").desc_nulls_last() if keep == "newest" else f.col("date").asc_nulls_last()
    group = Window.partitionBy("key").orderBy(date, "id")
    judged = frame.select("file", "id", f.first("id").over(group).alias("stays"), f.lit("").alias("group"))
    return judged.where("id != stays")


def show(row: Mapping[str, Any], group: str) -> str:
    return canonical(row["url"])


def run(job: Job) -> None:
    settings: DedupUrl = job.settings
    inputs = parts(job)
    removed: dict[int, File] = {}
    if inputs:
        with computing(job.context, job.task):
            known = job.read_table(inputs, partial(keys, job.store), KEYS)
            removed = write_removed(job, duplicates(known, settings.keep))
    before = sum(manifest.rows.bytes_kept for manifest in job.manifests("filter"))
    output = drop_duplicates(job, inputs, removed, Drop.DUPLICATE_URL, show, before)
    job.store.delete(f"{job.prefix}/removed")
    job.commit(output)
