"""Compiled counting of the parts of a text that occur more than once, in time linear in the number of parts.

A part is the span [start, end) of code points, identified by a 64-bit key. Parts are in the order of the text.
"""

import numpy as np

from pipelines.text.counting import Keys, Places
from pipelines.text.kernels import kernel

TAKEN = np.uint64(1)  # is set in every key of a table, because 0 marks an empty slot


@kernel
def _slot(table: Keys, key: np.uint64) -> np.int64:
    """The slot of a key in a hash table, or the free slot where it would go."""
    last = len(table) - 1
    at = np.int64(key >> np.uint64(1)) & last
    while table[at] != 0 and table[at] != key:
        at = (at + 1) & last
    return at


@kernel
def _table_size(entries: int) -> int:
    size = 16
    while size < 2 * entries:
        size *= 2
    return size


@kernel
def repeated(parts: Keys, starts: Places, ends: Places) -> tuple[int, int]:
    """Number and total code points of the parts that occurred earlier."""
    seen = np.zeros(_table_size(len(parts)), np.uint64)
    count = size = 0
    for index in range(len(parts)):
        key = parts[index] | TAKEN
        at = _slot(seen, key)
        if seen[at]:
            count += 1
            size += ends[index] - starts[index]
        seen[at] = key
    return count, size


@kernel
def top_ngram(grams: Keys, starts: Places, ends: Places, n: int) -> int:
    """Occurrences x code points of the most frequent n-gram, the longest if tied; 0 if none occurs twice."""
    seen = np.zeros(_table_size(len(grams)), np.uint64)
    counts, first = np.zeros(len(seen), np.int64), np.zeros(len(seen), np.int64)
    most = 0
    for index in range(len(grams)):
        key = grams[index] | TAKEN
        at = _slot(seen, key)
        if not seen[at]:
            seen[at], first[at] = key, index
        counts[at] += 1
        most = max(most, counts[at])
    longest = 0
    if most > 1:
        for slot in range(len(seen)):
            if counts[slot] == most:
                longest = max(longest, ends[first[slot] + n - 1] - starts[first[slot]])
    return most * longest


@kernel
def covered_by_repeats(grams: Keys, starts: Places, ends: Places, n: int) -> int:
    """Number of code points covered by n-grams that occurred earlier, each counted once."""
    seen = np.zeros(_table_size(len(grams)), np.uint64)
    reached = size = 0
    for index in range(len(grams)):
        key = grams[index] | TAKEN
        at = _slot(seen, key)
        if seen[at]:
            end = ends[index + n - 1]
            size += end - max(starts[index], reached)
            reached = end
        seen[at] = key
    return size


@kernel
def occurrences(grams: Keys) -> Places:
    """Number of occurrences of each distinct key, in no particular order. Shape (distinct keys,)."""
    seen = np.zeros(_table_size(len(grams)), np.uint64)
    counts = np.zeros(len(seen), np.int64)
    for index in range(len(grams)):
        key = grams[index] | TAKEN
        at = _slot(seen, key)
        seen[at] = key
        counts[at] += 1
    return counts[counts > 0]
