"""A Job gives a stage of the GPU plane its settings, its inputs, its rank among the processes, and its commit.

Every process of a stage holds a Job and calls the same methods in the same order; only rank 0 writes the result. torch
is imported where it is used, so that a stage without a model starts quickly.
"""

import contextlib
import getpass
import hashlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import Timeout

from contract.digest import file_digest
from contract.errors import GristmillError
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, Rows, need
from contract.plan import Run, Task
from contract.private import private_folder, private_lock
from contract.recipe import StageSettings
from contract.results import Result
from contract.store import Store
from training.engine.metrics import Curves

if TYPE_CHECKING:
    import torch

STEP = re.compile(r"step-[0-9]{8,}")
Value = TypeVar("Value")


class StopFlag:
    """Set by SIGTERM or SIGINT; the second SIGINT ends the process at once."""

    def __init__(self) -> None:
        self.raised = False

    def install(self) -> "StopFlag":
        signal.signal(signal.SIGTERM, self._raise)
        signal.signal(signal.SIGINT, self._raise)
        return self

    def _raise(self, number: int, _: object) -> None:
        if number == signal.SIGINT and self.raised:
            raise KeyboardInterrupt
        self.raised = True


@dataclass
class Job:
    """One task of the GPU plane in one process. `rank` counts over all machines, `local_rank` on this one."""

    run: Run
    task: Task
    attempt: Attempt
    rank: int = 0
    local_rank: int = 0
    world: int = 1
    stop: StopFlag = field(default_factory=StopFlag)
    curves: Curves = field(default_factory=Curves)
    """The stage's curves so far, stored in every checkpoint and in the committed result."""

    @property
    def store(self) -> Store:
        return self.run.store

    @property
    def settings(self) -> Any:
        """The stage's own section of the recipe; annotate it: `settings: Pretrain = job.settings`."""
        return self.declared.own

    def setting(self, key: str) -> Any:
        """A setting of another section that the stage table declares, by its dotted key."""
        return self.declared.of(key)

    @cached_property
    def declared(self) -> StageSettings:
        """All that the stage may read of the recipe."""
        return StageSettings(self.run.recipe, self.task.stage)

    @cached_property
    def device(self) -> "torch.device":
        import torch

        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    @cached_property
    def workdir(self) -> Path:
        """This attempt's scratch folder on this machine, shared by its processes.

        Its name holds a digest of store and attempt, so no other attempt and no other store's run uses it.
        """
        own = hashlib.sha256(f"{self.store.uri}\n{self.attempt.id}".encode()).hexdigest()
        return private_folder(scratch_base() / f"{self.task.stage}-{own[:24]}")

    def leading(self, attempt: Attempt) -> contextlib.AbstractContextManager[None]:
        """Context for the work of an attempt, on every rank.

        Rank 0 alone protects the attempt from `gc`, and deletes its files if it fails.
        """
        return attempt.running() if self.rank == 0 else contextlib.nullcontext()

    @contextlib.contextmanager
    def scratch(self) -> Iterator[None]:
        """Hold the scratch folder and remove it at the end, also after an error.

        Every process enters it before it asks for any file. Folders that killed attempts left behind are removed
        first: their lock files are not locked.
        """
        self.attempt.id = self.share(self.attempt.id)
        if self.local_rank:
            yield
            return
        for left in scratch_base().glob("*.held"):
            # Another user's file may be named after somebody else's folder.
            with contextlib.suppress(OSError, Timeout), private_lock(left, timeout=0):
                shutil.rmtree(left.with_suffix(""), ignore_errors=True)
                left.unlink()
        held = self.workdir.with_name(self.workdir.name + ".held")
        with private_lock(held):
            try:
                yield
            finally:
                shutil.rmtree(self.workdir, ignore_errors=True)
                held.unlink(missing_ok=True)

    def manifest(self, stage: str) -> Manifest:
        """The manifest of an input stage; raises NotReadyError if it is missing."""
        (task,) = self.task.of(stage)
        return need(self.store, task)

    def files(self, stage: str, *kinds: Kind) -> list[File]:
        """The files of these kinds that an input stage committed; raises GristmillError if there is none."""
        manifest = self.manifest(stage)
        files = manifest.of(*kinds)
        if not files:
            raise GristmillError(
                f"{self.store.full(manifest.path)} lists no file of kind {' or '.join(kinds)}; run {stage} again"
            )
        return files

    def download(self, file: File) -> Path:
        """A local path of a committed file.

        Files of a local store are used in place; others are fetched once per machine, by the first process that asks.
        Raises DamagedError if the file is gone or its size differs from the committed one.
        """
        if not self.store.is_s3:
            file.open(self.store).close()
            return self.store.local(file.path)
        target = self.workdir / "inputs" / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with private_lock(target.with_name(target.name + ".lock")):
            if not target.exists():
                try:
                    part = self.store.download(file.path, target.with_name(target.name + ".part"))
                except FileNotFoundError:
                    raise file.damaged(self.store, None) from None
                file.compare(self.store, part.stat().st_size)
                os.replace(part, target)
        return target

    def sum(self, *values: float) -> list[float]:
        """Each value added up over all processes, in float64."""
        if self.world == 1:
            return list(values)
        import torch

        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def stopping(self) -> bool:
        """Whether any process was asked to stop. All get the same answer, so all stop after the same step."""
        # Asked at every step: a sum takes 0.5 ms between two processes, gathered objects take 1.7 ms.
        return self.sum(float(self.stop.raised))[0] > 0

    def barrier(self) -> None:
        self.sum(0.0)

    def share(self, value: Value) -> Value:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        import torch

        # The values are pickled: ranks run one user's code on one network, and bytes of the store are never unpickled.
        shared = [value]
        torch.distributed.broadcast_object_list(shared, 0)
        return shared[0]

    def gather(self, value: Value) -> list[Value]:
        """Each rank's value, in the order of the ranks, on every rank."""
        if self.world == 1:
            return [value]
        import torch

        values = [value] * self.world
        torch.distributed.all_gather_object(values, value)  # pickled, as in `share`
        return values

    def rows(self, own: Mapping[int, Value]) -> list[Value]:
        """The values of all ranks' rows, in the order of the row numbers, on every rank.

        `own` maps the numbers of this rank's rows to their values.
        """
        values = {row: value for part in self.gather(own) for row, value in part.items()}
        return [values[row] for row in sorted(values)]

    def commit(
        self,
        folder: Path,
        result: Result,
        kinds: Mapping[str, Kind] | None = None,
        rows: Rows | None = None,
    ) -> None:
        """Upload a folder and the curves, create the manifest and delete the task's checkpoints.

        Rank 0 does this while the others wait. `kinds` maps file names to kinds; the default is `model`. Raises
        InputError if a file from outside the store changed while the stage ran.
        """
        if self.rank == 0:
            (folder / "metrics.jsonl").write_bytes(self.curves.dump())
            known = {"metrics.jsonl": Kind.METRICS, **(kinds or {})}
            files = [
                File(
                    path=self.attempt.path(path.relative_to(folder).as_posix()),
                    kind=known.get(path.name, Kind.MODEL),
                    bytes=path.stat().st_size,
                    sha256=file_digest(path),
                    rows=len(self.curves.points) if path.name == "metrics.jsonl" else 0,
                )
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            ]
            self.store.upload(folder, f"{self.attempt.prefix}/{self.attempt.id}")
            self.run.check_inputs(self.task)  # again, because a file may have changed while it was read
            self.attempt.commit(files, rows, result)
            clear_checkpoints(self.store, self.task)
        self.barrier()

    def fresh(self, name: str) -> Path:
        """An empty folder in the scratch folder."""
        folder = self.workdir / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def scratch_base() -> Path:
    """The parent of all scratch folders of this machine.

    Users may share the folder that GRISTMILL_SCRATCH names; the folders in it are private.
    """
    shared = os.environ.get("GRISTMILL_SCRATCH")
    if not shared:
        return private_folder(Path(tempfile.gettempdir(), f"gristmill-{getpass.getuser()}"))
    Path(shared).mkdir(parents=True, exist_ok=True)
    return Path(shared)


def checkpoint_prefixes(store: Store, task: Task) -> list[str]:
    """The folders of the task's checkpoints, newest first: committed ones, uncommitted ones and those set aside."""
    base = f"{task.stage}/{task.fingerprint}"
    return [f"{base}/{name}" for name in sorted(store.folders(base), reverse=True) if STEP.fullmatch(name)]


def clear_checkpoints(store: Store, task: Task) -> None:
    """Delete the checkpoints of a finished task, also if it was killed right after its commit."""
    for prefix in checkpoint_prefixes(store, task):
        store.delete(f"{prefix}/manifest.json")  # first, so that no manifest lists files that are gone
        store.delete(prefix)
