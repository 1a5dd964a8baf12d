"""The chats and preference pairs that `instructions` and `preferences` committed, as training reads them.

A machine's first process that asks writes a table to the scratch folder as an Arrow file, and all map it into memory:
however many processes there are, the texts are held once, and the kernel may drop them. An example becomes Python
objects, and then tokens, only when it is asked for.
"""

import os
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import pyarrow as pa
import xxhash

from contract.conversation import Conversation, Preference, Turn
from contract.kinds import Kind
from contract.private import private_lock
from contract.schema import CHATS, PAIRS, PROMPTS
from contract.tables import read_batches
from training.engine.job import Job

T = TypeVar("T")
BATCH_ROWS = 1024


class Examples(Sequence[T], Generic[T]):
    """The examples of one kind, in the order in which they were committed."""

    def __init__(
        self, table: pa.Table, make: Callable[[dict[str, Any]], T], numbers: Sequence[int] | None = None
    ) -> None:
        """`make` turns a row of the table into an example. `numbers` are the rows that are examples; None: all."""
        self._table, self._make = table, make
        self.numbers: Sequence[int] = range(table.num_rows) if numbers is None else numbers
        """The row of each example among all that were committed."""

    def without(self, dropped: Container[int]) -> "Examples[T]":
        """The examples whose number is not among `dropped`."""
        return Examples(self._table, self._make, [number for number in self.numbers if number not in dropped])

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("examples must be read in order")
            return [example for piece in self._runs(start, max(stop, start)) for example in map(self._make, piece)]
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return self[index : index + 1][0]

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), BATCH_ROWS):
            yield from self[start : start + BATCH_ROWS]

    def _runs(self, start: int, stop: int) -> Iterator[list[dict[str, Any]]]:
        """The rows of the examples `start` to `stop` - 1, in pieces that lie together in the table."""
        while start < stop:
            first, end = self.numbers[start], start + 1
            while end < stop and self.numbers[end] == first + end - start:
                end += 1
            yield self._table.slice(first, end - start).to_pylist()
            start = end


def read_chats(job: Job, kind: Kind) -> Examples[Conversation]:
    """The chats of kind `chats` or `heldout_chats`. Raises DamagedError if a table is not as it was committed."""
    return Examples(_table(job, "instructions", kind, CHATS), lambda row: _turns(row["turns"]))


def read_pairs(job: Job, kind: Kind, but: Collection[str] = ()) -> Examples[Preference]:
    """The preferences of kind `pairs` or `heldout_pairs`, but for those of some tasks.

    Raises DamagedError if a table is not as it was committed.
    """
    table = _table(job, "preferences", kind, PAIRS)
    kept = [number for number, task in enumerate(table["task"].to_pylist()) if task not in but] if but else None
    return Examples(
        table,
        lambda row: Preference(
            _turns(row["prompt"]),
            row["chosen"],
            row["rejected"],
            row["task"],
            row["chosen_score"],
            row["rejected_score"],
            1.0 if row["weight"] is None else row["weight"],
        ),
        kept,
    )


def own_pairs(job: Job, kind: Kind) -> Examples[Preference]:
    """The same without public comparisons, from which only reward models learn."""
    return read_pairs(job, kind, job.setting("reward.pretrain_tasks"))


def read_tasks(job: Job, kind: Kind) -> list[str]:
    """The task of each chat of kind `chats` or `heldout_chats`, in the order of `read_chats`."""
    found: list[str] = _table(job, "instructions", kind, CHATS)["task"].to_pylist()
    return found


def read_prompts(job: Job) -> Examples[tuple[Conversation, tuple[str, ...]]]:
    """The prompts that `prompts` committed, with their known answers: none, if the recipe names no file of them."""
    return Examples(
        _table(job, "prompts", Kind.PROMPTS, PROMPTS), lambda row: (_turns(row["prompt"]), tuple(row["answers"]))
    )


def distinct_prompts(pairs: Examples[Preference], most: int | None = None) -> list[int]:
    """The number of the first pair with each prompt, for the first `most` prompts."""
    seen: set[int] = set()
    found: list[int] = []
    for number, pair in enumerate(pairs):
        if len(found) == most:
            break
        key = prompt_key(pair.prompt)
        if key not in seen:
            seen.add(key)
            found.append(number)
    return found


def prompt_key(prompt: Conversation) -> int:
    """64 bits that stand for a whole prompt."""
    return xxhash.xxh3_64_intdigest("\0".join(f"{turn.role}\0{turn.text}" for turn in prompt).encode())


def _table(job: Job, stage: str, kind: Kind, schema: pa.Schema) -> pa.Table:
    names = [name for name in schema.names if name not in ("id", "source")]
    own = pa.schema([schema.field(name) for name in names])
    target = job.scratch.folder / f"{kind}.arrow"
    with private_lock(target.with_suffix(".lock")):
        if not target.exists():
            part = target.with_suffix(".part")
            with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, own) as written:
                for file in job.manifest(stage).of(kind):
                    for batch in read_batches(job.store, file, BATCH_ROWS, names):
                        written.write_batch(batch.cast(own))
            os.replace(part, target)
    return pa.ipc.open_file(pa.memory_map(str(target))).read_all()


def _turns(rows: Sequence[dict[str, Any]]) -> Conversation:
    return tuple(Turn(**row) for row in rows)
