"""Compiled counting of keys that occur more than once, each key a part of a text; linear in the parts.

Parts, and so their keys, stand in the text's order, and a part is the span [start, end) of code points. As in `pipelines.text.counting`
a kernel calls kernels of this file only.
"""

import numpy as np

from pipelines.text.counting import kernel


@kernel
def _slot(table, key):
    """Where a key is in a hash table with free slots, or where it would go."""
    last = len(table) - 1
    at = np.int64(key >> np.uint64(1)) & last
    while table[at] != 0 and table[at] != key:
        at = (at + 1) & last
    return at


@kernel
def _table_size(entries):
    size = 16
    while size < 2 * entries:
        size *= 2
    return size


@kernel
def repeated(parts, starts, ends):
    """(parts that stood before already, their code points)."""
    seen = np.zeros(_table_size(len(parts)), np.uint64)
    count = size = 0
    for index in range(len(parts)):
        at = _slot(seen, parts[index])
        if seen[at]:
            count += 1
            size += ends[index] - starts[index]
        seen[at] = parts[index]
    return count, size


@kernel
def top_ngram(grams, starts, ends, n):
    """Occurrences x code points of the most frequent n-gram, of several the longest; 0 where it occurs once."""
    seen = np.zeros(_table_size(len(grams)), np.uint64)
    counts, first = np.zeros(len(seen), np.int64), np.zeros(len(seen), np.int64)
    most = 0
    for index in range(len(grams)):
        at = _slot(seen, grams[index])
        if not seen[at]:
            seen[at], first[at] = grams[index], index
        counts[at] += 1
        most = max(most, counts[at])
    longest = 0
    if most > 1:
        for at in range(len(seen)):
            if counts[at] == most:
                longest = max(longest, ends[first[at] + n - 1] - starts[first[at]])
    return most * longest


@kernel
def covered_by_repeats(grams, starts, ends, n):
    """Code points under n-grams that stood before already, each counted once."""
    seen = np.zeros(_table_size(len(grams)), np.uint64)
    reached = size = 0
    for index in range(len(grams)):
        at = _slot(seen, grams[index])
        if seen[at]:
            end = ends[index + n - 1]
            size += end - max(starts[index], reached)
            reached = end
        seen[at] = grams[index]
    return size


@kernel
def occurrences(grams):
    """How often each distinct key occurs."""
    seen = np.zeros(_table_size(len(grams)), np.uint64)
    counts = np.zeros(len(seen), np.int64)
    for index in range(len(grams)):
        at = _slot(seen, grams[index])
        seen[at] = grams[index]
        counts[at] += 1
    return counts[counts > 0]
