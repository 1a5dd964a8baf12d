"""Cuts: written and read by row, and composed over stages and passes."""

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from contract.cuts import compose, read_cuts, without
from contract.store import Store
from pipelines.spark.documents import write_cuts


def ranges(size: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Disjoint, ascending, not empty."""
    points = st.lists(st.integers(0, size), unique=True, max_size=8).map(sorted)
    return points.map(lambda found: list(zip(found[::2], found[1::2], strict=False)))


@given(st.data())
def test_composed_cuts_leave_what_two_passes_leave(data: st.DataObject) -> None:
    text = bytes(data.draw(st.lists(st.integers(0, 255), max_size=40)))
    first = data.draw(ranges(len(text)))
    left = without(text, first)
    later = data.draw(ranges(len(left)))
    both = compose(first, later)
    assert without(text, both) == without(left, later)
    assert all(start < end for start, end in both)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(both))


def test_many_cuts_are_composed_in_one_walk() -> None:
    first = [(4 * at, 4 * at + 1) for at in range(20_000)]
    later = [(3 * at + 1, 3 * at + 2) for at in range(20_000)]
    began = time.process_time()
    assert compose(first, later) == [
        cut for at in range(20_000) for cut in ((4 * at, 4 * at + 1), (4 * at + 2, 4 * at + 3))
    ]
    assert time.process_time() - began < 2


def test_a_text_without_its_cuts() -> None:
    assert without(b"0123456789", []) == b"0123456789"
    assert without(b"0123456789", [(0, 2), (5, 6), (8, 10)]) == b"23467"


def test_cuts_of_a_second_pass_are_cuts_of_the_original() -> None:
    assert compose([(2, 4)], [(0, 1), (2, 3)]) == [(0, 1), (2, 5)]  # of 01456789
    assert compose([(2, 4)], [(1, 3)]) == [(1, 5)]
    assert compose([(2, 4), (6, 7)], [(3, 5)]) == [(2, 4), (5, 8)]  # of 014589
    assert compose([(2, 4)], []) == [(2, 4)]
    assert compose([], [(3, 5)]) == [(3, 5)]


def test_cuts_are_found_by_row(tmp_store: Store) -> None:
    cuts = {7: [(0, 2), (4, 5)], 2: [(1, 3)]}
    file = write_cuts(tmp_store, "cuts.parquet", cuts, {7: "b", 2: "a", 9: "c"})
    assert (file.kind, file.rows) == ("cuts", 3)
    assert read_cuts(tmp_store, file) == cuts
    assert list(read_cuts(tmp_store, file)) == [2, 7]
    assert read_cuts(tmp_store, None) == {}
