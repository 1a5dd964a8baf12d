"""What the page of a task's manifest says: its counts, figures, files, settings and inputs, bounded."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from contract.headline import headline, warnings
from contract.manifest import Manifest, need
from contract.masking import masked
from contract.plan import WHOLE, Run, Task
from contract.stages import STAGES

MOST = 200  # rows of a table
MAX_CHARS = 400  # of a value


@dataclass(frozen=True)
class Table:
    """Rows of a table with their headings. left_out: rows that are not shown."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    left_out: int


@dataclass(frozen=True)
class Shown:
    """A manifest as its page shows it. made_elsewhere: whether an earlier run did the task."""

    stage: str
    partition: str
    uri: str
    line: str
    warnings: tuple[str, ...]
    started: datetime.datetime
    finished: datetime.datetime
    code: str
    made_elsewhere: bool
    tables: tuple[Table, ...]
    inputs: tuple[tuple[str, str, int], ...]
    """Stage, partition and map index of the inputs; -1 for one of the whole corpus."""
    inputs_left_out: int


def task_of(run: Run, dag_id: str, task_id: str, map_index: int = -1) -> Task | None:
    """The task of the stage table behind a task of Airflow, or None if there is none.

    Its stage is the last part of the id. Mapped tasks stand in the order of the run's segments, or of its models.
    """
    stage = STAGES.get(task_id.rpartition(".")[2])
    if stage is None:
        return None
    if stage.scope == "corpus":
        return run.task(stage.name, WHOLE) if map_index < 0 else None
    names = run.mapped(stage.name, dag_id)
    index = 0 if map_index < 0 and len(names) == 1 else map_index
    return run.task(stage.name, names[index]) if 0 <= index < len(names) else None


def shown(run: Run, task: Task, dag_id: str) -> Shown:
    """The content of a task's page. Raises NotReadyError if the task is not done, StoreError for a broken manifest."""
    manifest = need(run.store, task)
    read = {one.stage for one in manifest.inputs} & {*STAGES}
    index = {(stage, name): at for stage in read for at, name in enumerate(run.mapped(stage, dag_id))}
    inputs = [(one.stage, one.partition, index.get((one.stage, one.partition), -1)) for one in manifest.inputs]
    return Shown(
        stage=manifest.stage,
        partition=manifest.partition,
        uri=masked(run.store.full(manifest.path)),
        line=headline(manifest),
        warnings=tuple(warnings(manifest)),
        started=manifest.started,
        finished=manifest.finished,
        code=manifest.code,
        made_elsewhere=manifest.run != run.uri,
        tables=tuple(table for table in _tables(manifest) if table.rows),
        inputs=tuple(inputs[:MOST]),
        inputs_left_out=max(0, len(inputs) - MOST),
    )


def _tables(manifest: Manifest) -> Iterable[Table]:
    rows = manifest.rows
    counts = {"read": rows.read, "kept": rows.kept, "dropped": rows.dropped, "bytes kept": rows.bytes_kept}
    if rows.read or rows.losses:
        yield _table("Rows", ("what", "number"), counts.items())
    yield _table("Dropped because", ("reason", "number"), _falling(rows.reasons))
    yield _table("Records that gave no document", ("why", "number"), _falling(rows.losses))
    plain = {key: value for key, value in manifest.metrics.items() if not isinstance(value, dict)}
    yield _table("Figures", ("figure", "value"), plain.items())
    for key, value in manifest.metrics.items():
        if isinstance(value, dict) and value:
            yield _nested(key, value)
    yield _table("Settings that differ from the defaults", ("key", "value"), manifest.identity.settings.items())
    yield _table("Files outside the store", ("setting", "digest"), manifest.identity.outside.items())
    own = f"{manifest.prefix}/{manifest.attempt}/"
    files = [(file.path.removeprefix(own), str(file.kind), file.rows, file.bytes) for file in manifest.files]
    yield _table("Files", ("path", "kind", "rows", "bytes"), files)
    yield _table("Read from", ("source",), ((source,) for source in manifest.sources))


def _falling(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _nested(title: str, table: Mapping[str, Mapping[str, Any]]) -> Table:
    """A figure that is a table: a row for each of its keys."""
    columns = list(dict.fromkeys(name for row in table.values() for name in row))[:20]
    return _table(title, ("", *columns), ((key, *(row.get(name) for name in columns)) for key, row in table.items()))


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Table:
    every = list(rows)
    kept = tuple(tuple(map(_value, row)) for row in every[:MOST])
    return Table(title, head, kept, max(0, len(every) - MOST))


def _value(value: Any) -> Any:
    """A number as it is; anything else as a text without secrets, cut."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = "-" if value is None else masked(str(value))
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + " ..."
