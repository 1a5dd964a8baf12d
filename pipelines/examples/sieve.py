"""Sifts examples: drops unusable, repeated and contaminated ones, and writes a training and a held-out table.

The texts are written to the attempt's scratch file while they are read, and copied from there once it is known which
of them stay. In memory, an example takes about 1 KB for each of its parts, whatever its length.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from contract import results
from contract.examples import Unusable
from contract.kinds import Kind
from contract.metrics import Progress
from contract.schema import DROPS, SNIPPET_CHARS, Drop
from contract.settings.examples import Examples, Preferences
from contract.tables import read_rows
from pipelines.examples.duplicates import HASHES, Parts, Signatures, clusters, sign, similarity
from pipelines.examples.reading import Row, limited
from pipelines.spark.documents import Counts, Output
from pipelines.spark.job import Job
from pipelines.spark.tables import TableWriter

SIGNED = 1024  # examples that are signed at once

T = TypeVar("T")
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shape(Generic[T]):
    """How a kind of example is compared and stored.

    row: the table's columns but id and source. parts: the prompt and the reply, or both replies. prompt: the text that
    must not stand on both sides of the split. task: what kind of question it is.
    """

    train: Kind
    heldout: Kind
    schema: pa.Schema
    row: Callable[[T], dict[str, Any]]
    parts: Callable[[T], Parts]
    prompt: Callable[[T], str]
    task: Callable[[T], str]


def prompt_key(prompt: str, seed: int = 0) -> int:
    """64 bits that stand for a prompt; each seed orders prompts in another way."""
    return xxhash.xxh3_64_intdigest(prompt.encode(), seed)


def example_id(parts: Parts) -> str:
    """32 hexadecimal digits of the texts, so that the same example has the same id in every file and run."""
    return xxhash.xxh3_128_hexdigest("\0".join(parts).encode())


def sides(tasks: Mapping[str, Sequence[int]]) -> dict[str, dict[str, int]]:
    """The largest tasks of a sieve, for the manifest."""
    largest = sorted(tasks, key=lambda task: (-sum(tasks[task]), task))[: results.MOST_TASKS]
    return {task: {"training": tasks[task][0], "heldout": tasks[task][1]} for task in largest}


def shown(shapes: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """The shapes of the rows that were read, for the manifest."""
    return {name: {"rows": count} for name, count in shapes.items()}


def named(settings: Examples) -> str:
    """What the examples are made of: `synthetic`, or the files and folders."""
    rounds = [one.votes for one in settings.rounds.values()] if isinstance(settings, Preferences) else []
    own = [] if settings.data == "synthetic" else [settings.data]
    return ", ".join([*own, *(source.data for source in settings.sources.values()), *rounds]) or "synthetic"


def key_of(stage: str, settings: Examples) -> str:
    """The recipe's key that names the files."""
    return f"{stage}.sources" if settings.sources else f"{stage}.data"


