"""Keeps one document of each canonical URL. Spark handles only hashes, ids and dates, and reads only dropped texts."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import xxhash

from contract.documents import Part, read_part
from contract.manifest import File
from contract.schema import Drop
from contract.settings.corpus import DedupUrl
from contract.store import Store
from pipelines.dedup.duplicates import drop_duplicates, write_removed
from pipelines.spark.job import Job
from pipelines.spark.session import computing
from pipelines.urls.canonical import canonical

KEYS = "part int, row bigint, key binary, date bigint, id string"


def keys(store: Store, part: Part, number: int) -> Iterator[pa.RecordBatch]:
    """Yield batches of KEYS, a row for each document with a URL.

    key: a 128-bit hash of the canonical URL. date: the capture date in seconds since 1970, or null.
    """
    for batch in read_part(store, part, ["id", "url", "date"], 1 << 16):
        rows = [row for row in batch.to_pylist() if row["url"]]
        yield pa.record_batch(
            {
                "part": pa.array([number] * len(rows), pa.int32()),
                "row": pa.array([row["row"] for row in rows], pa.int64()),
                "key": pa.array([xxhash.xxh3_128_digest(_bytes(row["url"])) for row in rows], pa.binary()),
                "date": pa.array([row["date"] and int(row["date"].timestamp()) for row in rows], pa.int64()),
                "id": pa.array([row["id"] for row in rows], pa.string()),
            }
        )


def _bytes(url: str) -> bytes:
    return canonical(url).encode("utf-8", "surrogatepass")


def duplicates(frame: Any, keep: str) -> Any:
    """The documents to remove, as columns part, row, stays (the id that stays), group (empty). frame: columns of KEYS.

    keep: `newest` keeps the last capture of a URL, `first` the earliest. Documents without a date come last; ties go to
    the smallest id.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    date = f.col("date").desc_nulls_last() if keep == "newest" else f.col("date").asc_nulls_last()
    group = Window.partitionBy("key").orderBy(date, "id")
    judged = frame.select("part", "row", "id", f.first("id").over(group).alias("stays"), f.lit("").alias("group"))
    return judged.where("id != stays").drop("id")


def show(row: Mapping[str, Any], group: str) -> str:
    return canonical(row["url"])


def run(job: Job) -> None:
    settings: DedupUrl = job.settings
    inputs = job.parts()
    removed: dict[int, File] = {}
    if inputs:
        with computing(job.context, job.task):
            known = job.read_table(inputs, partial(keys, job.store), KEYS)
            removed = write_removed(job, duplicates(known, settings.keep))
    output = drop_duplicates(job, inputs, removed, Drop.DUPLICATE_URL, show)
    job.store.delete(f"{job.prefix}/removed")
    job.commit(output)
