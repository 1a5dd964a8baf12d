"""The order of rows: keyed permutations that are computed, never stored.

A permutation of [0, n) is a keyed bijection: the row at a place follows from the key and the place alone. It takes no
memory however many rows there are, any step can be asked for without those before it, and every process computes the
same.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
N = TypeVar("N", int, npt.NDArray[Any])

ROUNDS = 8  # a Feistel network is a strong permutation from four on (Luby, Rackoff 1988)
TINY, TINY_ROUNDS = 256, 24  # over 20,000 keys, pairs of 5 rows were uneven after 12 rounds, and even after 16
WORD = (1 << 64) - 1
MIX = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)  # MurmurHash3's finaliser
BLOCK = 4096  # rows that are drawn before the next block is begun
BLOCK_TOKENS = 1 << 25  # fewer where rows are long: a reader holds a block or two of each source, 128 MiB at most each


@lru_cache(maxsize=64)
def round_keys(*parts: int | str) -> tuple[int, ...]:
    """The rounds' 64-bit keys. JSON keeps the parts apart, so that (1, 2), (1, 2, 0) and (12,) differ."""
    digest = hashlib.shake_256(json.dumps(parts).encode()).digest(8 * TINY_ROUNDS)
    return tuple(int.from_bytes(digest[at : at + 8], "little") for at in range(0, len(digest), 8))


@dataclass(frozen=True)
class Permutation:
    """A permutation of [0, n), n at most 2^62: a Feistel network on the next power of two.

    A result that is not below n is permuted again until one is (cycle walking; Black, Rogaway 2002). Since the power of
    two is less than 2 n, this takes less than one more pass on average.
    """

    n: int
    keys: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < self.n <= 1 << 62:
            raise ValueError(f"a permutation has 1 to 2^62 places, not {self.n}")

    def __call__(self, place: N) -> N:
        """The row at a place, or, in an array of uint64, the rows at many places."""
        return self._walk(place, forward=True)

    def inverse(self, row: N) -> N:
        """The place of a row."""
        return self._walk(row, forward=False)

    def _walk(self, value: N, forward: bool) -> N:
        value = self._pass(value, forward)
        if isinstance(value, int):
            while value >= self.n:
                value = self._pass(value, forward)
            return value
        outside: npt.NDArray[np.intp] = np.flatnonzero(value >= self.n)
        while len(outside):
            value[outside] = self._pass(value[outside], forward)
            outside = outside[value[outside] >= self.n]
        return value

    def _pass(self, value: N, forward: bool) -> N:
        """Once through the network. Its halves differ by at most one bit, so that no larger domain is needed."""
        bits = (self.n - 1).bit_length()
        low_bits = bits // 2
        low_mask, high_mask = (1 << low_bits) - 1, (1 << bits - low_bits) - 1
        low, high = value & low_mask, value >> low_bits
        rounds = range(ROUNDS if self.n > TINY else TINY_ROUNDS)
        for number in rounds if forward else reversed(rounds):
            if number % 2:
                low = low ^ (_mixed(high, self.keys[number]) & low_mask)
            else:
                high = high ^ (_mixed(low, self.keys[number]) & high_mask)
        return high << low_bits | low


def _mixed(value: N, key: int) -> N:
    """64 bits that all depend on all bits of value and key."""
    value = value ^ key
    for factor in MIX:
        value = (value ^ (value >> 33)) * factor & WORD
    return value ^ (value >> 33)


def permutation(n: int, *key: int | str) -> Permutation:
    """The permutation of [0, n) of this key. Keys that differ in a part or in their number of parts are unrelated."""
    return Permutation(n, round_keys(*key))


def rows_of(step: int, batch: int, count: int, seed: int) -> list[int]:
    """The rows, of `count`, of step `step`, counted from 0. Each epoch uses every row once, in its own order."""
    rows: list[int] = []
    for epoch, first, last in _epochs(step * batch, (step + 1) * batch, count):
        rows += permutation(count, seed, epoch)(np.arange(first, last, dtype=np.uint64)).tolist()
    return rows


def share_of(rows: list[T], rank: int, world: int) -> list[T]:
    """One process's contiguous share of a step's rows: every row is in one share, and shares differ by one at most."""
    return rows[rank * len(rows) // world : (rank + 1) * len(rows) // world]


def block_of(seq_len: int) -> int:
    """The rows of a block, whose rows are of `seq_len` + 1 tokens."""
    return max(1, min(BLOCK, BLOCK_TOKENS // seq_len))


def draws_of(
    source: str, count: int, first: int, last: int, seed: int, block_rows: int = BLOCK
) -> npt.NDArray[np.int64]:
    """The rows of draws `first` to `last` - 1 of a source that has `count` rows, counted from 0 over all epochs.

    Each epoch draws every row once. Blocks of `block_rows` neighbouring rows come in the order of a permutation,
    and the rows of a block in that of another, so a reader needs one block at a time, or two where one ends.
    """
    pieces = [np.empty(0, dtype=np.int64)]
    for epoch, start, stop in _epochs(first, last, count):
        blocks = permutation(-(-count // block_rows), seed, source, epoch)
        for block, begin, end in _blocks(blocks, block_rows, count, start, stop):
            size = min(block_rows, count - block * block_rows)
            within = permutation(size, seed, source, epoch, block)(np.arange(begin, end, dtype=np.uint64))
            pieces.append(within.astype(np.int64) + block * block_rows)
    return np.concatenate(pieces)


def _epochs(first: int, last: int, count: int) -> Iterator[tuple[int, int, int]]:
    """(epoch, first place, end) of the draws `first` to `last` - 1, cut where an epoch of `count` draws ends."""
    while first < last:
        epoch, place = divmod(first, count)
        end = min(count, place + last - first)
        yield epoch, place, end
        first += end - place


def _blocks(order: Permutation, rows: int, count: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(block, first place within it, end) of the places `start` to `stop` - 1 of an epoch.

    The epoch has `count` rows, and a block `rows` of them. The last block may be shorter. Wherever it falls in the
    order, all places behind it move up.
    """
    short = order.n * rows - count  # rows that the last block lacks
    at = order.inverse(order.n - 1)
    while start < stop:
        moved = start if start < at * rows + rows - short else start + short
        slot, place = divmod(moved, rows)
        end = min(rows - short if slot == at else rows, place + stop - start)
        yield order(slot), place, end
        start += end - place
