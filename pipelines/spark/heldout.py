"""Which documents the mixture holds out, known long before it is made: what is cut and dropped on the way depends on it."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash


def is_heldout(fraction: float, key: str) -> bool:
    """The same documents in every run, and with a larger fraction those and more. key: a crawled document's id, a curated one's text."""
    return xxhash.xxh3_64_intdigest(f"heldout {key}".encode()) < fraction * 2**64


def contains(ordered: npt.NDArray[np.uint64], value: int) -> bool:
    """Whether an ascending array has a value."""
    at = int(np.searchsorted(ordered, np.uint64(value)))
    return at < len(ordered) and int(ordered[at]) == value


def heldout(fraction: float, keys: Iterable[str]) -> npt.NDArray[np.bool_]:
    """The same of many. Shape (keys,)."""
    return np.fromiter((is_heldout(fraction, key) for key in keys), bool)
