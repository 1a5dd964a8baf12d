"""The manifest records what a finished task wrote. It is written last and created once, so a task whose
manifest exists is done.

A task writes below `<stage>/<fingerprint>/<partition>/attempt-<uuid>/` and commits `manifest.json` beside its attempts.
A second writer of the same task is refused, and its attempt is garbage that `gc` removes. Readers open only files that
a manifest lists: those of its own attempt, and those that an input lists and this stage leaves as they are. A manifest
that lies under another task's prefix, or that lists other files, is refused.
"""

import contextlib
import datetime
import errno
import hashlib
import importlib.metadata
import json
import re
import subprocess
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from contract import deployment, memory
from contract.errors import DamagedError, GristmillError, NotReadyError, StoreError
from contract.fetch import warn
from contract.identity import Identity, Input
from contract.kinds import Kind
from contract.masking import masked
from contract.plan import Run, Task
from contract.results import Checkpoint, Result, result_of
from contract.stages import STAGES, upstream
from contract.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

HEARTBEAT = "heartbeat"  # a file in the folder of a running attempt
BEAT_S = 600.0  # six beats in an hour, the shortest time that `gc` waits
ATTEMPT = re.compile(r"attempt-[0-9a-z]+")
UPSTREAM = re.compile(r"([a-z_]+)/[0-9a-f]{40}/[A-Za-z0-9][^/]*/attempt-[0-9a-z]+")
FORMAT: Final = 2  # of manifests; a manifest of another format is skipped with a line that says so
NOT_FINITE = ("Infinity", "-Infinity", "NaN")  # how the JSON of a manifest spells such figures
TAKEN = (".lock", ".part")
"""A file's name may not end in these: training puts its lock and its unfinished download beside each fetched file."""


class File(BaseModel):
    """One committed file: its path relative to the store, its kind, its size in bytes, and its number of rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    kind: Kind
    bytes: int
    rows: int = 0
    sha256: str = ""
    """64 hexadecimal digits; empty for a file that is not committed yet."""
    part: int | None = None
    """Which files of a manifest belong together: a documents file and what is said of its rows have the same number."""
    source: str = ""
    """Whose documents the file holds: `crawl`, or a name of `curate.sources`.

    Empty for files of no single source, and for the documents that the crawl's own stages write.
    """

    def open(self, store: Store) -> "pa.NativeFile":
        """Return a seekable reader. Raises DamagedError if the file is gone or its size is not the committed one."""
        if not store.holds(self.path) and deployment.current():
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
        """Raise DamagedError if `size` is not the committed one."""
        if size != self.bytes:
            raise self.damaged(store, size)

    def damaged(self, store: Store, size: int | None) -> DamagedError:
        """The error for a file that has `size` bytes in the store; None means that the file is gone."""
        state = "is gone" if size is None else f"has {size:,} bytes"
        return DamagedError(
            f"{store.full(self.path)}: {state}, {self.bytes:,} bytes were committed; {self.cure(store)}"
        )

    def cure(self, store: Store) -> str:
        """What a person can do about a damaged file, as the end of an error message."""
        task = self.path.split("/attempt-")[0]
        stage = task.split("/")[0]
        if self.part is None:
            return f"bring it back, or delete {store.full(task)}/manifest.json and run {stage} again"
        return (  # stages pass the files of a part on, so that the manifests of later ones list it, too
            f"bring it back, or delete all manifests that list it and run {stage} and the stages after it again; "
            f"python -m contract lineage --store {store.uri} {self.path} names them"
        )


class Rows(BaseModel):
    """Documents read, kept and dropped, or examples: `Stage.counts` says which.

    `check` passes for every stage that keeps or drops some.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    read: int = 0
    kept: int = 0
    dropped: int = 0
    bytes_read: int = 0
    bytes_kept: int = 0
    reasons: dict[str, int] = {}
    """Reason (a `schema.Drop` value) -> number of documents or examples dropped for it."""
    losses: dict[str, int] = {}
    """Kind of damage or of skipped record -> number of records that gave no document."""

    def check(self) -> None:
        """Raise GristmillError if the counts do not add up."""
        if self.read != self.kept + self.dropped:
            raise GristmillError(
                f"{self.read} rows read, but {self.kept} kept + {self.dropped} dropped; nothing was committed"
            )
        if self.dropped != sum(self.reasons.values()):
            raise GristmillError(
                f"{self.dropped} rows dropped, but the reasons add up to {sum(self.reasons.values())}; "
                "nothing was committed"
            )


