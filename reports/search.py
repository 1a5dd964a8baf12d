"""Finds documents of a run: by id, by address or host, by what dropped them, by language, or by words.

Every search is a page of at most PAGE documents and says where the next one begins. Searches by id and by address, and
lists by reason and language, read the indexes of the stages (`reports.indexes`): one row group of each table, or one
narrow column of it. Lists go through one segment of the crawl after the other, so that few tables are read. Words are
looked for in the snippets of what was dropped, in the order of the files, and a search stops after WORDS_S seconds; the
next page goes on from there.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from heapq import merge
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.errors import InputError
from contract.kinds import Kind
from contract.plan import WHOLE, Run
from contract.schema import PLACES
from contract.stages import upstream
from contract.store import Store
from contract.tables import open_table, reading
from pipelines.text.surt import SURT_CHARS, ranges
from pipelines.urls.canonical import canonical
from reports.indexes import Indexed, Place, Table, find, indexed, lacking, rows_at, tables, together

PAGE = 50
WORDS_S = 0.2
ADDRESS_S = 0.5
STRETCH = 400  # most rows by address that are read at a time
ID = re.compile(r"[0-9a-f]{32}")
SHOWN = ("id", "url", "title", "value", "snippet")
LONG = f"The index has the first {SURT_CHARS} characters of each address. All addresses that begin so are listed."
DROPPED_ONLY = (
    "Words are searched in dropped documents only. To find kept documents by words, give an address or a host as well."
)
KEPT = "kept"
"""As a reason: documents that no stage has dropped."""
SPAN = pa.schema([*PLACES, ("table", pa.int64())])
Key = tuple[str, str, int]
"""Of a row in an order by address: the address, the file and the row."""


@dataclass(frozen=True)
class Query:
    """What is looked for; empty values ask nothing. address: an address, the beginning of one, or a host.

    id: 32 hexadecimal digits. reason: a drop reason, or KEPT, which with a stage means kept by it. after: where the
    page before ended, as `Found.after`.
    """

    address: str = ""
    id: str = ""
    stage: str = ""
    reason: str = ""
    language: str = ""
    words: str = ""
    after: str = ""


@dataclass(frozen=True)
class Hit:
    """A document. stage: the one that dropped it; of a kept one, the one that wrote its text. reason: None if kept."""

    id: str
    url: str
    stage: str
    partition: str
    reason: str | None
    value: str
    language: str
    title: str
    snippet: str


@dataclass(frozen=True)
class Found:
    """A page of documents. after: for the next page, empty at the end. notes: what a reader must know of it.

    tasks: all that the run has committed, also what was not searched.
    """

    hits: tuple[Hit, ...]
    after: str = ""
    notes: tuple[str, ...] = ()
    tasks: tuple[Indexed, ...] = field(default=(), repr=False, compare=False)


def search(run: Run, query: Query, size: int = PAGE) -> Found:
    """A page of the documents that a query names. Raises InputError for an id or an `after` that is none."""
    if query.id and not ID.fullmatch(query.id):
        raise InputError(f"{query.id[:40]!r} is no id: an id has 32 hexadecimal digits")
    every, notes = indexed(run)
    notes += lacking(every)
    tasks = every
    if query.stage:
        way = {query.stage, *upstream(query.stage)} if query.reason == KEPT else {query.stage}
        tasks = [task for task in every if task.stage in way]
    if query.id:
        found = _by_id(run.store, tasks, query)
    elif query.address:
        found = _by_address(run.store, tasks, query, size)
    elif query.words and query.reason == KEPT:
        found = Found((), notes=(DROPPED_ONLY,))
    elif query.words:
        found = _by_words(run.store, tasks, query, size)
    elif query.reason == KEPT:
        found = _kept(run.store, tasks, query, size)
    else:
        found = _dropped(run.store, tasks, query, size)
    return Found(found.hits, found.after, (*notes, *found.notes), tuple(every))


def hits(store: Store, places: Sequence[Place]) -> list[Hit]:
    """What a list says of the documents at some places."""
    rows = rows_at(store, places, SHOWN)
    return [_hit(place, row) for place, row in zip(places, rows, strict=True)]


def _hit(place: Place, row: dict[str, Any]) -> Hit:
    return Hit(
        row["id"],
        row.get("url") or "",
        place.task.stage,
        place.task.partition,
        place.reason,
        row.get("value") or "",
        place.language or "",
        row.get("title") or "",
        row.get("snippet") or "",
    )


def settled(found: Sequence[Hit]) -> list[Hit]:
    """The hits without those of documents that were kept and later dropped: the drop is what became of them."""
    gone = {hit.id for hit in found if hit.reason is not None}
    return [hit for hit in found if hit.reason is not None or hit.id not in gone]


def _by_id(store: Store, tasks: Sequence[Indexed], query: Query) -> Found:
    places = find(store, tasks, [query.id]).get(query.id, [])
    found = settled(hits(store, places))
    return Found(tuple(hit for hit in found if _wanted(hit, query) and _says(hit, query.words)))


def _wanted(hit: Hit, query: Query) -> bool:
    reason = KEPT if hit.reason is None else hit.reason
    asked = (query.reason == reason) if query.reason else not (query.stage and reason == KEPT)
    return asked and query.language in ("", hit.language)


def _says(hit: Hit, words: str) -> bool:
    told = f"{hit.title} {hit.snippet}".casefold()
    return all(word in told for word in words.casefold().split())


def _by_address(store: Store, tasks: Sequence[Indexed], query: Query, size: int) -> Found:
    """Documents by address, read in growing stretches until a page is half full or ADDRESS_S seconds have passed."""
    forms = {query.address, canonical(query.address)} if "://" in query.address else {query.address}
    prefixes = {prefix for form in forms for prefix in ranges(form)}
    asked = tuple(
        sorted(one for one in prefixes if not any(one != other and one.startswith(other) for other in prefixes))
    )
    notes = (LONG,) if max(map(len, asked)) >= SURT_CHARS else ()
    begun, after, found, read = time.monotonic(), _address_key(query.after), list[tuple[Key, Hit]](), 0
    while True:
        stretch = min(max(size, read), STRETCH)
        some, after = _stretch(store, tasks, query, asked, after, stretch)
        found, read = found + some, read + stretch
        if len(found) > size:
            return Found(tuple(hit for _, hit in found[:size]), _as_after(found[size - 1][0]), notes)
        if after is None:
            return Found(tuple(hit for _, hit in found), notes=notes)
        full = 2 * len(found) >= size
        if full or time.monotonic() - begun > ADDRESS_S:
            told = () if full else (f"{read:,} rows were looked at for this page. Go on with the next page.",)
            return Found(tuple(hit for _, hit in found), _as_after(after), (*notes, *told))


def _stretch(
    store: Store, tasks: Sequence[Indexed], query: Query, prefixes: Sequence[str], after: Key | None, size: int
) -> tuple[list[tuple[Key, Hit]], Key | None]:
    """The documents that a query names among the next `size` rows by address, and the last row's key if there is more.

    The kept and the dropped row of a document stand together, so that the drop alone is told.
    """
    read = tables(store, tasks if query.reason in ("", KEPT) else _with_reason(tasks, query.reason), Kind.ADDRESSES)
    early = replace(query, reason="") if query.reason == KEPT else query  # what was dropped later is seen by its drop
    look = partial(_first_in_ranges, prefixes=prefixes, after=after, query=early, most=size + 1)
    rows = merge(*together(store, look, read), key=lambda pair: pair[0])
    taken = list(islice(rows, size + 1))
    more = taken[size - 1][0] if len(taken) > size else None
    mine = taken[:size]
    if query.reason == KEPT:  # a drop matters only beside a kept row
        beside = {key[0] for key, place in mine if place.reason is None}
        mine = [pair for pair in mine if pair[0][0] in beside]
    found = hits(store, [place for _, place in mine])
    gone = {hit.id for hit in found if hit.reason is not None}
    if more:  # the drop of a kept document with the last address may stand behind this stretch
        ends = [
            hit.id
            for (key, _), hit in zip(mine, found, strict=True)
            if key[0] == taken[size][0][0] and hit.reason is None
        ]
        later = find(store, tasks, ends)
        gone |= {key for key, places in later.items() if any(place.reason is not None for place in places)}
    named = [
        (key, hit)
        for (key, _), hit in zip(mine, found, strict=True)
        if (hit.reason is not None or hit.id not in gone) and _wanted(hit, query) and _says(hit, query.words)
    ]
    return named, more


def _first_in_ranges(
    table: Table, prefixes: Sequence[str], after: Key | None, query: Query, most: int
) -> list[tuple[Key, Place]]:
    return list(_in_ranges(table, prefixes, after, query, most))


def _in_ranges(
    table: Table, prefixes: Sequence[str], after: Key | None, query: Query, most: int
) -> Iterator[tuple[Key, Place]]:
    """The rows whose address begins with one of the prefixes, in order, from the first after a key; at most `most`."""
    bounds = [(max(prefix, after[0]) if after else prefix, prefix + "\U0010ffff") for prefix in prefixes]
    groups = sorted({group for low, high in bounds for group in table.groups(low, high)})
    taken = 0
    if not groups:
        return
    with table.opened() as opened:
        for group in groups:
            addresses = opened.read_row_group(group, columns=["address"], use_threads=False)["address"]
            asked = reduce(pc.or_, [pc.starts_with(addresses, prefix) for prefix in prefixes])
            if not pc.any(asked).as_py():
                continue
            held = _matching(opened.read_row_group(group, use_threads=False).filter(asked), query)
            if after:
                held = held.filter(_behind(held, after))
            for row in held.slice(0, most - taken).to_pylist():
                yield (row["address"], row["file"], row["row"]), table.place(row)
                taken += 1
            if taken == most:
                return


def _behind(held: pa.Table, after: Key) -> pa.ChunkedArray:
    """Which rows of an order by address stand behind a key."""
    address, file, row = after
    same = pc.and_(
        pc.equal(held["address"], address),
        pc.or_(pc.greater(held["file"], file), pc.and_(pc.equal(held["file"], file), pc.greater(held["row"], row))),
    )
    return pc.or_(pc.greater(held["address"], address), same)


def _matching(held: pa.Table, query: Query) -> pa.Table:
    """The rows of a table of an index that have the language and the reason of a query."""
    if query.language:
        held = held.filter(pc.equal(held["language"], query.language))
    if query.reason:
        asked = pc.is_null(held["reason"]) if query.reason == KEPT else pc.equal(held["reason"], query.reason)
        held = held.filter(asked)
    return held


def _as_after(key: Key) -> str:
    return f"{key[2]}:{key[1]}:{key[0]}"


def _address_key(after: str) -> Key | None:
    if not after:
        return None
    row, first, rest = after.partition(":")
    file, second, address = rest.partition(":")
    if not (first and second and row.isdecimal()):
        raise _no_after(after)
    return address, file, int(row)


def _no_after(after: str) -> InputError:
    return InputError(f"{after[:40]!r} is not where a page ends: search again from the beginning")


def _list_after(after: str) -> tuple[int, bytes | None]:
    """Where a list goes on: the number of its segment, and the last id there."""
    number, _, key = after.partition(":")
    if after and not (number.isdecimal() and ID.fullmatch(key)):
        raise _no_after(after)
    return (int(number), bytes.fromhex(key)) if after else (0, None)


def _by_partition(tasks: Sequence[Indexed]) -> list[list[Indexed]]:
    """Tasks of one segment together, in the order of the crawl, and those of the whole corpus behind them.

    A list goes through one segment after the other: its tables are few, and ids are hashes, so that a page is a random
    sample of its segment.
    """
    found: dict[str, list[Indexed]] = {}
    for task in tasks:
        found.setdefault(task.partition, []).append(task)
    whole = found.pop(WHOLE, [])
    return [*found.values(), *([whole] if whole else [])]


def _dropped(store: Store, tasks: Sequence[Indexed], query: Query, size: int) -> Found:
    """What was dropped, segment by segment, there by id."""
    first, after = _list_after(query.after)
    taken: list[tuple[int, bytes, Place]] = []
    for number, some in islice(enumerate(_by_partition(_with_reason(tasks, query.reason))), first, None):
        look = partial(_first_drops, after=after, query=query, most=size + 1 - len(taken))
        rows = merge(*together(store, look, tables(store, some, Kind.PLACES)), key=lambda pair: pair[0])
        taken += [(number, key, place) for key, place in islice(rows, size + 1 - len(taken))]
        if len(taken) > size:
            break
        after = None
    return Found(tuple(hits(store, [place for *_, place in taken[:size]])), _next_of(taken, size))


def _next_of(taken: Sequence[tuple[int, bytes, Place]], size: int) -> str:
    """Where the next page of a list begins; empty at its end. taken: one more than the page if there is more."""
    return f"{taken[size - 1][0]}:{taken[size - 1][1].hex()}" if len(taken) > size else ""


def _with_reason(tasks: Sequence[Indexed], reason: str) -> list[Indexed]:
    """The tasks that dropped something for a reason, or for any."""
    return [task for task in tasks if (task.rows.reasons.get(reason) if reason else task.rows.reasons)]


def _first_drops(table: Table, after: bytes | None, query: Query, most: int) -> list[tuple[bytes, Place]]:
    return list(_drops_after(table, after, query, most))


def _drops_after(table: Table, after: bytes | None, query: Query, most: int) -> Iterator[tuple[bytes, Place]]:
    """The dropped documents of a table after an id, at most `most`: their reasons first, which are a narrow column."""
    groups, taken = table.groups(after, None), 0
    with table.opened() as opened:
        for number, group in enumerate(groups):
            if number and not _matching(_drops(opened, group, ["reason", "language"]), query).num_rows:
                continue  # the first group is enough for a frequent reason; narrow columns tell where a rare one is
            held = _matching(_drops(opened, group), query)
            if after:
                held = held.filter(_above(held["id"], after))
            for row in held.slice(0, most - taken).to_pylist():
                yield row["id"], table.place(row)
                taken += 1
            if taken >= most:
                return


def _drops(opened: pq.ParquetFile, group: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a row group that were dropped."""
    held = opened.read_row_group(group, columns=columns, use_threads=False)
    return held.filter(pc.is_valid(held["reason"]))


