"""The manifest: what a finished task left behind. It is written last and created once, so that it exists means done.

A task writes below `<stage>/<fingerprint>/<partition>/attempt-<uuid>/` and commits `manifest.json` beside its attempts. A second
writer of the same task is refused and its attempt is garbage that `gc` removes. Readers open only files that a manifest lists, and a
manifest lists only files of its own attempt: one that names another task than the place where it lies, or other files, is refused.
"""

import datetime
import hashlib
import re
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.errors import GristmillError, NotReadyError, StoreError
from contract.fetch import warn
from contract.masking import masked
from contract.plan import Run, Task
from contract.stages import STAGES
from contract.store import Store

ATTEMPT = re.compile(r"attempt-[0-9a-z]+")
TAKEN = (".lock", ".part")
"""What a name may not end in: training puts a lock and an unfinished download of these names beside each file that it fetches."""


class File(BaseModel):
    """One committed file: its path relative to the store, what it holds, its bytes and rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    kind: str
    bytes: int
    rows: int = 0


class Input(BaseModel):
    """A manifest that this one was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    partition: str
    fingerprint: str


class Rows(BaseModel):
    """Documents in, kept and dropped. `check` holds for every stage that judges documents."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    read: int = 0
    kept: int = 0
    dropped: int = 0
    bytes_read: int = 0
    bytes_kept: int = 0
    reasons: dict[str, int] = {}
    """Why documents were dropped: `schema.Drop` value -> documents."""
    losses: dict[str, int] = {}
    """Input that never became a document: kind of damage or of skipped record -> records."""

    def check(self) -> None:
        if self.read != self.kept + self.dropped:
            raise GristmillError(
                f"{self.read} documents read, but {self.kept} kept + {self.dropped} dropped; nothing was committed"
            )
        if self.dropped != sum(self.reasons.values()):
            raise GristmillError(
                f"{self.dropped} documents dropped, but the reasons add up to {sum(self.reasons.values())}; nothing was committed"
            )


class Manifest(BaseModel):
    """What a task read, wrote, counted and measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    version: int
    fingerprint: str
    partition: str
    attempt: str
    files: tuple[File, ...]
    inputs: tuple[Input, ...]
    sources: tuple[str, ...] = ()
    """URIs of the crawl files, without their secrets, for the one stage that reads them."""
    settings: dict[str, Any]
    rows: Rows = Rows()
    metrics: dict[str, float | int | str | bool | None] = {}
    run: str
    code: str
    started: datetime.datetime
    finished: datetime.datetime

    @property
    def prefix(self) -> str:
        return f"{self.stage}/{self.fingerprint}/{self.partition}"

    @property
    def path(self) -> str:
        return f"{self.prefix}/manifest.json"

    def of(self, *kinds: str) -> list[File]:
        """The files of these kinds, in the order in which they were written."""
        return [file for file in self.files if file.kind in kinds]


