"""Reads the local files of a checkpoint and checks that they are undamaged."""

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from contract.digest import file_digest
from contract.errors import DamagedError


def header_fits(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says.

    The library cannot tell: it raises the same error for a damaged header and for too many open files.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            tensors = json.loads(file.read(min(size, path.stat().st_size)))
            tensors.pop("__metadata__", None)
            ends = [tensor["data_offsets"][1] for tensor in tensors.values()]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return 8 + size + max(ends, default=0) == path.stat().st_size


def check_digests(local: Mapping[str, Path], committed: Mapping[str, str], rank: int, world: int) -> None:
    """Raises DamagedError if a file's SHA-256 differs from the committed one.

    `local` maps the names of the files that this rank reads to their paths. Each rank of `world` checks its own random
    state and its share of the files that all ranks read.
    """
    shared = sorted(name for name in local if not name.startswith("random-"))
    mine = [name for name in local if name.startswith("random-")] + shared[rank::world]
    for name in mine:
        if file_digest(local[name]) != committed[name]:
            raise DamagedError(f"{name}: its checksum does not match")


class Shards:
    """The tensors of all shards, each read on request, so that no process holds a whole checkpoint."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._where: dict[str, dict[str, Path]] = {}  # engine/parameter -> part -> file
        for path in paths:
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118 - not a mapping
                    parameter, _, part = key.rpartition("/")
                    self._where.setdefault(parameter, {})[part] = path

    def tensors(self, engine: str, parameter: str) -> dict[str, Tensor]:
        name = f"{engine}/{parameter}"
        if name not in self._where:
            raise KeyError(f"no {parameter}")
        tensors = {}
        for part, path in self._where[name].items():
            with safe_open(path, "pt") as file:
                tensors[part] = file.get_tensor(f"{name}/{part}")
        return tensors


def random_state() -> dict[str, Tensor]:
    """The states of torch's, numpy's and Python's global generators as tensors."""
    version, words, gauss = random.getstate()
    _, key, position, has_gauss, cached = np.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(key).astype(np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    version, *words = states["python"].tolist()
    gauss = states["python_gauss"].tolist()
    random.setstate((version, tuple(words), gauss[0] if gauss else None))
    position, has_gauss, cached = states["numpy_rest"].tolist()
    np.random.set_state(("MT19937", states["numpy"].numpy().astype(np.uint32), int(position), int(has_gauss), cached))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
