"""A Job gives a stage of the GPU plane its settings, its inputs, its ranks, its scratch folder, and its commit.

Every process of a stage holds a Job and calls the same methods in the same order; only rank 0 writes the result.
"""

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from contract.digest import file_digest
from contract.errors import GristmillError
from contract.job import StageJob
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, Rows, need
from contract.plan import Run, Task
from contract.results import Result
from contract.settings.training import Engine
from contract.store import Store
from contract.thinning import dump_curves, thin
from training.engine.behind import Behind
from training.engine.events import event_name, write_events
from training.engine.metrics import Curves
from training.engine.ranks import Ranks
from training.engine.scratch import Scratch

STEP = re.compile(r"step-[0-9]{8,}")
EVENTS = event_name(0)
GRACE = "GRISTMILL_GRACE_S"  # Airflow's side says here how long a stage may take to stop


@dataclass
class Job(StageJob):
    """One task of the GPU plane in one process. `ranks` joins it to the stage's other processes."""

    _run: Run
    task: Task
    attempt: Attempt
    ranks: Ranks = field(default_factory=Ranks)
    curves: Curves = field(default_factory=Curves)
    """The stage's curves so far, stored in every checkpoint and in the committed result."""
    behind: Behind = field(default_factory=Behind)
    """The upload of the newest checkpoint."""

    @property
    def grace_s(self) -> float | None:
        """Seconds from the request to stop until the process is killed; None if nobody said so."""
        said = os.environ.get(GRACE)
        return float(said) if said else None

    @property
    def run_uri(self) -> str:
        """The URI of the run's resolved recipe."""
        return self._run.uri

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The crawls that made the corpus."""
        return self._run.recipe.snapshots

    @cached_property
    def scratch(self) -> Scratch:
        """The attempt's folder on this machine; asked for once the attempt's id is the same on every rank."""
        return Scratch(self.store, self.task.stage, self.attempt.id, self.ranks.local_rank)

    def attempt_at(self, partition: str) -> Attempt:
        """A new attempt at a part of the task, such as `step-00000100`, the same on every rank."""
        attempt = Attempt(self._run, self.task, partition)
        attempt.id = self.ranks.share(attempt.id)
        return attempt

    def leading(self, attempt: Attempt) -> contextlib.AbstractContextManager[None]:
        """Context for the work of an attempt, on every rank.

        Rank 0 alone protects the attempt from `gc`, and deletes its files if it fails.
        """
        return attempt.running() if self.ranks.rank == 0 else contextlib.nullcontext()

    def manifest(self, stage: str) -> Manifest:
        """The manifest of an input stage; raises NotReadyError if it is missing."""
        own, *_ = self.task.read(stage)  # others are those of earlier rounds
        return need(self.store, own)

    def files(self, stage: str, *kinds: Kind) -> list[File]:
        """The files of these kinds that an input stage committed; raises GristmillError if there is none."""
        manifest = self.manifest(stage)
        files = manifest.of(*kinds)
        if not files:
            raise GristmillError(
                f"{self.store.full(manifest.path)} lists no file of kind {' or '.join(kinds)}; run {stage} again"
            )
        return files

    def commit(
        self,
        folder: Path,
        result: Result,
        kinds: Mapping[str, Kind] | None = None,
        rows: Rows | None = None,
    ) -> None:
        """Upload a folder and the curves, create the manifest and delete the checkpoints that are not to be kept.

        Rank 0 does this while the others wait; the upload of the last checkpoint ends first. `kinds` maps file names to
        kinds; the default is `model`. Raises InputError if a file from outside the store changed while the stage ran.
        """
        self.behind.wait()
        self.curves.read(self.ranks)
        if self.ranks.rank == 0:
            (folder / "metrics.jsonl").write_bytes(self.curves.dump())
            known = {"metrics.jsonl": Kind.METRICS, "curves.json": Kind.CURVES, EVENTS: Kind.EVENTS, **(kinds or {})}
            if self.curves.points:
                write_events(folder / EVENTS, self.curves.points)
                (folder / "curves.json").write_bytes(dump_curves(thin(self.curves.points)))
            files = [
                File(
                    path=self.attempt.path(path.relative_to(folder).as_posix()),
                    kind=known.get(path.name, Kind.MODEL),
                    bytes=path.stat().st_size,
                    sha256=file_digest(path),
                    rows=len(self.curves.points) if path.name == "metrics.jsonl" else _rows(path),
                )
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            ]
            self.store.upload(folder, f"{self.attempt.prefix}/{self.attempt.id}")
            self._run.check_inputs(self.task)  # again, because a file may have changed while it was read
            made = self.attempt.commit(files, rows, result)
            settle_checkpoints(self.store, self.task, made, getattr(self.settings, "engine", None))
        self.ranks.barrier()


def _rows(path: Path) -> int:
    """The rows of a table; 0 of any other file."""
    if path.suffix != ".parquet":
        return 0
    import pyarrow.parquet as pq

    rows: int = pq.read_metadata(path).num_rows
    return rows


def checkpoint_prefixes(store: Store, stage: str, fingerprint: str) -> list[str]:
    """The folders of a task's checkpoints, newest first: committed ones, uncommitted ones and those set aside."""
    base = f"{stage}/{fingerprint}"
    return [f"{base}/{name}" for name in sorted(store.folders(base), reverse=True) if STEP.fullmatch(name)]


def kept_steps(steps: Sequence[int], newest: int, every: int | None, best: int | None) -> set[int]:
    """Of the steps of a task's checkpoints, those that stay.

    They are the `newest`, the multiples of `every`, and the one with the best model.
    """
    return {
        *sorted(steps)[len(steps) - min(newest, len(steps)) :],
        *(step for step in steps if every and step % every == 0),
        *(step for step in steps if step == best),
    }


def settle_checkpoints(store: Store, task: Task, done: Manifest, engine: Engine | None) -> None:
    """Delete the checkpoints of a finished task that its settings do not keep, also if it was killed at its commit.

    A checkpoint stays as the best one if the result, whose manifest is `done`, names it. Stages without an engine make
    no checkpoints.
    """
    if engine is None:
        return
    prefixes = checkpoint_prefixes(store, task.stage, task.fingerprint)
    found = {int(prefix.rpartition("/step-")[2]): prefix for prefix in prefixes}
    whole = [step for step, prefix in found.items() if store.exists(f"{prefix}/manifest.json")]
    best = done.metrics.get("best_step")
    stay = kept_steps(whole, engine.keep_last, engine.keep_every, best if isinstance(best, int) else None)
    for step in found.keys() - stay:
        store.delete(f"{found[step]}/manifest.json")  # first, so that no manifest lists files that are gone
        store.delete(found[step])