Figure = float | int | str | bool | None


class Manifest(BaseModel):
    """What a task read, wrote, counted and measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")  # plain JSON has neither
    format: Literal[2] = FORMAT
    stage: str
    fingerprint: str
    partition: str
    attempt: str
    identity: Identity
    """All that the fingerprint was computed from."""
    files: tuple[File, ...]
    sources: tuple[str, ...] = ()
    """URIs of the crawl files, or of the sources beside the crawl, without secrets: of stages that read no other.

    Also those of the votes that preference pairs were made of.
    """
    rows: Rows = Rows()
    metrics: dict[str, Figure | dict[str, dict[str, float | int | None]]] = {}
    """A table of figures has rows and columns, and perhaps gaps."""
    run: str
    code: str
    peak_bytes: int | None = None
    """Of the process that committed and those that it started; None where nothing tells, and in older manifests."""
    started: datetime.datetime
    finished: datetime.datetime

    @field_validator("metrics")
    @classmethod
    def _as_numbers(cls, metrics: dict[str, Any]) -> dict[str, Any]:
        return {key: float(value) if value in NOT_FINITE else value for key, value in metrics.items()}

    @property
    def prefix(self) -> str:
        return f"{self.stage}/{self.fingerprint}/{self.partition}"

    @property
    def path(self) -> str:
        return f"{self.prefix}/manifest.json"

    @property
    def inputs(self) -> tuple[Input, ...]:
        return self.identity.inputs

    def of(self, *kinds: Kind) -> list[File]:
        """The files of these kinds, in the order in which they were written."""
        return [file for file in self.files if file.kind in kinds]


class Attempt:
    """One try at a task. `path` names its files; `commit` makes them the task's result, unless another attempt
    was faster."""

    def __init__(self, run: Run, task: Task, partition: str | None = None) -> None:
        """`partition` is the task's unless given. Checkpoints give `step-<n>`: they are committed like any result."""
        self.run, self.task, self.store = run, task, run.store
        self.partition = partition or task.partition
        self.id = f"attempt-{uuid.uuid4().hex}"
        self.started = datetime.datetime.now(datetime.UTC)
        self._may_stand = False  # True once the manifest may exist, whatever the store answered: then the files stay
        self._beaten = False

    @property
    def prefix(self) -> str:
        return f"{self.task.stage}/{self.task.fingerprint}/{self.partition}"

    def path(self, name: str) -> str:
        """The path of a file of this attempt, relative to the store."""
        return f"{self.prefix}/{self.id}/{name}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context for the work of a stage.

        A heartbeat file is rewritten every BEAT_S seconds, so that `gc` sees a live attempt even if one file takes
        hours. If the work raises, the attempt's files are deleted, so that retries do not fill the disk.
        """
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
            warn(str(error))  # the next beat may succeed; `commit` checks that `gc` has removed no file

    def _remove(self, path: str) -> None:
        try:
            self.store.delete(path)
        except (GristmillError, OSError) as error:
            warn(f"{error}; gc removes it later")

    def commit(
        self,
        files: Sequence[File],
        rows: Rows | None = None,
        result: Result | None = None,
        sources: Sequence[str] = (),
    ) -> Manifest:
        """Create the manifest and return the one that the store now holds: this attempt's, or a faster attempt's.

        `files` lie in the attempt, or an input's manifest lists them. Raises GristmillError if one does neither or the
        counts in `rows` do not add up, and DamagedError if a file in the store is missing or its size is not the
        written one, for example after a full disk cut it. sources: URIs of what lineage shall name besides.
        """
        rows = rows or Rows()
        rows.check()
        expected = result_of(self.task.stage) if self.partition == self.task.partition else Checkpoint
        if result is not None and type(result) is not expected:
            raise TypeError(f"{self.task.stage} commits {expected.__name__}, not {type(result).__name__}")
        own: list[File] = []
        others: list[File] = []
        for file in files:
            (own if lies_below(file.path, f"{self.prefix}/{self.id}") else others).append(file)
        self._check_upstream(others)
        manifest = Manifest(
            stage=self.task.stage,
            fingerprint=self.task.fingerprint,
            partition=self.partition,
            attempt=self.id,
            identity=self.task.identity,
            files=tuple(files),
            sources=tuple(map(masked, [*([] if self.task.inputs else self._sources()), *sources])),
            rows=rows,
            metrics=result.model_dump(exclude_unset=True) if result else {},
            run=self.run.uri,
            code=code_version(),
            peak_bytes=memory.peak_bytes(),
            started=self.started,
            finished=datetime.datetime.now(datetime.UTC),
        )
        if (manifest.finished - self.started).total_seconds() > BEAT_S:
            self._beat()  # if the machine has slept for long, `gc` may be about to delete these files
        self._compare(own)
        self.store.persist([file.path for file in own])  # the manifest may list only files that survive a power cut
        if self._create(manifest):
            self._compare_again(manifest, own)
            return manifest
        stands = read(self.store, self.prefix)
        if stands.attempt != self.id:  # equal if the answer to this attempt's own first request was lost
            self.store.delete(f"{self.prefix}/{self.id}")
        return stands

    def _sources(self) -> list[str]:
        """What a stage without inputs has read."""
        if self.task.segment:
            return [file.uri for file in self.task.segment.files]
        return [*self.run.recipe.section(self.task.stage).outside().values()]

    def _compare(self, files: Sequence[File]) -> None:
        sizes = self.store.sizes(f"{self.prefix}/{self.id}", [file.path for file in files]) if files else {}
        for file in files:
            if sizes.get(file.path) != file.bytes:
                state = f"has {sizes[file.path]} bytes" if file.path in sizes else "is gone"
                raise DamagedError(
                    f"{self.store.full(file.path)}: {state}, {file.bytes} were written; "
                    "nothing was committed, run again"
                )

    def _check_upstream(self, files: Sequence[File]) -> None:
        """Raise GristmillError unless each of these files, which lie outside the attempt, is listed by an input."""
        if not files:
            return
        inputs = filter(None, (find(self.store, task) for task in self.task.inputs))
        listed = {file.model_copy(update={"part": None}) for manifest in inputs for file in manifest.files}
        for file in files:
            if file.model_copy(update={"part": None}) not in listed:
                raise GristmillError(
                    f"{file.path} lies outside the attempt {self.prefix}/{self.id}, and no input lists it; "
                    "nothing was committed"
                )

    def _compare_again(self, manifest: Manifest, own: Sequence[File]) -> None:
        """Delete the manifest if its files are gone: `gc` may have run while the machine slept after `_compare`."""
        try:
            self._compare(own)
        except DamagedError:
            self.store.delete(manifest.path)
            self._may_stand = False
            raise

    def _create(self, manifest: Manifest) -> bool:
        self._may_stand = True
        try:
            return self.store.create(manifest.path, manifest.model_dump_json(indent=1).encode())
        except StoreError as error:
            # A request whose answer was lost may still be carried out; a request that a full disk refused is not.
            full = getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            self._may_stand = not full or self.store.exists(manifest.path)
            raise


def find(store: Store, task: Task | Input) -> Manifest | None:
    """The task's manifest, or None if the task is not done."""
    try:
        return read(store, task.prefix)
    except FileNotFoundError:
        return None


