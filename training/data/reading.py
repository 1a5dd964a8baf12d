"""What the models learn from: packed tokens, the corpus's documents, and files of instructions and preferences.

Which rows make up a step is a pure function of the step, so a resumed run reads on exactly where it stopped, on any number of processes.
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
    """Which of `count` rows make up step `step`, counted from 0: each epoch shows every row once, in an order of its own."""
    positions = range(step * batch, (step + 1) * batch)
    return [int(_permutation(count, seed, one // count)[one % count]) for one in positions]


def share_of(rows: list[T], rank: int, world: int) -> list[T]:
    """One process's contiguous share of a step's rows, whose number `world` divides."""
    size = len(rows) // world
    return rows[rank * size : (rank + 1) * size]


# ---------------------------------------------------------------- packed tokens


@dataclass(frozen=True)
class Batch:
    """tokens (B, T) int64; mask (B, T - 1), 1 where the next token is to be predicted; count: ones in the masks of all processes."""

    tokens: Tensor
    mask: Tensor
    count: int


class TokenData:
    """The shards of one kind, memory-mapped. Attention is causal over the whole sequence: documents packed together see each other."""

    def __init__(self, job: Job, kind: str, seed: int = 0) -> None:
        """`kind` is `tokens` or `heldout_tokens`. Raises InputError where there is not one sequence of the first kind."""
        manifest = job.manifest("pack")
        self._shards = [open_shard(job.download(file)) for file in manifest.of(kind)]
        self._starts = np.cumsum([0, *(len(shard.tokens) for shard in self._shards)])
        self._seed = seed
        if kind == "tokens" and not len(self):
            raise InputError(f"{job.store.full(manifest.path)}: lists no token; the corpus is empty, check the funnel")

    def __len__(self) -> int:
        """Sequences."""
        return int(self._starts[-1])

    def rows(self, indices: list[int]) -> Batch:
        """These sequences, on the CPU, with the count of these alone."""
        found = [self._row(index) for index in indices]
        tokens = torch.from_numpy(np.stack([row for row, _ in found]).astype(np.int64))
        mask = torch.zeros(tokens.shape[0], tokens.shape[1] - 1)
        for index, (_, used) in enumerate(found):
            mask[index, : max(used - 1, 0)] = 1
        return Batch(tokens, mask, int(mask.sum()))

    def batch(self, step: int, batch: int, rank: int = 0, world: int = 1) -> Batch:
        """One process's rows of a step; `count` is the step's, over all processes."""
        indices = rows_of(step, batch, len(self), self._seed)
        part = self.rows(share_of(indices, rank, world))
        return Batch(part.tokens, part.mask, sum(max(self._used(index) - 1, 0) for index in indices))

    def _row(self, index: int) -> tuple[npt.NDArray[Any], int]:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._shards[shard].tokens[index - self._starts[shard]], self._used(index)

    def _used(self, index: int) -> int:
        """Tokens of a sequence that are no padding: less than all only at a shard's end."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        tokens = self._shards[shard].tokens
        return min(tokens.shape[1], self._shards[shard].used - int(index - self._starts[shard]) * tokens.shape[1])


# ---------------------------------------------------------------- documents


@dataclass(frozen=True)
class Document:
    id: str
    title: str
    text: str


def documents(job: Job, manifest: Manifest, kind: str = "documents") -> Iterator[Document]:
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
    """Rows of a file that could not be used: reason -> rows; `first` says where the first one stands and what is wrong there."""

    reasons: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def add(self, where: str, reason: str) -> None:
        self.reasons[reason] += 1
        self.first = self.first or f"{where}: {reason.replace('_', ' ')}"


class Unusable(ValueError):
    """A row that cannot be used; the text is a short reason with underscores."""


def read_examples(uri: str, parse: Callable[[Any], T], allowed: str, limit: int | None = None) -> tuple[list[T], Bad]:
    """Examples from JSONL or a JSON array, gzip or not, or from every such file of a folder; and what was wrong with the others.

    `parse` turns one row into an example or raises Unusable. Raises InputError where nothing is left; it names the first bad line and
    what is `allowed`.
    """
    found: list[T] = []
    bad = Bad()
    for where, row in _json_rows(uri, bad):
        try:
            found.append(parse(row))
        except Unusable as error:
            bad.add(where, str(error))
        if limit is not None and len(found) >= limit:
            break
    if not found:
        raise InputError(f"{uri}: holds no usable row ({bad.first or 'it is empty'}); allowed: {allowed}")
    return found, bad


def _json_rows(uri: str, bad: Bad) -> Iterator[tuple[str, Any]]:
    store, name = split_uri(uri)
    paths = [name]
    if name in store.folders():
        paths = [one.path for one in store.files(name) if re.search(r"\.jsonl?(\.gz)?$", one.path)]
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
HH_RLHF = 'one object a line, {"chosen": dialogue, "rejected": dialogue}, a dialogue being "\\n\\nHuman: ...\\n\\nAssistant: ..."'


def parse_alpaca(row: Any) -> list[Turn]:
    """{instruction, input, output} (Taori et al. 2023) as one user and one assistant turn; the input follows the instruction."""
    instruction, extra, output = _texts(row, "instruction"), _texts(row, "input", ""), _texts(row, "output")
    return [Turn("user", f"{instruction}\n\n{extra}" if extra else instruction), Turn("assistant", output)]


def parse_hh(row: Any) -> Preference:
    """{chosen, rejected} (Bai et al. 2022): dialogues that share all but the last reply. The shared turns are the prompt."""
    chosen, rejected = (parse_dialogue(_texts(row, key)) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise Unusable("prompts_differ")
    if chosen[-1].text == rejected[-1].text:
        raise Unusable("replies_are_equal")
    return Preference(tuple(chosen[:-1]), chosen[-1].text, rejected[-1].text)


def parse_dialogue(text: str) -> list[Turn]:
    """Turns of a dialogue whose speakers are marked `Human:` and `Assistant:`; it must end with a reply that is not empty."""
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