def _above(ids: pa.ChunkedArray, after: bytes) -> pa.Array:
    """Which of these ascending ids are above another."""
    data = ids.combine_chunks()
    held = np.frombuffer(data.buffers()[1], "S16", len(data), data.offset * 16)
    mask = np.zeros(len(data), bool)
    mask[int(np.searchsorted(held, np.bytes_(after), side="right")) :] = True
    return pa.array(mask)


def _kept(store: Store, tasks: Sequence[Indexed], query: Query, size: int) -> Found:
    """What no stage has dropped, segment by segment, there by id."""
    first, after = _list_after(query.after)
    whole = [task for task in tasks if task.partition == WHOLE]
    taken: list[tuple[int, bytes, Place]] = []
    for number, some in islice(enumerate(_by_partition(tasks)), first, None):
        own = tables(store, some, Kind.PLACES)
        later = [] if some == whole else tables(store, whole, Kind.PLACES)
        found = _kept_of(store, [*own, *later], len(own), query, after, size + 1 - len(taken))
        taken += [(number, key, place) for key, place in found]
        if len(taken) > size:
            break
        after = None
    return Found(tuple(hits(store, [place for *_, place in taken[:size]])), _next_of(taken, size))


def _kept_of(
    store: Store, read: Sequence[Table], own: int, query: Query, after: bytes | None, most: int
) -> list[tuple[bytes, Place]]:
    """The first documents that the first `own` tables keep and no table drops, by id: at most `most`.

    Reads spans of ids in which every table has at most a row group, until there are enough.
    """
    found: list[tuple[bytes, Place]] = []
    while len(found) < most:
        ahead = [[last for _, last in table.ranges() if after is None or last > after] for table in read]
        ends = [lasts[0] for lasts in ahead if len(lasts) > 1]
        span = partial(_span, after=after, end=min(ends, default=None))
        held = pa.concat_tables([SPAN.empty_table(), *together(store, span, list(enumerate(read)))])
        gone = held.filter(pc.is_valid(held["reason"]))["id"]
        held = held.filter(pc.less(held["table"], own))
        left = _matching(held.filter(pc.invert(pc.is_in(held["id"], value_set=gone))), query).sort_by("id")
        rows = left.slice(0, most - len(found)).to_pylist()
        found += [(row["id"], read[row["table"]].place(row)) for row in rows]
        if not ends:
            break
        after = min(ends)
    return found