class Sieve(Generic[T]):
    """The examples of one task. Pass each that was read to `take`, `drop` or `refuse`; then `unique` and `close`."""

    def __init__(self, job: Job, shape: Shape[T], min_jaccard: float | None, leak: Callable[[str], str | None]) -> None:
        """`leak` says what of a benchmark a text repeats. Without `min_jaccard`, near duplicates stay."""
        self._job, self._shape, self._min_jaccard, self._leak = job, shape, min_jaccard, leak
        self._taken = TableWriter(job.store, self._path("scratch/taken"), shape.train, shape.schema)
        self._drops = TableWriter(job.store, self._path("drops"), Kind.DROPS, DROPS)
        self._progress = Progress(job.task.stage, job.task.partition, "examples")
        self._sizes: dict[str, int] = {}  # id -> bytes of each example that was taken, in order
        self._unsigned: list[Parts] = []
        self._signed: list[Signatures] = []
        self._signatures: Signatures = np.zeros((0, 1, HASHES), np.uint32)
        self._first = np.zeros(0, np.int64)
        self._tasks: list[str] = []  # of each example that was taken
        self.counts = Counts()
        self.tasks: dict[str, list[int]] = {}
        """Task -> its examples for training and held out, once the sieve is closed."""

    def _path(self, name: str) -> str:
        return f"{self._job.prefix}/{name}.parquet"

    def refuse(self, place: str, why: Unusable, snippet: str) -> None:
        """Drop a row that is no example."""
        self._count(len(snippet.encode(errors="replace")))
        self._drop(xxhash.xxh3_128_hexdigest(place.encode()), place, why.reason, why.value, snippet)

    def drop(self, source: str, example: T, reason: Drop) -> None:
        """Drop an example for a reason of the stage's own."""
        parts = self._shape.parts(example)
        self._count(_size(parts))
        self._drop(example_id(parts), source, reason, "", parts[0])

    def take(self, source: str, example: T) -> bool:
        """Take an example, unless it is repeated or contaminated: then drop it and return False."""
        parts = self._shape.parts(example)
        key, size = example_id(parts), _size(parts)
        self._count(size)
        if key in self._sizes:
            self._drop(key, source, Drop.DUPLICATE, "", parts[0], key)
            return False
        leaked = self._leak("\n\n".join(parts))
        if leaked is not None:
            self._drop(key, source, Drop.CONTAMINATED, leaked, parts[0])
            return False
        self._sizes[key] = size
        self._tasks.append(self._shape.task(example))
        self._taken.write({"id": key, "source": source, "task": self._tasks[-1]} | self._shape.row(example), size)
        if self._min_jaccard is not None:
            self._unsigned.append(parts)
            if len(self._unsigned) == SIGNED:
                self._sign()
        return True

    def take_read(self, rows: Iterable[Row[T]], limit: int | None) -> Iterator[T]:
        """Take or drop the rows of files, up to `limit` usable ones; yields the examples that were taken."""
        for row in limited(rows, limit):
            if isinstance(row.found, Unusable):
                self.refuse(row.place, row.found, row.snippet)
            elif self.take(row.place, row.found):
                yield row.found

    def take_made(self, made: Iterable[tuple[str, T]], limit: int, learned: set[int]) -> Iterator[T]:
        """Take or drop examples made of documents, up to `limit`; yields those that were taken.

        Drops those whose prompt's key is `learned`; they do not count towards the limit.
        """
        used = 0
        for source, example in made:
            if used == limit:
                return
            if prompt_key(self._shape.prompt(example)) in learned:
                self.drop(source, example, Drop.PROMPT_LEARNED)
                continue
            used += 1
            if self.take(source, example):
                yield example

    def take_both(
        self, made: Callable[[Kind], Iterable[tuple[str, T]]], train: int, heldout: int, learned: set[int]
    ) -> Flags:
        """Take up to `train` examples made of training documents, and up to `heldout` made of held-out documents.

        made: the examples made of the mixture's documents of a kind. No held-out prompt has a `learned` key or is one
        of the training prompts. Returns which of the examples that were taken are held out. Shape (examples,).
        """
        prompts = [prompt_key(self._shape.prompt(one)) for one in self.take_made(made(Kind.DOCUMENTS), train, set())]
        held = sum(1 for _ in self.take_made(made(Kind.HELDOUT), heldout, learned | set(prompts)))
        self.unique()
        return np.repeat([False, True], [len(prompts), held])

    def unique(self) -> Flags:
        """Of each example that was taken, whether it stays: it is no near duplicate of an earlier one. (examples,)."""
        self._sign()
        count = len(self._sizes)
        self._first = np.arange(count)
        if self._min_jaccard is not None and count:
            self._signatures, self._signed = np.concatenate(self._signed), []
            self._first = clusters(self._signatures, self._min_jaccard)
        stays: Flags = self._first == np.arange(count)
        return stays

    def close(self, heldout: Flags, dropped: Mapping[Drop, Flags] | None = None) -> Output:
        """Write the tables. `heldout` says of each example that was taken whether it belongs into the held-out one.

        dropped: reason -> which of those that were taken go for it after all.
        """
        kinds = (self._shape.train, self._shape.heldout)
        writers = [TableWriter(self._job.store, self._path(kind), kind, self._shape.schema) for kind in kinds]
        ids, sizes = list(self._sizes), list(self._sizes.values())
        for file in self._taken.close():
            for at, row in enumerate(read_rows(self._job.store, file.path)):
                first, words = int(self._first[at]), (row.get("turns") or row["prompt"])[0]["text"]
                if first != at:
                    alike = similarity(self._signatures[[at]], self._signatures[[first]])[0]
                    self._drop(ids[at], row["source"], Drop.NEAR_DUPLICATE, f"{alike:.2f}", words, ids[first])
                    continue
                why = next((reason for reason, flags in (dropped or {}).items() if flags[at]), None)
                if why is not None:
                    self._drop(ids[at], row["source"], why, row["task"], words)
                    continue
                side = int(heldout[at])
                writers[side].write(row, sizes[at])
                self.tasks.setdefault(row["task"], [0, 0])[side] += 1
                self.counts += Counts(kept=1, bytes_kept=sizes[at])
        self._job.store.delete(f"{self._job.prefix}/scratch")
        self._progress.finish()
        return Output([file for writer in (*writers, self._drops) for file in writer.close()], self.counts)

    def task_codes(self) -> npt.NDArray[np.int64]:
        """The number of the task of each example that was taken. Shape (examples,)."""
        numbers = {task: number for number, task in enumerate(dict.fromkeys(self._tasks))}
        return np.array([numbers[task] for task in self._tasks], np.int64)

    def of_tasks(self, names: Container[str]) -> Flags:
        """Which of the examples that were taken are of one of these tasks. Shape (examples,)."""
        return np.array([task in names for task in self._tasks], bool)

    def rows(self, output: Output) -> tuple[int, int]:
        """The number of examples in the training and in the held-out table."""
        count = Counter({file.kind: file.rows for file in output.files})
        return count[self._shape.train], count[self._shape.heldout]

    def drop_reasons(self) -> str:
        """How many examples were dropped, and why."""
        return ", ".join(f"{reason} {count:,}" for reason, count in self.counts.reasons.most_common()) or "none dropped"

    def _count(self, size: int) -> None:
        self.counts += Counts(read=1, bytes_read=size)
        self._progress.advance()

    def _drop(self, key: str, source: str, reason: Drop, value: str, words: str, kept: str | None = None) -> None:
        self._drops.write(
            {
                "id": key,
                "url": source,
                "stage": self._job.task.stage,
                "reason": reason.value,
                "value": value,
                "duplicate_of": kept,
                "snippet": words[:SNIPPET_CHARS],
            }
        )
        self.counts.reasons[reason.value] += 1

    def _sign(self) -> None:
        if self._unsigned:
            self._signed.append(sign(self._unsigned))
            self._unsigned = []


def _size(parts: Parts) -> int:
    return sum(len(part.encode()) for part in parts)
