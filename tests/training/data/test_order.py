"""Order of rows: permutations that are computed, the same wherever and however they are asked for."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.order import BLOCK, draws_of, permutation, round_keys, rows_of, share_of

COUNTS = st.one_of(st.integers(1, 70), st.integers(4090, 4100), st.integers(8190, 20_000))


def places(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.uint64)


@given(n=COUNTS, seed=st.integers(0, 1 << 32), epoch=st.integers(0, 9))
def test_every_place_has_one_row_and_every_row_one_place(n: int, seed: int, epoch: int) -> None:
    order = permutation(n, seed, "crawl", epoch)
    rows = order(places(n))
    assert sorted(rows.tolist()) == list(range(n))
    assert order.inverse(rows).tolist() == list(range(n))
    some = [0, n // 2, n - 1]
    assert [order(place) for place in some] == rows[some].tolist(), "one place at a time or many: the same rows"
    assert [order.inverse(order(place)) for place in some] == some


@given(n=st.integers(1, 1 << 62), at=st.integers(0, (1 << 62) - 1))
def test_a_permutation_has_up_to_2_to_the_62_places(n: int, at: int) -> None:
    order, place = permutation(n, 3), at % n
    row = order(place)
    assert 0 <= row < n
    assert order.inverse(row) == place
    assert order(np.array([place], dtype=np.uint64)).tolist() == [row]


@pytest.mark.parametrize("n", [0, -1, (1 << 62) + 1])
def test_other_numbers_of_places_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"a permutation has 1 to 2\\^62 places, not {n}"):
        permutation(n, 0)


def test_permutations_are_what_they_were() -> None:
    """A run that goes on after an upgrade reads what it would have read."""
    assert permutation(10, 7, "crawl", 0)(places(10)).tolist() == [3, 5, 7, 2, 4, 0, 6, 8, 1, 9]
    assert [permutation(1 << 62, 7)(place) for place in (0, 1)] == [1124690615986656297, 1038919010306302565]
    assert rows_of(2, 4, 6, 7) == [3, 5, 1, 4]
    assert draws_of("code", 10_000, 9_998, 10_002, 7).tolist() == [530, 126, 6295, 5193]


def chi_squared(counts: Counter, kinds: int) -> float:
    expected = counts.total() / kinds
    missing = kinds - len(counts)
    return sum((seen - expected) ** 2 / expected for seen in counts.values()) + missing * expected


def most(kinds: int) -> float:
    """What chi-squared exceeds in one of about 10,000 fair samples (Wilson and Hilferty 1931)."""
    free = kinds - 1
    return free * (1 - 2 / (9 * free) + 3.72 * (2 / (9 * free)) ** 0.5) ** 3


@pytest.mark.parametrize("n", [2, 3, 5, 13, 64, 100])
def test_over_many_keys_every_row_is_as_likely_at_every_place(n: int) -> None:
    orders = np.stack([permutation(n, seed, "crawl", 0)(places(n)) for seed in range(1500)])
    for place in {0, 1, n // 2, n - 1}:
        assert chi_squared(Counter(orders[:, place].tolist()), n) < most(n)
    if n <= 13:
        pairs = Counter(map(tuple, orders[:, :2].tolist()))
        assert chi_squared(pairs, n * (n - 1)) < most(n * (n - 1)), "rows do not stay with their neighbours"


def test_of_few_rows_every_order_is_as_likely() -> None:
    orders = Counter(tuple(permutation(4, seed)(places(4)).tolist()) for seed in range(5000))
    assert chi_squared(orders, 24) < most(24)


def test_over_the_epochs_a_place_has_every_row() -> None:
    seen = Counter(permutation(50, 0, "crawl", epoch)(0) for epoch in range(5000))
    assert chi_squared(seen, 50) < most(50)


def test_parts_of_a_key_are_kept_apart() -> None:
    keys = [(1, 2), (1, 2, 0), (12,), ("1", 2), (1, "2"), (2, 1), ("a", "b"), ("ab",), ("a, b",)]
    assert len({round_keys(*key) for key in keys}) == len(keys)
    assert len(set(round_keys(1))) == 24, "every round has a key of its own"


@given(count=st.integers(1, 40), batch=st.integers(1, 9), seed=st.integers(0, 5))
def test_every_epoch_shows_every_row_once(count: int, batch: int, seed: int) -> None:
    steps = -(-3 * count // batch)
    order = [row for step in range(steps) for row in rows_of(step, batch, count, seed)]
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert rows_of(steps - 1, batch, count, seed) == order[-batch:], "any step can be asked for alone"


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = rows_of(0, 50, 50, 1), rows_of(1, 50, 50, 1)
    assert first != second
    assert first != rows_of(0, 50, 50, 2)


def test_shares_of_all_processes_make_the_batch() -> None:
    rows = rows_of(3, 12, 100, 0)
    assert [row for rank in range(4) for row in share_of(rows, rank, 4)] == rows
    for world in (5, 8, 13):
        shares = [share_of(rows, rank, world) for rank in range(world)]
        assert [row for share in shares for row in share] == rows, "none is left out, also if they do not divide"
        assert {len(share) for share in shares} == {12 // world, -(-12 // world)}


@given(count=COUNTS, seed=st.integers(0, 9), cut=st.integers(1, 5000))
def test_a_source_is_drawn_once_an_epoch_however_the_draws_are_cut(count: int, seed: int, cut: int) -> None:
    two = draws_of("crawl", count, 0, 2 * count, seed)
    assert sorted(two[:count].tolist()) == sorted(two[count:].tolist()) == list(range(count))
    first, last = min(cut, 2 * count), min(cut + 300, 2 * count)
    assert draws_of("crawl", count, first, last, seed).tolist() == two[first:last].tolist()


def test_a_source_is_read_block_by_block_in_an_order_of_its_own() -> None:
    count = 9 * BLOCK + 100
    drawn = draws_of("crawl", count, 0, count, 5)
    blocks = (drawn // BLOCK).tolist()
    changes = [blocks[0]] + [later for earlier, later in pairwise(blocks) if earlier != later]
    assert sorted(changes) == list(range(10)), "a block is read to its end before the next is begun"
    assert changes != sorted(changes)
    assert blocks.count(9) == 100, "the last block is shorter"
    first = drawn[drawn // BLOCK == 0]
    second = drawn[drawn // BLOCK == 1] - BLOCK
    assert first.tolist() != sorted(first.tolist())
    assert first.tolist() != second.tolist(), "each block has an order of its own"
    assert draws_of("code", count, 0, 99, 5).tolist() != drawn[:99].tolist(), "and so has each source"
    assert draws_of("crawl", count, 0, 99, 6).tolist() != drawn[:99].tolist()
    assert draws_of("crawl", count, 7, 7, 5).tolist() == []


def test_the_short_block_may_come_first_last_or_between() -> None:
    at = {draws_of("crawl", 2 * BLOCK + 1, 0, 2 * BLOCK + 1, seed).tolist().index(2 * BLOCK) for seed in range(20)}
    assert at == {0, BLOCK, 2 * BLOCK}
