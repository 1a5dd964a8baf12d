"""The manifest: what a finished task left behind. It is written last and created once, so that it exists means done.

A task writes below `<stage>/<fingerprint>/<partition>/attempt-<uuid>/` and commits `manifest.json` beside its attempts. A second
writer of the same task is refused and its attempt is garbage that `gc` removes. Readers open only files that a manifest lists, and a
manifest lists only files of its own attempt: one that names another task than the place where it lies, or other files, is refused.
"""

import datetime
import errno
import hashlib
import json
import re
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from contract import deployment
from contract.errors import DamagedError, GristmillError, NotReadyError, StoreError
from contract.fetch import warn
from contract.masking import masked
from contract.plan import Run, Task
from contract.stages import STAGES
from contract.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

HEARTBEAT = "heartbeat"  # a file of a running attempt, beside those that it writes
BEAT_S = 600.0  # six in the hour that `gc` waits at least
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

    def open(self, store: Store) -> "pa.NativeFile":
        """A seekable reader of the file. Raises DamagedError where it is gone or has another size than was committed."""
        if deployment.current() and not store.holds(self.path):
            raise StoreError(f"{store.full(self.path)}: a link leads out of the store; remove that link")
        try:
            source = store.open_input(self.path)
        except FileNotFoundError:
            raise self.damaged(store, None) from None
        try:
            self.compare(store, source.size())
        except DamagedError:
            source.close()
            raise
        return source

    def compare(self, store: Store, size: int) -> None:
        """Raises DamagedError where the size found is not the committed one."""
        if size != self.bytes:
            raise self.damaged(store, size)

    def damaged(self, store: Store, size: int | None) -> DamagedError:
        """What is wrong with a file of this size, None where it is gone."""
        found = "is gone" if size is None else f"has {size:,} bytes"
        return DamagedError(
            f"{store.full(self.path)}: {found}, {self.bytes:,} bytes were committed; {self.cure(store)}"
        )

    def cure(self, store: Store) -> str:
        """What a person does about a damaged file."""
        task = self.path.split("/attempt-")[0]
        return f"bring it back, or delete {store.full(task)}/manifest.json and run {task.split('/')[0]} again"


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
        self._may_stand = False  # the manifest: from then on the files are its own, whatever the store answered
        self._beaten = False

    @property
    def prefix(self) -> str:
        return f"{self.task.stage}/{self.task.fingerprint}/{self.partition}"

    def path(self, name: str) -> str:
        """Where a file of this attempt belongs, relative to the store."""
        return f"{self.prefix}/{self.id}/{name}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around the work of a stage. A file beside what it writes tells `gc`, every BEAT_S, that the attempt lives, however long one file
        takes. What it wrote goes with the exception that ends it, so that a full disk is no fuller at the next try."""
        ended = threading.Event()
        heart = threading.Thread(target=self._beat_until, args=(ended,), daemon=True)
        heart.start()
        failed = True
        try:
            yield
            failed = False
        finally:
            ended.set()
            heart.join(timeout=60)  # a beat that arrives later would outlive its attempt
            if failed and not self._may_stand:
                self._remove(f"{self.prefix}/{self.id}")
            elif self._beaten and not failed:
                self._remove(self.path(HEARTBEAT))

    def _beat_until(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT_S):
            self._beat()

    def _beat(self) -> None:
        self._beaten = True
        try:
            self.store.write_bytes(self.path(HEARTBEAT), b"alive")
        except (GristmillError, OSError) as error:
            warn(str(error))  # the next one may arrive; `commit` compares what `gc` has left

    def _remove(self, path: str) -> None:
        try:
            self.store.delete(path)
        except (GristmillError, OSError) as error:
            warn(f"{error}; gc removes it later")

    def commit(
        self, files: Sequence[File], rows: Rows | None = None, metrics: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Create the manifest. Returns the one that stands: this attempt's, or that of the attempt that was faster.

        Raises DamagedError where the store holds a file with another size than was written: cut by a full disk, or removed by somebody.
        """
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
        if (manifest.finished - self.started).total_seconds() > BEAT_S:
            self._beat()  # after a long sleep of the machine `gc` may be at these very files
        self._compare(files)
        self.store.persist([file.path for file in files])  # before the manifest that vouches for them
        if self._create(manifest):
            self._compare_again(manifest)
            return manifest
        stands = read(self.store, self.prefix)
        if stands.attempt != self.id:  # or the answer to our own first try was lost
            self.store.delete(f"{self.prefix}/{self.id}")
        return stands

    def _compare(self, files: Sequence[File]) -> None:
        found = self.store.sizes(f"{self.prefix}/{self.id}", [file.path for file in files]) if files else {}
        for file in files:
            if found.get(file.path) != file.bytes:
                there = f"has {found[file.path]} bytes" if file.path in found else "is gone"
                raise DamagedError(
                    f"{self.store.full(file.path)}: {there}, {file.bytes} were written; nothing was committed, run again"
                )

    def _compare_again(self, manifest: Manifest) -> None:
        """Delete the manifest again if its files are gone: the machine may have slept after `_compare` while `gc` removed them."""
        try:
            self._compare(manifest.files)
        except DamagedError:
            self.store.delete(manifest.path)
            self._may_stand = False
            raise

    def _create(self, manifest: Manifest) -> bool:
        self._may_stand = True
        try:
            return self.store.create(manifest.path, manifest.model_dump_json(indent=1).encode())
        except StoreError as error:
            # A request whose answer was lost may yet arrive; a full disk took none.
            full = getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            self._may_stand = not full or self.store.exists(manifest.path)
            raise


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
    """The manifest under a prefix. Raises FileNotFoundError where there is none, and what `parse` does."""
    return parse(store, prefix, store.read_bytes(f"{prefix}/manifest.json"))


def parse(store: Store, prefix: str, content: bytes) -> Manifest:
    """The manifest that has this content and lies under a prefix.

    Raises DamagedError for one that is not this task's own, and StoreError for one that another version of Gristmill has written.
    """
    where = store.full(f"{prefix}/manifest.json")
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        if _claims(content, prefix):
            raise StoreError(
                f"{where}: was written by another version of Gristmill ({error.error_count()} fields differ); use that version, or "
                "delete it to run the task again"
            ) from error
        raise DamagedError(f"{where}: is no manifest; delete it to run the task again") from error
    why = foreign(manifest, prefix)
    if why:
        raise DamagedError(f"{where}: {why}, so it was not written here; delete it to run the task again")
    return manifest


def _claims(content: bytes, prefix: str) -> bool:
    """Whether a manifest that cannot be read as one of this version names the task under whose prefix it lies."""
    try:
        values = json.loads(content)
        return f"{values['stage']}/{values['fingerprint']}/{values['partition']}" == prefix
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


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
        for package in ("contract", "pipelines", "training", "reports"):
            for file in sorted((root / package).rglob("*.py")):
                digest.update(file.read_bytes())
        return f"sources-{digest.hexdigest()[:12]}"
