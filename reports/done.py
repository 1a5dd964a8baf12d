"""What the manifests of finished tasks say, kept in memory, because a manifest never changes.

It can be deleted, though, to have its task done again. So the manifests of the stages that run once, of which a run has
few, are looked up each time and read again if they are new. Those of a crawl's segments are not: a task that is done
again has the same result.
"""

import datetime
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePosixPath

from contract.digest import split_digest
from contract.errors import GristmillError
from contract.headline import headline, warnings
from contract.manifest import Figure, Rows, read
from contract.plan import Run, Task
from contract.stages import STAGES
from contract.store import Store

KEPT = 4096  # tasks, at about 3 kB each
AT_ONCE = 16  # requests to a store


@dataclass(frozen=True, slots=True)
class Done:
    """A finished task. bytes: of the files that it wrote; run: the name of the run that made it."""

    stage: str
    partition: str
    started: datetime.datetime
    finished: datetime.datetime
    rows: Rows
    figures: Mapping[str, Figure]
    said: str
    warnings: tuple[str, ...]
    bytes: int
    peak_bytes: int | None
    run: str
    code: str

    @property
    def seconds(self) -> float:
        return (self.finished - self.started).total_seconds()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A task whose manifest is there and cannot be read. why: a sentence for a person."""

    why: str


Found = Done | Unreadable | None


@lru_cache(maxsize=KEPT)
def _done(store: Store, prefix: str, modified: int) -> Done:
    """modified: when the manifest was written, in ns; 0 if that does not count."""
    manifest = read(store, prefix)
    return Done(
        manifest.stage,
        manifest.partition,
        manifest.started,
        manifest.finished,
        manifest.rows,
        {name: value for name, value in manifest.metrics.items() if not isinstance(value, dict)},
        headline(manifest),
        tuple(warnings(manifest)),
        sum(file.bytes for file in manifest.files if file.path.startswith(f"{manifest.prefix}/")),
        manifest.peak_bytes,
        name_of(manifest.run),
        manifest.code,
    )


def look_up(store: Store, prefix: str) -> Found:
    """The finished task under a prefix of the store; None if it is not done."""
    try:
        if STAGES[prefix.partition("/")[0]].scope == "snapshot":
            return _done(store, prefix, 0)
        file = store.entry(f"{prefix}/manifest.json")
        return _done(store, prefix, file.modified) if file else None
    except FileNotFoundError:
        return None
    except GristmillError as error:
        return Unreadable(str(error))


def of_run(run: Run) -> dict[str, Found]:
    """Prefix -> what became of each task of a run.

    A stage is looked for only if one of its inputs is done, so that a run that has just begun is not asked for in full.
    """
    found: dict[str, Found] = {}
    waiting: dict[str, list[Task]] = {}
    for task in run.tasks().values():
        waiting.setdefault(task.stage, []).append(task)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="manifests") as pool:
        for tasks in waiting.values():
            asked = [task.prefix for task in tasks if not task.inputs or _any_done(task.inputs, found)]
            each = pool.map if len(asked) > 1 else map  # a thread costs more than one small file
            found |= dict(zip(asked, each(partial(look_up, run.store), asked), strict=True))
    return found


def _any_done(inputs: Iterable[Task], found: Mapping[str, Found]) -> bool:
    return any(found.get(one.prefix) is not None for one in inputs)


def name_of(uri: str) -> str:
    """The name of a run, from the URI of its recipe."""
    return PurePosixPath(split_digest(uri)[0]).parent.name