class Attempt:
    """One try at a task. `path` names files under it; `commit` makes them the task's result, or reports that another try won."""

    def __init__(self, run: Run, task: Task, partition: str | None = None) -> None:
        """`partition` differs from the task's only for checkpoints, which are committed like any result, under `step-<n>`."""
        self.run, self.task, self.store = run, task, run.store
        self.partition = partition or task.partition
        self.id = f"attempt-{uuid.uuid4().hex}"
        self.started = datetime.datetime.now(datetime.UTC)

    @property
    def prefix(self) -> str:
        return f"{self.task.stage}/{self.task.fingerprint}/{self.partition}"

    def path(self, name: str) -> str:
        """Where a file of this attempt belongs, relative to the store."""
        return f"{self.prefix}/{self.id}/{name}"

    def commit(
        self, files: Sequence[File], rows: Rows | None = None, metrics: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Create the manifest. Returns the one that stands: this attempt's, or that of the attempt that was faster."""
        rows = rows or Rows()
        rows.check()
        stray = [file.path for file in files if not lies_below(file.path, f"{self.prefix}/{self.id}")]
        if stray:
            raise GristmillError(f"{stray[0]} lies outside the attempt {self.prefix}/{self.id}; nothing was committed")
        segment = self.task.segment
        manifest = Manifest(
            stage=self.task.stage,
            version=STAGES[self.task.stage].version,
            fingerprint=self.task.fingerprint,
            partition=self.partition,
            attempt=self.id,
            files=tuple(files),
            inputs=tuple(
                Input(stage=task.stage, partition=task.partition, fingerprint=task.fingerprint)
                for task in self.task.inputs
            ),
            sources=tuple(masked(file.uri) for file in segment.files) if segment and not self.task.inputs else (),
            settings=self.run.recipe.section(self.task.stage).identity(),
            rows=rows,
            metrics=dict(metrics or {}),
            run=self.run.uri,
            code=code_version(),
            started=self.started,
            finished=datetime.datetime.now(datetime.UTC),
        )
        self.store.persist([file.path for file in files])  # before the manifest that vouches for them
        if self.store.create(manifest.path, manifest.model_dump_json(indent=1).encode()):
            return manifest
        self.store.delete(f"{self.prefix}/{self.id}")
        return read(self.store, self.prefix)


def find(store: Store, task: Task) -> Manifest | None:
    """The task's manifest, or None while it is not done."""
    try:
        return read(store, task.prefix)
    except FileNotFoundError:
        return None


def need(store: Store, task: Task) -> Manifest:
    """The manifest of an input; raises NotReadyError naming the stage to run first."""
    manifest = find(store, task)
    if manifest is None:
        raise NotReadyError(
            f"{task.stage} {task.partition} is not done: {store.full(task.prefix)}/manifest.json does not exist; run {task.stage} first"
        )
    return manifest


def read(store: Store, prefix: str) -> Manifest:
    """The manifest under a prefix; raises FileNotFoundError where there is none, and StoreError for one that is not this task's own."""
    path = f"{prefix}/manifest.json"
    try:
        manifest = Manifest.model_validate_json(store.read_bytes(path))
    except ValidationError as error:
        raise StoreError(
            f"{store.full(path)}: is not a manifest of this version ({error.error_count()} fields differ); delete it to run the task again"
        ) from error
    why = foreign(manifest, prefix)
    if why:
        raise StoreError(f"{store.full(path)}: {why}, so it was not written here; delete it to run the task again")
    return manifest


def foreign(manifest: Manifest, prefix: str) -> str | None:
    """Why a manifest that lies under `prefix` cannot be the one that a task committed there; None where it can."""
    if manifest.prefix != prefix:
        return f"it is the manifest of {manifest.prefix}"
    if not ATTEMPT.fullmatch(manifest.attempt):
        return f"its attempt is called {manifest.attempt!r}"
    stray = [file.path for file in manifest.files if not lies_below(file.path, f"{prefix}/{manifest.attempt}")]
    return f"it lists {stray[0]!r}, which is no file of its attempt" if stray else None


def lies_below(path: str, folder: str) -> bool:
    """Whether a path relative to the store names a file below a folder of it, by a name that nothing else may have."""
    below = path.removeprefix(f"{folder}/")
    return below != path and not {"", ".", ".."} & set(below.split("/")) and not path.endswith(TAKEN)


def read_all(store: Store) -> tuple[list[Manifest], list[str]]:
    """(every manifest in the store, checkpoints included; the prefixes of those that cannot be read).

    A warning names each of the second: foreign, damaged, of another version, or gone since it was listed. They stop nobody who looks at
    the whole store.
    """
    found: list[Manifest] = []
    unreadable: list[str] = []
    for entry in (entry for stage in STAGES for entry in store.files(stage)):
        prefix, _, name = entry.path.rpartition("/")
        if name != "manifest.json":
            continue
        try:
            found.append(read(store, prefix))
        except FileNotFoundError:
            warn(f"{store.full(entry.path)}: is gone since it was listed; left out")
            unreadable.append(prefix)
        except StoreError as error:
            warn(f"left out: {error}")
            unreadable.append(prefix)
    return found, unreadable


@cache
def code_version() -> str:
    """The package's version with git's description of the checkout, or with a hash of the sources where there is no git."""
    root = Path(__file__).parent.parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return described.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        digest = hashlib.sha256()
        for package in ("contract", "pipelines", "training"):
            for file in sorted((root / package).rglob("*.py")):
                digest.update(file.read_bytes())
        return f"sources-{digest.hexdigest()[:12]}"