def need(store: Store, task: Task | Input) -> Manifest:
    """The manifest of an input; raises NotReadyError naming the stage to run first."""
    manifest = find(store, task)
    if manifest is None:
        raise NotReadyError(
            f"{task.stage} {task.partition} is not done: {store.full(task.prefix)}/manifest.json does not exist; "
            f"run {task.stage} first"
        )
    return manifest


def read(store: Store, prefix: str) -> Manifest:
    """The manifest under a prefix. Raises FileNotFoundError if it does not exist, and the errors of `parse`."""
    return parse(store, prefix, store.read_bytes(f"{prefix}/manifest.json"))


def parse(store: Store, prefix: str, content: bytes) -> Manifest:
    """Parse the content of the manifest file under a prefix.

    Raises DamagedError if the content is not a manifest of the task with this prefix, and StoreError if another version
    of Gristmill wrote it.
    """
    where = store.full(f"{prefix}/manifest.json")
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        if (written := _format(content, prefix)) is not None:
            other = f"has format {written}, and this version of Gristmill reads format {FORMAT}"
            if written == FORMAT:
                other = f"was written by another version of Gristmill ({error.error_count()} fields differ)"
            raise StoreError(
                f"{where}: {other}; use the version that wrote it, or delete it to run the task again"
            ) from error
        raise DamagedError(f"{where}: is not a manifest; delete it to run the task again") from error
    why = foreign(manifest, prefix)
    if why:
        raise DamagedError(f"{where}: {why}, so it was not written here; delete it to run the task again")
    return manifest


