"""Reads training data: packed tokens, the corpus's documents, and files of instructions and preferences.

The rows of a step are a pure function of the step. So a resumed run continues exactly where it stopped, on any number
of processes.
"""

import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import Manifest
from contract.shards import open_shard
from contract.store import split_uri
from contract.tables import read_batches
from training.chat.template import Role, Turn
from training.engine.job import Job

T = TypeVar("T")


# ---------------------------------------------------------------- order


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch)))).permutation(count)


def rows_of(step: int, batch: int, count: int, seed: int) -> list[int]:
    """The rows, of `count`, of step `step`, counted from 0. Each epoch uses every row once, in its own order."""
    positions = range(step * batch, (step + 1) * batch)
    return [int(_permutation(count, seed, position // count)[position % count]) for position in positions]


def share_of(rows: list[T], rank: int, world: int) -> list[T]:
    """One process's contiguous share of a step's rows, whose number must be a multiple of `world`."""
    size = len(rows) // world
    return rows[rank * size : (rank + 1) * size]


# ---------------------------------------------------------------- packed tokens


@dataclass(frozen=True)
class Batch:
    """tokens (B, T), int64; mask (B, T - 1), 1 where the next token is predicted; count: ones in a step's masks."""

    tokens: Tensor
    mask: Tensor
    count: int


class TokenData:
    """The shards of one kind, memory-mapped.

    Attention is causal over the whole sequence, so it crosses the boundaries of documents packed together.
    """

    def __init__(self, job: Job, kind: Kind, seed: int = 0) -> None:
        """`kind` is `tokens` or `heldout_tokens`. Raises InputError if there is no sequence of kind `tokens`."""
        manifest = job.manifest("pack")
        self._shards = [open_shard(job.download(file)) for file in manifest.of(kind)]
        self._starts = np.cumsum([0, *(len(shard.tokens) for shard in self._shards)])
        self._seed = seed
        if kind == Kind.TOKENS and not len(self):
            raise InputError(f"{job.store.full(manifest.path)}: lists no token; the corpus is empty, check the funnel")

    def __len__(self) -> int:
        """The number of sequences."""
        return int(self._starts[-1])

    def rows(self, indices: list[int]) -> Batch:
        """These sequences, on the CPU; `count` covers only these."""
        sequences = [self._row(index) for index in indices]
        tokens = torch.from_numpy(np.stack([row for row, _ in sequences]).astype(np.int64))
        mask = torch.zeros(tokens.shape[0], tokens.shape[1] - 1)
        for index, (_, used) in enumerate(sequences):
            mask[index, : max(used - 1, 0)] = 1
        return Batch(tokens, mask, int(mask.sum()))

    def batch(self, step: int, batch: int, rank: int = 0, world: int = 1) -> Batch:
        """One process's rows of a step; `count` covers the rows of all processes."""
        indices = rows_of(step, batch, len(self), self._seed)
        part = self.rows(share_of(indices, rank, world))
        return Batch(part.tokens, part.mask, sum(max(self._used(index) - 1, 0) for index in indices))

    def _row(self, index: int) -> tuple[npt.NDArray[Any], int]:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._shards[shard].tokens[index - self._starts[shard]], self._used(index)

    def _used(self, index: int) -> int:
        """The number of tokens of a sequence without padding, which occurs only at a shard's end."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        tokens = self._shards[shard].tokens
        length = int(tokens.shape[1])
        return min(length, self._shards[shard].used - int(index - self._starts[shard]) * length)


# ---------------------------------------------------------------- documents


@dataclass(frozen=True)
class Document:
    id: str
    title: str
    text: str


def documents(job: Job, manifest: Manifest, kind: Kind = Kind.DOCUMENTS) -> Iterator[Document]:
    """The texts that `mix` committed, of kind `documents` or `heldout`, in the order of the mixture."""
    for file in manifest.of(kind):
        for part in read_batches(job.store, file, 256, ["id", "title", "text"]):
            for row in part.to_pylist():
                yield Document(row["id"], (row["title"] or "").strip(), row["text"])


# ---------------------------------------------------------------- examples


@dataclass(frozen=True)
class Preference:
    """The same prompt with a better and a worse reply."""

    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str


@dataclass
class Bad:
    """Counts of a file's unusable rows by reason; `first` is the place of the first one and its fault."""

    reasons: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def add(self, where: str, reason: str) -> None:
        self.reasons[reason] += 1
        self.first = self.first or f"{where}: {reason.replace('_', ' ')}"


class Unusable(ValueError):
    """A row that cannot be used; the text is a short reason with underscores."""


def read_examples(uri: str, parse: Callable[[Any], T], allowed: str, limit: int | None = None) -> tuple[list[T], Bad]:
    """Examples, and the unusable rows, of JSONL or a JSON array, gzipped or not, or of every such file in a folder.

    `parse` turns one row into an example or raises Unusable. Raises InputError if no example is left; the message names
    the first bad row and what is `allowed`.
    """
    examples: list[T] = []
    bad = Bad()
    for where, row in _json_rows(uri, bad):
        try:
            examples.append(parse(row))
        except Unusable as error:
            bad.add(where, str(error))
        if limit is not None and len(examples) >= limit:
            break
    if not examples:
        raise InputError(f"{uri}: holds no usable row ({bad.first or 'it is empty'}); allowed: {allowed}")
    return examples, bad


def _json_rows(uri: str, bad: Bad) -> Iterator[tuple[str, Any]]:
    store, name = split_uri(uri)
    paths = [name]
    if name in store.folders():
        paths = [entry.path for entry in store.files(name) if re.search(r"\.jsonl?(\.gz)?$", entry.path)]
        if not paths:
            raise InputError(f"{uri}: the folder holds no file named .json, .jsonl, .json.gz or .jsonl.gz")
    for path in paths:
        try:
            data = store.read_bytes(path)
            data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        except FileNotFoundError:
            raise InputError(f"{uri}: no such file or folder") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{store.full(path)}: damaged gzip ({error}); fetch it again") from error
        if data.lstrip()[:1] == b"[":
            try:
                yield from ((f"{store.full(path)} item {index}", row) for index, row in enumerate(json.loads(data)))
            except ValueError as error:
                raise InputError(
                    f"{store.full(path)}: not valid JSON ({error}); allowed: JSONL or one JSON array"
                ) from error
            continue
        for number, line in enumerate(io.BytesIO(data), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError:
                    bad.add(f"{store.full(path)} line {number}", "not_json")
                    continue
                yield f"{store.full(path)} line {number}", row


ALPACA = 'one object a line or in an array, {"instruction": text, "input": text or absent, "output": text}'
HH_RLHF = (
    'one object a line, {"chosen": dialogue, "rejected": dialogue}, '
    'a dialogue being "\\n\\nHuman: ...\\n\\nAssistant: ..."'
)


def parse_alpaca(row: Any) -> list[Turn]:
    """{instruction, input, output} (Taori et al. 2023) as one user turn and one assistant turn.

    The input follows the instruction.
    """
    instruction, extra, output = _texts(row, "instruction"), _texts(row, "input", ""), _texts(row, "output")
    return [Turn("user", f"{instruction}\n\n{extra}" if extra else instruction), Turn("assistant", output)]


def parse_hh(row: Any) -> Preference:
    """{chosen, rejected} (Bai et al. 2022): dialogues that differ in the last reply; earlier turns are the prompt."""
    chosen, rejected = (parse_dialogue(_texts(row, key)) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise Unusable("prompts_differ")
    if chosen[-1].text == rejected[-1].text:
        raise Unusable("replies_are_equal")
    return Preference(tuple(chosen[:-1]), chosen[-1].text, rejected[-1].text)


def parse_dialogue(text: str) -> list[Turn]:
    """Turns of a dialogue with the marks `Human:` and `Assistant:`. It must end with a non-empty reply."""
    pieces = re.split(r"(?:^|\n\n)(Human|Assistant):", text)
    names: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    turns = [Turn(names[name], words.strip()) for name, words in zip(pieces[1::2], pieces[2::2], strict=True)]
    if pieces[0].strip() or len(turns) < 2 or turns[-1].role != "assistant":
        raise Unusable("not_a_dialogue_that_ends_with_a_reply")
    if not turns[-1].text:
        raise Unusable("empty_reply")
    return turns


def _texts(row: Any, key: str, default: str | None = None) -> str:
    if not isinstance(row, dict):
        raise Unusable("not_an_object")
    value = row.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise Unusable(f"{key}_is_missing" if value is None else f"{key}_is_no_text")
    if not value.strip() and default is None:
        raise Unusable(f"{key}_is_empty")
    return value.strip()
