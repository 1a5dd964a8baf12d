"""Connected components: by scipy if the driver can hold the edges, else by large-star and small-star on Spark."""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Nodes = npt.NDArray[np.int64]


def components(big: Nodes, small: Nodes) -> tuple[Nodes, Nodes]:
    """Return all nodes, ascending, and for each the smallest node of its component.

    big, small: the two ends of each edge, shape (edges,).
    """
    nodes, ends = np.unique(np.concatenate([big, small]), return_inverse=True)
    graph = coo_array((np.ones(len(big), bool), (ends[: len(big)], ends[len(big) :])), (len(nodes), len(nodes)))
    _, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)  # nodes ascend, so a label's first node is its smallest
    return nodes, nodes[first][labels]


def spark_components(edges: Any, materialize: Callable[[Any, int], Any]) -> Any:
    """`components` for more edges than the driver can hold, as a frame with the columns node and component.

    Alternates large-star and small-star until the edges stop changing (Kiveris et al. 2014, "Connected Components in
    MapReduce and Beyond"). `materialize(frame, round)` computes a frame and returns it without its lineage, so that
    later rounds do not compute it again.
    """
    from pyspark.sql import functions as f

    previous = None
    for turn in count():
        edges = materialize(_small_star(_large_star(edges)), turn)
        fingerprint = edges.agg(f.count("*"), f.sum(f.xxhash64("big", "small").cast("decimal(38,0)"))).first()
        if fingerprint == previous:
            break
        previous = fingerprint
    stars = edges.select(f.col("big").alias("node"), f.col("small").alias("component"))
    return stars.union(stars.select(f.col("component").alias("node"), "component").distinct())


def _large_star(edges: Any) -> Any:
    """Link the larger neighbours of each node to the smallest among the node and all its neighbours."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    both = edges.union(edges.select(f.col("small").alias("big"), f.col("big").alias("small")))
    smallest = f.least(f.col("big"), f.min("small").over(Window.partitionBy("big")))
    linked = both.select(f.col("small").alias("far"), "big", smallest.alias("small")).where("far > big")
    return linked.select(f.col("far").alias("big"), "small").distinct()


def _small_star(edges: Any) -> Any:
    """Link each node and its smaller neighbours to the smallest of these neighbours."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    smallest = f.min("small").over(Window.partitionBy("big"))
    grouped = edges.select("big", "small", smallest.alias("least"))
    inner = grouped.where("small != least").select(f.col("small").alias("big"), f.col("least").alias("small"))
    return grouped.select("big", f.col("least").alias("small")).union(inner).distinct()