def _format(content: bytes, prefix: str) -> object:
    """The format of a manifest of this prefix that this version cannot parse; None if the content is not a manifest."""
    try:
        values = json.loads(content)
        claims = f"{values['stage']}/{values['fingerprint']}/{values['partition']}" == prefix
        return values.get("format", 1) if claims else None  # format 1 had no number
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def foreign(manifest: Manifest, prefix: str) -> str | None:
    """Why a manifest under `prefix` cannot be the one that a task committed there, or None if it can be."""
    if manifest.prefix != prefix:
        return f"it is the manifest of {manifest.prefix}"
    if manifest.identity.fingerprint() != manifest.fingerprint or manifest.identity.stage != manifest.stage:
        return "its fingerprint is not that of the identity that it holds"
    if not ATTEMPT.fullmatch(manifest.attempt):
        return f"its attempt is called {manifest.attempt!r}"
    stray = [file.path for file in manifest.files if not _may_list(manifest, file.path)]
    return f"it lists {stray[0]!r}, which is neither a file of its attempt nor of an earlier stage" if stray else None


def _may_list(manifest: Manifest, path: str) -> bool:
    """Whether a path lies below the manifest's attempt, or below an attempt at one of the stages before."""
    if lies_below(path, f"{manifest.prefix}/{manifest.attempt}"):
        return True
    folder = UPSTREAM.match(path)
    return folder is not None and folder[1] in upstream(manifest.stage) and lies_below(path, folder[0])


def lies_below(path: str, folder: str) -> bool:
    """Whether `path` is a plain path below `folder` (both relative to the store) that ends in none of TAKEN."""
    below = path.removeprefix(f"{folder}/")
    return below != path and not {"", ".", ".."} & set(below.split("/")) and not path.endswith(TAKEN)


def read_all(store: Store) -> tuple[list[Manifest], list[str]]:
    """Return (every manifest in the store, checkpoints' included; the prefixes of manifests that cannot be read).

    An unreadable manifest is foreign, damaged, of another version, or gone since it was listed. Each is reported as
    a warning and skipped, so that one bad manifest does not stop a command that reads the whole store.
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
    """What `git describe` says of a checkout; else the installed version and its sources' hash, `0.1.0+sources.<hash>`.

    The hash tells a changed copy from the release.
    """
    root = Path(__file__).parent.parent
    if (root / ".git").exists():  # a folder above may be another project's checkout, with our wheel in its environment
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
            asked = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True)
            return asked.stdout.strip()
    digest = hashlib.sha256()
    for package in ("contract", "pipelines", "training", "evals", "reports"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.read_bytes())
    try:
        version = importlib.metadata.version("gristmill")
    except importlib.metadata.PackageNotFoundError:  # a copy that was never installed
        version = "unknown"
    return f"{version}+sources.{digest.hexdigest()[:12]}"
