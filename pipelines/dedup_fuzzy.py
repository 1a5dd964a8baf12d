"""One document per cluster of near duplicates: documents that share a MinHash band are linked, linked documents are a cluster."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from contract.manifest import File
from contract.settings import DedupFuzzy
from contract.store import Store
from pipelines.job import Job, worker_errors
from pipelines.schema import Drop
from pipelines.survivors import Duplicate, Part, drop_duplicates, dropped_ids, number, parts

Nodes = npt.NDArray[np.int64]

FILE_BITS = 32  # a node is its documents file's number and, in the lower 32 bits, its row there


class Signed(NamedTuple):
    """A part and the signatures of its documents, in the same order."""

    part: Part
    signatures: File


def signed(job: Job, inputs: list[Part]) -> list[Signed]:
    """Join each documents file with the signatures file that `minhash_sign` wrote for it."""
    files: dict[str, File] = {}
    for documents, signatures in zip(job.manifests("filter"), job.manifests("minhash_sign"), strict=True):
        order = documents.of("documents")
        files |= {order[number(file)].path: file for file in signatures.of("signatures")}
    return [Signed(part, files[part.documents.path]) for part in inputs]


def read_nodes(store: Store, item: Signed, file: int, column: str) -> Iterator[tuple[Nodes, pa.RecordBatch]]:
    """Nodes and rows of the signatures of the documents that are left. Nodes: shape (rows,)."""
    gone = pa.array(dropped_ids(store, item.part), pa.string())
    row = 0
    with store.open_input(item.signatures.path) as source:
        for batch in pq.ParquetFile(source).iter_batches(columns=["id", *column.split()]):
            alive = pc.invert(pc.is_in(batch["id"], value_set=gone))
            nodes = (file << FILE_BITS) + np.arange(row, row + batch.num_rows, dtype=np.int64)
            row += batch.num_rows
            yield nodes[alive.to_numpy(zero_copy_only=False)], batch.filter(alive)


def band_rows(store: Store, item: Signed, file: int) -> Iterator[pa.RecordBatch]:
    """One row a document and band: key, node."""
    for nodes, batch in read_nodes(store, item, file, "bands"):
        keys = batch["bands"].flatten()
        yield pa.record_batch({"key": keys, "node": np.repeat(nodes, len(keys) // max(len(nodes), 1))})


def facts(store: Store, item: Signed, file: int) -> Iterator[pa.RecordBatch]:
    """What decides which document of a cluster stays: node, id, length, date in seconds."""
    for nodes, batch in read_nodes(store, item, file, "length date"):
        date = batch["date"].cast(pa.int64())
        yield pa.record_batch({"node": nodes, "id": batch["id"], "length": batch["length"], "date": date})


def link(bands: Any) -> Any:
    """Edges `big`, `small`: each document of a band with the smallest node in that band, which connects as well as all pairs."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    smallest = f.min("node").over(Window.partitionBy("key"))
    return bands.select(f.col("node").alias("big"), smallest.alias("small")).where("big != small").distinct()


def components(big: Nodes, small: Nodes) -> tuple[Nodes, Nodes]:
    """Every node of an edge, ascending, and the smallest node of its component."""
    nodes, ends = np.unique(np.concatenate([big, small]), return_inverse=True)
    graph = coo_array((np.ones(len(big), bool), (ends[: len(big)], ends[len(big) :])), (len(nodes), len(nodes)))
    _, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)  # nodes ascend, so a label's first node is its smallest
    return nodes, nodes[first][labels]


def spark_components(edges: Any) -> Any:
    """The same as `components`, for more edges than the driver holds: columns node, component.

    Large-star and small-star in turn until nothing changes (Kiveris et al. 2014, "Connected Components in MapReduce and Beyond").
    """
    from pyspark.sql import functions as f

    edges = edges.localCheckpoint()
    before = None
    while True:
        edges = _small_star(_large_star(edges)).localCheckpoint()
        now = edges.agg(f.count("*"), f.sum(f.xxhash64("big", "small").cast("decimal(38,0)"))).first()
        if now == before:
            break
        before = now
    stars = edges.select(f.col("big").alias("node"), f.col("small").alias("component"))
    return stars.union(stars.select(f.col("component").alias("node"), "component").distinct())


def _large_star(edges: Any) -> Any:
    """Each node links its larger neighbours to the smallest of its neighbours and itself."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    both = edges.union(edges.select(f.col("small").alias("big"), f.col("big").alias("small")))
    smallest = f.least(f.col("big"), f.min("small").over(Window.partitionBy("big")))
    linked = both.select(f.col("small").alias("far"), "big", smallest.alias("small")).where("far > big")
    return linked.select(f.col("far").alias("big"), "small").distinct()


def _small_star(edges: Any) -> Any:
    """Each node links itself and its smaller neighbours to the smallest of them."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    smallest = f.min("small").over(Window.partitionBy("big"))
    grouped = edges.select("big", "small", smallest.alias("least"))
    inner = grouped.where("small != least").select(f.col("small").alias("big"), f.col("least").alias("small"))
    return grouped.select("big", f.col("least").alias("small")).union(inner).distinct()


def losers(members: Any, keep: str) -> Any:
    """Columns node, id, stays, cluster (its smallest id): every document that another one of its component replaces.

    `longest` prefers length, then the newer; `newest` the date, then the longer; ties always go to the smallest id.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    length, date = f.col("length").desc(), f.col("date").desc_nulls_last()
    order = {"longest": [length, date], "newest": [date, length], "smallest_id": []}[keep]
    cluster = Window.partitionBy("component")
    judged = members.select(
        "node",
        "id",
        f.first("id").over(cluster.orderBy(*order, "id")).alias("stays"),
        f.min("id").over(cluster).alias("cluster"),
    )
    return judged.where("id != stays")


def show(row: Mapping[str, Any], group: str) -> str:
    return group


def find(job: Job, inputs: list[Part], settings: DedupFuzzy) -> tuple[dict[int, dict[str, Duplicate]], int]:
    """The documents to drop by file number, and how many edges linked them."""
    items = signed(job, inputs)
    edges = link(job.read_table(items, partial(band_rows, job.store), "key bigint, node bigint")).persist()
    count = edges.count()
    if not count:
        return {}, 0
    if count <= settings.driver_edge_limit:
        table = edges.toArrow()
        nodes, labels = components(table["big"].to_numpy(), table["small"].to_numpy())
        stars = job.spark.createDataFrame(pa.table({"node": nodes, "component": labels}))
    else:
        stars = spark_components(edges)
    known = job.read_table(items, partial(facts, job.store), "node bigint, id string, length bigint, date bigint")
    doomed: dict[int, dict[str, Duplicate]] = {}
    # The driver holds the ids of the dropped, about 300 bytes each.
    for row in losers(known.join(stars, "node"), settings.keep).toArrow().to_pylist():
        doomed.setdefault(row["node"] >> FILE_BITS, {})[row["id"]] = Duplicate(row["stays"], row["cluster"])
    edges.unpersist()
    return doomed, count


def run(job: Job) -> None:
    settings: DedupFuzzy = job.settings
    inputs = parts(job, "dedup_url")
    with worker_errors():
        doomed, edges = find(job, inputs, settings) if inputs else ({}, 0)
    before = sum(manifest.rows.bytes_kept for manifest in job.manifests("dedup_url"))
    clusters = len({one.group for file in doomed.values() for one in file.values()})
    job.commit(
        drop_duplicates(job, inputs, doomed, Drop.NEAR_DUPLICATE, show, before),
        edges=edges,
        clusters=clusters,
    )
