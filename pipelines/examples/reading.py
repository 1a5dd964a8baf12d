"""Reads files of chats, comparisons and prompts, whatever shape their rows have, and says which shapes it found.

JSONL, JSON arrays and Parquet, packed as gz or zst or not, and folders of such files. A row that cannot be used comes
out as an `Unusable` with its place and reason; a damaged file is an error, because what follows would be missing.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

from contract.conversation import Conversation, Example, Preference
from contract.errors import InputError
from contract.examples import Unusable
from contract.schema import SNIPPET_CHARS, Drop
from contract.settings.examples import ChatSource, Examples, Instructions, Preferences, Prompts, Source
from contract.store import split_uri
from pipelines.examples.comparisons import Ranking, comparisons, gathered, pairs_of
from pipelines.examples.fields import number_at, task_of
from pipelines.examples.shapes import CHATS, PROMPTS, RowShape, answers_of, shape_of
from pipelines.examples.templates import POOL, with_shots, worded
from pipelines.sources.files import list_files, rows_of

NAMED = re.compile(r"\.(jsonl|ndjson|json|parquet)(\.(gz|zst))?\Z", re.IGNORECASE)

T = TypeVar("T")
Parse = Callable[[Any], tuple[str, Sequence[T]]]
"""A row's value -> the name of its shape, and what it holds. Raises Unusable."""


@dataclass(frozen=True)
class Row(Generic[T]):
    """One example of a file: its place, as `file.jsonl line 3`, what was found, and the row's first characters."""

    place: str
    found: T | Unusable
    snippet: str


@dataclass(frozen=True)
class Found(Generic[T]):
    """One example before it knows its task. value: the row it is of; folder: the subfolder of its file."""

    place: str
    found: T | Unusable
    snippet: str
    value: Any
    folder: str


def find(key: str, uri: str, parse: Parse[T], shapes: Counter[str]) -> Iterator[Found[T]]:
    """Yield every example of a file, or of the files of a folder in the order of their names; counts their shapes.

    `key` is the recipe's key that names the file. Raises InputError, which begins with it, if a file is missing or
    damaged, and StoreError if the store fails.
    """
    store, files, _ = list_files(key, uri, named=NAMED)
    named = split_uri(uri)[1]
    for file in files:
        folder = _subfolder(named, file.path)
        for row in rows_of(store, file.path, all_columns=True):
            if row.ends and isinstance(row.value, Unusable):
                full = store.full(file.path)
                raise InputError(f"{key}: {full}: damaged at {row.place} ({row.value.value}); fetch it again")
            place = f"{file.path} {row.place}"
            try:
                if isinstance(row.value, Unusable):
                    raise row.value
                name, parsed = parse(row.value)
            except Unusable as why:
                yield Found(place, why, _snippet(row.head, row.value), row.value, folder)
                continue
            except RecursionError:
                yield Found(place, Unusable(Drop.NOT_JSON, "nested too deep"), "", None, folder)
                continue
            shapes[name] += 1
            for one in parsed:
                yield Found(place, one, "", row.value, folder)


def _subfolder(folder: str, path: str) -> str:
    """The first folder below the one that the recipe names, in which a file stands; empty if it stands in none."""
    below = path.removeprefix(f"{folder.rstrip('/')}/") if path != folder else ""
    return below.split("/")[0] if "/" in below else ""


def _snippet(head: bytes, value: Any) -> str:
    shown = head.decode(errors="replace") if head else "" if isinstance(value, Unusable) else repr(value)
    return shown[:SNIPPET_CHARS]


def of_shape(shapes: Sequence[RowShape[T]], value: Any) -> tuple[str, Sequence[T]]:
    """A row read by the first shape that it fits."""
    row = {"messages": value} if isinstance(value, list) else value
    shape = shape_of(row, shapes)
    return shape.name, shape.parse(row)


def sources_of(settings: Examples) -> list[tuple[str, str, Source]]:
    """(Key below the section, task of rows that name none, source) of each file that a recipe names."""
    if settings.sources:
        return [(f"sources.{name}.data", source.task or name, source) for name, source in settings.sources.items()]
    return [("data", "", ChatSource(data=settings.data))]


def read_chats(settings: Instructions, shapes: Counter[str]) -> Iterator[Row[Example]]:
    """Every chat that the recipe names, with its task, source by source; counts the shapes of their rows."""
    for key, task, source in sources_of(settings):
        assert isinstance(source, ChatSource)
        found = find(f"instructions.{key}", source.data, _chat_parser(source, settings.seed), shapes)
        known = (_example(one, task, source, settings.select.quality_key) for one in found)
        yield from limited(_shown(known, source.shots, settings.seed), source.max_examples)


def _chat_parser(source: ChatSource, seed: int) -> Parse[Conversation]:
    if not source.templates:
        return partial(of_shape, CHATS)
    return lambda value: ("templates", [worded(value, source.templates, seed)])


