"""Connected components on graphs whose answer is plain."""

import numpy as np
import pytest

from pipelines.spark.components import components


@pytest.mark.parametrize(
    ("edges", "nodes", "labels"),
    [
        ([(5, 2)], [2, 5], [2, 2]),
        ([(2, 5)], [2, 5], [2, 2]),
        ([(9, 4), (7, 4), (9, 1)], [1, 4, 7, 9], [1, 1, 1, 1]),
        ([(3, 1), (8, 6), (12, 8), (3, 3)], [1, 3, 6, 8, 12], [1, 1, 6, 6, 6]),
        ([(1 << 40, 1 << 33), (1 << 33, 7)], [7, 1 << 33, 1 << 40], [7, 7, 7]),
        ([], [], []),
    ],
)
def test_each_node_with_the_smallest_of_its_component(
    edges: list[tuple[int, int]], nodes: list[int], labels: list[int]
) -> None:
    big, small = np.array(edges, np.int64).reshape(-1, 2).T
    found = components(big, small)
    assert (found[0].tolist(), found[1].tolist()) == (nodes, labels)