def _span(numbered: tuple[int, Table], after: bytes | None, end: bytes | None) -> pa.Table:
    """The rows of a table with ids above `after` and not above `end`, and the table's number."""
    number, table = numbered
    groups = table.groups(after, end)
    if not groups:
        return SPAN.empty_table()
    held = table.read(groups)
    if after:
        held = held.filter(_above(held["id"], after))
    if end:
        held = held.filter(pc.invert(_above(held["id"], end)))
    return held.append_column("table", pa.array(np.full(len(held), number))).cast(SPAN)


def _by_words(store: Store, tasks: Sequence[Indexed], query: Query, size: int) -> Found:
    """Dropped documents whose snippet has all the words, in the order of the files, for WORDS_S seconds."""
    begun, (number, group, row) = time.monotonic(), _words_after(query.after)
    files = [(task, file) for task in tasks for file in task.files.values() if file.kind == Kind.DROPS]
    if query.reason:
        files = [(task, file) for task, file in files if task.rows.reasons.get(query.reason)]
    read, found = 0, list[Hit]()
    for at, (task, file) in islice(enumerate(files), number, None):
        with open_table(store, file) as table:
            for one in range(group, table.num_row_groups):
                if read and time.monotonic() - begun > WORDS_S:
                    every = sum(one.rows for _, one in files)
                    return Found(tuple(found), f"{at}:{one}:0", (_partly(read, every),))
                with reading(store, file):
                    held = table.read_row_group(one, use_threads=False)
                read += held.num_rows
                for spoken in _spoken(held, query, row):
                    if len(found) == size:
                        return Found(tuple(found), f"{at}:{one}:{spoken['row']}")
                    place = Place(task, file, spoken["row"], spoken["reason"], spoken["language"])
                    found.append(_hit(place, spoken))
                row = 0
        group = 0
    return Found(tuple(found))


def _words_after(after: str) -> tuple[int, int, int]:
    """Where a search for words goes on: the number of the file, of its row group, and of the row in it."""
    parts = after.split(":") if after else ["0"] * 3
    if len(parts) != 3 or not all(one.isdecimal() for one in parts):
        raise _no_after(after)
    return int(parts[0]), int(parts[1]), int(parts[2])


def _partly(read: int, total: int) -> str:
    return (
        f"{read:,} of {total:,} dropped documents were searched for this page, because words have no index. "
        "Go on with the next page, or choose a stage and a reason."
    )


def _spoken(table: pa.Table, query: Query, first: int) -> list[dict[str, Any]]:
    """The dropped documents from a row on with the words, the reason and the language of a query; `row` is theirs."""
    table = table.append_column("row", pa.array(np.arange(len(table)))).slice(first)
    if "language" not in table.column_names:  # of an older version
        table = table.append_column("language", pa.nulls(len(table), pa.string()))
    table = _matching(table, query)
    for word in query.words.split():
        table = table.filter(pc.match_substring(table["snippet"], word, ignore_case=True))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