def _example(one: Found[Conversation], task: str, source: Source, quality_key: str | None) -> Row[Example]:
    if isinstance(one.found, Unusable):
        return Row(one.place, one.found, one.snippet)
    quality = number_at(one.value, quality_key) if quality_key and isinstance(one.value, dict) else None
    return Row(one.place, Example(one.found, _task(one, task, source), quality), one.snippet)


def _shown(rows: Iterable[Row[Example]], shots: Sequence[int], seed: int) -> Iterator[Row[Example]]:
    """The rows with worked examples of their task before them; the first ones of each task are these, and dropped.

    So no task of which nothing is learned is shown to another.
    """
    pools: dict[str, list[Conversation]] = {}
    wanted = POOL * max(shots)
    for row in rows:
        if isinstance(row.found, Unusable) or not wanted:
            yield row
            continue
        pool = pools.setdefault(row.found.task, [])
        if len(pool) < wanted:
            pool.append(row.found.turns)
            yield Row(row.place, Unusable(Drop.WORKED_EXAMPLE), row.found.turns[0].text[:SNIPPET_CHARS])
        else:
            turns, before = with_shots(row.found.turns, pool, shots, seed)
            yield replace(row, found=replace(row.found, turns=turns, shots=before))


def read_pairs(settings: Preferences, shapes: Counter[str]) -> Iterator[Row[Preference]]:
    """Every pair of the comparisons that the recipe names, with its task; counts the shapes of their rows."""
    parse: Parse[Ranking] = partial(of_shape, comparisons(settings.criteria))
    for key, task, source in sources_of(settings):
        found = find(f"preferences.{key}", source.data, parse, shapes)
        yield from limited(_pairs(found, task, source, settings.max_pairs), source.max_examples)


def _pairs(rows: Iterable[Found[Ranking]], task: str, source: Source, most: int) -> Iterator[Row[Preference]]:
    told = ((one.place, _with_task(one, task, source), one.snippet) for one in rows)
    for place, found, snippet in gathered(told):
        if isinstance(found, Unusable):
            yield Row(place, found, snippet)
            continue
        try:
            yield from (Row(place, pair, "") for pair in pairs_of(found, most))
        except Unusable as why:
            yield Row(place, why, found.prompt[-1].text[:SNIPPET_CHARS])


def _with_task(one: Found[Ranking], task: str, source: Source) -> Ranking | Unusable:
    if isinstance(one.found, Unusable):
        return one.found
    return replace(one.found, task=_task(one, task, source))


def _task(one: Found[Any], task: str, source: Source) -> str:
    """The source's task, the row's own, the source's name, or the subfolder."""
    return source.task or task_of(one.value, task or one.folder)


def read_prompts(settings: Prompts, shapes: Counter[str]) -> Iterator[Row[Example]]:
    """Every prompt of the recipe's file, with its task; its last turn is a user's."""
    if settings.data is None:
        return
    source = ChatSource(data=settings.data)
    found = find("prompts.data", settings.data, _prompt_of, shapes)
    yield from limited((_answered(_example(one, "", source, None), one.value) for one in found), settings.max_examples)


def _answered(row: Row[Example], value: Any) -> Row[Example]:
    if isinstance(row.found, Unusable):
        return row
    try:
        return replace(row, found=replace(row.found, answers=answers_of(value)))
    except Unusable as reason:
        return replace(row, found=reason)


def _prompt_of(value: Any) -> tuple[str, Sequence[Conversation]]:
    return of_shape(PROMPTS, {"prompt": value} if isinstance(value, str) else value)


def limited(rows: Iterable[Row[T]], most: int | None) -> Iterator[Row[T]]:
    """The rows up to the one that is the last of `most` usable ones."""
    usable = 0
    for row in rows:
        yield row
        usable += not isinstance(row.found, Unusable)
        if usable == most:
            return


def inspect(key: str, data: str, rows: Iterable[Row[Any]], shapes: Counter[str], allowed: str) -> str:
    """Read the rows of `data`, and say in one line how many are usable and of which shapes they are.

    Raises InputError if no row is usable; the message names the first bad row and what is allowed.
    """
    usable, bad, first, why = 0, 0, "", "it is empty"
    for row in rows:
        if not isinstance(row.found, Unusable):
            usable += 1
        elif row.found.reason is not Drop.WORKED_EXAMPLE:
            bad += 1
            first = first or f"{row.place}: {row.found}"
        else:
            why = "all of them are worked examples, see `shots`"
    if not usable:
        raise InputError(f"{key}: {data} holds no usable row ({first or why}); allowed: {allowed}")
    return f"{key}: {usable:,} usable rows{listed(shapes)}" + (f", {bad:,} unusable, the first: {first}" if bad else "")


def listed(shapes: Mapping[str, int]) -> str:
    """The shapes that were found, for a line of a log: ` (alpaca 999, sharegpt 500)`."""
    shown = ", ".join(f"{name} {count:,}" for name, count in sorted(shapes.items(), key=lambda one: (-one[1], one[0])))
    return f" ({shown})" if shown else ""
