"""The only 64-bit hash of the project. It hashes an integer, a series of codes one by one, or every run of n values.

Every hash of words, lines, n-grams, windows and bands is made of these kernels.
"""

import numpy as np
import numpy.typing as npt

from pipelines.text.kernels import kernel

Hashes = npt.NDArray[np.uint64]
Integer = int | np.int64  # one type in a kernel

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: a bijection modulo 2^64
START = np.uint64(0x243F6A8885A308D3)  # the first 64 bits of the fraction of pi


@kernel
def mix64(value: np.uint64) -> np.uint64:
    """MurmurHash3's 64-bit finalizer: a bijection in which each input bit affects about half of the output bits."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@kernel
def take(state: np.uint64, code: Integer) -> np.uint64:
    """The state after one more code, as of a character. Begin with START; the hash is `mix64` of the last state."""
    return (state ^ np.uint64(code)) * MULTIPLIER ^ (state >> np.uint64(29))


@kernel
def rolling(hashes: Hashes, start: int, end: int, n: int, out: Hashes, count: int) -> int:
    """Write a hash of every run of n values of hashes[start:end] to out[count:]. Returns the new count.

    The hash is a polynomial in MULTIPLIER modulo 2^64 (Karp and Rabin 1987), then `mix64`, so that any of its bits can
    serve as a hash.
    """
    power = np.uint64(1)
    for _ in range(n):
        power *= MULTIPLIER
    total = np.uint64(0)
    for at in range(start, end):
        total = total * MULTIPLIER + hashes[at]
        if at - start >= n:
            total -= hashes[at - n] * power
        if at - start >= n - 1:
            out[count] = mix64(total)
            count += 1
    return count


@kernel
def ngram_hashes(hashes: Hashes, n: int) -> Hashes:
    """Hash every run of n values. Shape (max(values - n + 1, 0),)."""
    out = np.empty(max(len(hashes) - n + 1, 0), np.uint64)
    rolling(hashes, 0, len(hashes), n, out, 0)
    return out
