"""Reads the files that benchmarks are published as: JSONL, JSON, CSV, TSV and Parquet, plain or packed.

Nothing is downloaded.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from contract.errors import InputError
from contract.evalset import Malformed, is_named_like_one, read_contents
from evals.tasks.task import Item, Task

LISTS = ("examples", "data", "Data", "instances")
"""Keys of a JSON document whose list holds the rows, as in BBH, SQuAD and TriviaQA."""
SPLIT = re.compile(r"_(?:dev|val|validation|test|train)\Z")
Row = Mapping[str, Any]


def read_items(task: Task, path: Path, split: str | None = None, most: int | None = None) -> list[Item]:
    """The items of a file, a folder or an archive, in the order of the files' names and of their rows.

    split: of an archive or folder only files with this word in their path or name, for example `val`. most: at most so
    many, as `evenly` takes them of the subjects. Raises InputError if there are none, if a row has not the shape that
    the task's files have, or if two items have one id.
    """
    items: list[Item] = []
    subjects: list[str] = []
    seen: set[str] = set()
    for name, content in _files(path, split):
        stem = SPLIT.sub("", PurePosixPath(name).name.partition(".")[0])
        number = 0
        for where, row in _rows(task, name, content):
            for one in _nested(task, row, where):
                item = _item(task, one, f"{stem}/{number}", where)
                number += 1
                if item.id in seen:
                    raise InputError(f"{where}: the id {item.id!r} occurs twice; items need ids of their own")
                seen.add(item.id)
                items.append(item)
                subjects.append(item.subject or name)
    if not items:
        of_split = f" of split {split!r}" if split else ""
        raise InputError(
            f"{path}: holds no items{of_split}; name a JSONL, JSON, CSV, TSV or Parquet file of {task.name}"
        )
    return items if most is None else [items[at] for at in evenly(subjects, most)]


def evenly(subjects: Sequence[str], most: int) -> list[int]:
    """The places of at most so many items, in order, as many of each subject as can be: the first ones of each.

    Items that are left over after the last full round are of subjects that are spread over all. Files are in the order
    of their names, so the first items alone would be of a few subjects that begin with A.
    """
    places: dict[str, list[int]] = {}
    for at, subject in enumerate(subjects):
        places.setdefault(subject, []).append(at)
    chosen: list[int] = []
    for number in range(max(map(len, places.values()), default=0)):
        round_of = [one[number] for one in places.values() if number < len(one)]
        left = min(most - len(chosen), len(round_of))
        chosen += [round_of[at * len(round_of) // left] for at in range(left)]
    return sorted(chosen)


def read_names(path: Path) -> dict[str, str]:
    """Subject -> its name in prompts, of a set's `mapping.json`.

    It is {"arts": {"name": "艺术学"}} or {"arts": ["Arts", "艺术学"]}. Raises InputError for another shape.
    """
    try:
        value = json.loads(path.read_text())
        return {key: str(one["name"] if isinstance(one, dict) else one[1]) for key, one in value.items()}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: is no mapping of subjects to names ({error}); it should hold {{"arts": {{"name": "艺术学"}}}}'
        ) from None


def with_names(items: Sequence[Item], names: Mapping[str, str]) -> list[Item]:
    """The items, with the name of each one's subject as its field `name`."""
    return [
        replace(one, fields={**one.fields, "name": names[one.subject]}) if one.subject in names else one
        for one in items
    ]


def _nested(task: Task, row: Row, where: str) -> Sequence[Row]:
    try:
        return task.rows(row)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise _misshapen(task, where, error) from None


def _item(task: Task, row: Row, place: str, where: str) -> Item:
    try:
        return replace(task.read(row, place), where=where)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise _misshapen(task, where, error) from None


def _misshapen(task: Task, where: str, error: Exception) -> InputError:
    missing = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    return InputError(f"{where}: is no item of {task.name}: {missing}; give the file as it is published")


def _files(path: Path, split: str | None) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file of the split, unpacked. Raises InputError."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    folder = path.is_dir()
    files = sorted(one for one in path.rglob("*") if one.is_file()) if folder else [path]
    for file in files:
        name = file.relative_to(path).as_posix() if folder else file.name
        if folder and not is_named_like_one(name):
            continue
        try:
            for member, content in read_contents(name, file.read_bytes()):
                if split is None or _of_split(member.removeprefix(f"{name}/"), split):
                    yield member, content
        except Malformed as error:
            raise InputError(f"{path}: {error}") from None
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error}") from None


def _of_split(name: str, split: str) -> bool:
    return split in re.split(r"[/_.\-]", name)


def _rows(task: Task, name: str, content: bytes) -> Iterator[tuple[str, Row]]:
    """(file and line or number, row) of one file. Raises InputError."""
    suffix = PurePosixPath(name.lower()).suffix
    if suffix == ".parquet":
        yield from _of_parquet(name, content)
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: is not UTF-8: {error}") from None
    if suffix in (".csv", ".tsv"):
        yield from _of_table(task, name, text, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".txt":
        yield name, {"text": text}
    elif suffix == ".json":
        yield from _of_document(name, text)
    else:
        yield from _of_lines(name, text)


def _of_parquet(name: str, content: bytes) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for number, row in enumerate(pq.read_table(pa.BufferReader(content)).to_pylist()):
            yield f"{name}#{number}", row
    except pa.ArrowException as error:
        raise InputError(f"{name}: is no Parquet file: {error}") from None


def _of_lines(name: str, text: str) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{name}:{number}: is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise InputError(f"{name}:{number}: is no JSON object")
            yield f"{name}:{number}", row


def _of_document(name: str, text: str) -> Iterator[tuple[str, Row]]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSONL named .json, which is common
            yield from _of_lines(name, text)
            return
        raise InputError(f"{name}:{error.lineno}: is not JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: is not JSON: {error}") from None
    first = 0
    if isinstance(value, dict):
        key = next((key for key in LISTS if isinstance(value.get(key), list)), None)
        if key is None:
            yield name, value
            return
        # Rows are counted through all lists of the document, as `contract.evalset` counts them.
        first = sum(len(value[one]) for one in [*value][: [*value].index(key)] if isinstance(value[one], list))
        value = value[key]
    for number, row in enumerate(value if isinstance(value, list) else [], first):
        if not isinstance(row, dict):
            raise InputError(f"{name}#{number}: is no JSON object")
        yield f"{name}#{number}", row


def _of_table(task: Task, name: str, text: str, delimiter: str) -> Iterator[tuple[str, Row]]:
    """Rows of a CSV or TSV file. Without a header, as in MMLU and MGSM, the task names the columns."""
    csv.field_size_limit(sys.maxsize)  # a cell may hold a whole article; the default limit is 128 KiB
    quoting: Literal[0, 3] = 3 if delimiter == "\t" else 0  # csv.QUOTE_NONE, csv.QUOTE_MINIMAL
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
    columns = task.columns
    try:
        for cells in rows:
            if not columns:
                columns = tuple(cells)
                continue
            if not any(cells):
                continue
            if len(cells) != len(columns):
                raise InputError(f"{name}:{rows.line_num}: has {len(cells)} cells, {len(columns)} are expected")
            yield f"{name}:{rows.line_num}", dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{name}:{rows.line_num}: is not CSV: {error}") from None
