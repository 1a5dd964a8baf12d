"""Keeps one document of each cluster of near duplicates: the connected components of documents that share a key."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from contract import results
from contract.documents import Part
from contract.kinds import Kind
from contract.manifest import File
from contract.schema import Drop
from contract.settings.corpus import CRAWL, DedupFuzzy
from contract.store import Store
from pipelines.dedup.duplicates import drop_duplicates, write_removed
from pipelines.dedup.links import EDGES, ROW_BITS, link, read_edges, read_nodes, signed
from pipelines.spark.components import components, spark_components
from pipelines.spark.exchange import column
from pipelines.spark.job import Job
from pipelines.spark.session import computing, store_errors
from pipelines.spark.tables import TableWriter


def facts(store: Store, part: Part, number: int) -> Iterator[pa.RecordBatch]:
    """Yield columns node, id, curated, length, date, quality, which decide the document of a cluster that stays.

    date is in milliseconds, the coarsest unit of Parquet.
    """
    curated = part.source != CRAWL
    for nodes, batch in read_nodes(store, part, number, "length", "date", "quality"):
        columns = {"node": nodes, "id": batch["id"], "curated": np.full(len(nodes), curated), "length": batch["length"]}
        yield pa.record_batch(columns | {"date": batch["date"].cast(pa.int64()), "quality": batch["quality"]})


def duplicates(members: Any, keep: str, curated_first: bool) -> Any:
    """The documents to remove, as columns part, row, stays (the id that stays), group (the cluster's smallest id).

    members: columns node, component, and those of `facts`. keep: the rule for the document that stays. `longest`
    compares the length, then the date; `newest` the date, then the length; `best_quality` the quality, then the length.
    Remaining ties, and `smallest_id`, go to the smallest id. curated_first: any curated document goes before all
    crawled ones. Equal documents of one source have equal ids, so the nodes tell which document goes.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    length, date, quality = (f.col(name).desc_nulls_last() for name in ("length", "date", "quality"))
    rules = {"longest": [length, date], "newest": [date, length], "best_quality": [quality, length], "smallest_id": []}
    first = [f.col("curated").desc()] if curated_first else []
    cluster = Window.partitionBy("component")
    ordered = cluster.orderBy(*first, *rules[keep], "id", "node")
    judged = members.select(
        f.shiftright("node", ROW_BITS).alias("part"),
        f.col("node").bitwiseAND((1 << ROW_BITS) - 1).alias("row"),
        f.first("id").over(ordered).alias("stays"),
        f.min("id").over(cluster).alias("group"),
        (f.first("node").over(ordered) != f.col("node")).alias("goes"),
    )
    return judged.where("goes").drop("goes")


def show(row: Mapping[str, Any], group: str) -> str:
    return group


def find_removed(job: Job, parts: Sequence[Part], edges: Sequence[File]) -> tuple[dict[int, File], int]:
    """Return the documents to drop, as files of `write_removed` by part, and the number of clusters."""
    settings: DedupFuzzy = job.settings
    if not edges:
        return {}, 0
    if sum(file.rows for file in edges) <= settings.driver_edge_limit:
        table = pa.Table.from_batches([batch for file in edges for batch in read_edges(job.store, file)])
        nodes, labels = components(column(table, "big"), column(table, "small"))
        members = job.spark.createDataFrame(pa.table({"node": nodes, "component": labels}))
    else:
        read = partial(read_edges, job.store)
        members = spark_components(job.read_table(edges, read, "big bigint, small bigint"), partial(materialize, job))
    schema = "node bigint, id string, curated boolean, length bigint, date bigint, quality double"
    known = job.read_table(parts, partial(facts, job.store), schema)
    removed = write_removed(job, duplicates(known.join(members, "node"), settings.keep, settings.curated_first))
    return removed, members.count() - sum(file.rows for file in removed.values())


def materialize(job: Job, edges: Any, turn: int) -> Any:
    """Write edges to the store and read them back.

    Unlike Spark's local checkpoints, the files survive the loss of the worker that computed them.
    """
    folder = f"{job.prefix}/turns/{turn:03d}"
    rows = edges.mapInArrow(partial(keep_edges, job.store, folder), "path string, rows bigint").collect()
    files = [File(path=row["path"], kind=Kind.EDGES, bytes=0, rows=row["rows"]) for row in rows]
    return job.read_table(files, partial(read_edges, job.store), "big bigint, small bigint")


def keep_edges(store: Store, folder: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    with store_errors(store.full(folder)):
        writer = TableWriter(store, f"{folder}/{uuid.uuid4().hex}.parquet", Kind.EDGES, EDGES)
        for batch in batches:
            writer.write_table(pa.Table.from_batches([batch.select(EDGES.names)]).cast(EDGES))
        for file in writer.close():
            yield pa.RecordBatch.from_pylist([{"path": file.path, "rows": file.rows}])


def run(job: Job) -> None:
    settings: DedupFuzzy = job.settings
    curated, spared = job.parts("curate"), job.setting("curate.not_deduplicated")
    inputs = [*job.parts("dedup_url"), *(part for part in curated if part.source not in spared)]
    parts = signed(inputs, [*job.parts("minhash_sign"), *curated])
    inputs += [part for part in curated if part.source in spared]  # these are in no link
    edges: list[File] = []
    removed: dict[int, File] = {}
    clusters = 0
    if parts:
        with computing(job.context, job.task):
            edges = link(job, parts, settings, job.setting("minhash_sign"))
            removed, clusters = find_removed(job, parts, edges)
    output = drop_duplicates(job, inputs, removed, Drop.NEAR_DUPLICATE, show)
    for folder in ("removed", "turns"):
        job.store.delete(f"{job.prefix}/{folder}")
    output.files.extend(edges)
    job.commit(output, results.DedupFuzzy(clusters=clusters))
