"""The order of a source's rows: memory a row, and time a step beside a permutation that is kept as a list."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from perf.bars import Bars
from training.data.order import draws_of, rows_of

FEW, MANY = 10**6, 10**9
BATCH = 1024  # GPT-3's steps had 1,600 sequences, LLaMA's 2,048
STEPS = 200
LISTED = 10**7  # rows of the list: at 10^9 it takes 8 GB


def peak(count: int) -> int:
    """The most bytes that were allocated at a time over steps all over an epoch, and the first of the next."""
    first = [at * (count - BATCH) // STEPS for at in range(STEPS + 1)] + [count - BATCH // 2]
    tracemalloc.start()
    for begin in first:
        draws_of("crawl", count, begin, begin + BATCH, 0)
        rows_of(begin // BATCH, BATCH, count, 0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def seconds(step: Callable[[int], object]) -> float:
    """Of one step, on average."""
    began = time.perf_counter()
    for number in range(STEPS):
        step(number)
    return (time.perf_counter() - began) / STEPS


def run(bars: Bars, data: Path) -> None:
    peak(FEW)  # what is allocated once, by modules and caches
    few, many = peak(FEW), peak(MANY)
    print(f"peak {few:,} bytes over {FEW:,} rows, {many:,} bytes over {MANY:,}")
    bars.at_most("permutation_bytes_a_row", round((many - few) / (MANY - FEW), 3), 0)
    began = time.perf_counter()
    listed = np.random.default_rng(0).permutation(LISTED)
    built = time.perf_counter() - began
    taken = seconds(lambda step: [int(listed[step * BATCH + at]) for at in range(BATCH)])
    ours = seconds(lambda step: draws_of("crawl", MANY, step * BATCH, (step + 1) * BATCH, 0))
    examples = seconds(lambda step: rows_of(step, BATCH, MANY, 0))
    print(f"a list of {LISTED:,} rows: {8 * LISTED:,} bytes, {built:.2f} s an epoch, then {taken * 1e6:.0f} us a step")
    print(f"computed, {MANY:,} rows: {ours * 1e6:.0f} us a step of {BATCH} rows, {examples * 1e6:.0f} us for examples")
