"""Decides which documents the mixture holds out. Stages long before `mix` need this to decide what to cut and drop."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash


def is_heldout(fraction: float, key: str) -> bool:
    """Whether a document is held out. A pure function of its arguments; a larger fraction only adds documents.

    key: the document's id.
    """
    return xxhash.xxh3_64_intdigest(f"heldout {key}".encode()) < fraction * 2**64


def contains(ordered: npt.NDArray[np.uint64], value: int) -> bool:
    """Whether an ascending array contains a value."""
    index = int(np.searchsorted(ordered, np.uint64(value)))
    return index < len(ordered) and int(ordered[index]) == value


def heldout(fraction: float, keys: Iterable[str]) -> npt.NDArray[np.bool_]:
    """`is_heldout` of each key. Shape (keys,)."""
    return np.fromiter((is_heldout(fraction, key) for key in keys), bool)
