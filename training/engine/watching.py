"""While a stage runs, its curves are shown to whoever watches: in the store, and in W&B and MLflow if they are set up.

A thread of rank 0 does it every few seconds, so no step waits for it, and whatever fails there is said once and ends no
training. What it writes to the store is no part of the result: numbered files that are removed when the task is done.
"""

import contextlib
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from contract.errors import GristmillError
from contract.fetch import warn
from contract.masking import masked_words
from contract.metrics import GROWTH, SLOWEST_S, Point, dump_points
from contract.printable import printable
from training.engine.events import event_name, write_events
from training.engine.job import Job

EVERY_S = 3.0


class Watcher(Protocol):
    """Somebody to whom points are shown, in the order of steps."""

    def add(self, points: Sequence[Point]) -> None: ...

    def close(self) -> None: ...


class StoreWatcher:
    """Writes points as numbered files below the attempt: JSON lines, and the same for TensorBoard."""

    def __init__(self, job: Job) -> None:
        self._job, self._number = job, 0
        self._folder = job.scratch.fresh("live")

    def add(self, points: Sequence[Point]) -> None:
        store, number = self._job.store, self._number
        store.write_bytes(self._job.attempt.path(f"live/points-{number:06d}.jsonl"), dump_points(points))
        self._number += 1
        local = self._folder / event_name(number)
        write_events(local, points)
        store.write_bytes(self._job.attempt.path(f"live/{local.name}"), local.read_bytes())
        local.unlink()

    def close(self) -> None:
        self._job.store.delete(self._job.attempt.path("live"))


class WandbWatcher:
    """Logs to Weights & Biases, as one run per task: a task that resumes goes on in its run."""

    def __init__(self, job: Job) -> None:
        wandb = importlib.import_module("wandb")

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "gristmill"),
            id=f"{job.task.stage}-{job.task.fingerprint}",
            name=f"{job.task.stage} {job.task.fingerprint[:12]}",
            resume="allow",
            config=dict(job.task.identity.settings),
        )

    def add(self, points: Sequence[Point]) -> None:
        for step, values in by_step(points).items():
            self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class MlflowWatcher:
    """Logs to the MLflow server that MLFLOW_TRACKING_URI names, as one run per attempt."""

    def __init__(self, job: Job) -> None:
        mlflow = importlib.import_module("mlflow")

        self._mlflow = mlflow
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "gristmill"))
        mlflow.start_run(run_name=f"{job.task.stage} {job.task.fingerprint[:12]}")
        mlflow.log_params({key: str(value)[:500] for key, value in job.task.identity.settings.items()})

    def add(self, points: Sequence[Point]) -> None:
        for step, values in by_step(points).items():
            self._mlflow.log_metrics(values, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


OTHERS: Mapping[str, tuple[str, Callable[[Job], Watcher]]] = {
    "wandb": ("WANDB_API_KEY", WandbWatcher),
    "mlflow": ("MLFLOW_TRACKING_URI", MlflowWatcher),
}
"""Package -> (the environment variable that says that it is wanted, its watcher)."""


def by_step(points: Sequence[Point]) -> dict[int, dict[str, float]]:
    """Step -> name -> value."""
    steps: dict[int, dict[str, float]] = {}
    for point in points:
        steps.setdefault(point.step, {})[point.name] = point.value
    return steps


class Watch:
    """Shows a job's new points to every watcher every few seconds; the longer it runs, the more seldom."""

    def __init__(self, job: Job, watchers: Mapping[str, Callable[[Job], Watcher]], every_s: float = EVERY_S) -> None:
        self._job, self._makers, self._every_s = job, dict(watchers), every_s
        self._watchers: dict[str, Watcher] = {}
        self._shown: dict[str, int] = {}  # points, by watcher
        self._failing: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Show what is left, and let every watcher close."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        for name, make in self._makers.items():
            with self._said(name):
                self._watchers[name] = make(self._job)
        passed = 0.0
        while not self._ended.wait(pause := max(self._every_s, min(SLOWEST_S, GROWTH * passed))):
            passed += pause
            self._show()
        self._show()
        for name, watcher in self._watchers.items():
            with self._said(name):
                watcher.close()

    def _show(self) -> None:
        """Show each watcher the points that it has not seen; where that fails, they are shown the next time."""
        for name, watcher in self._watchers.items():
            points = self._job.curves.points[self._shown.get(name, 0) :]
            if points:
                with self._said(name):
                    watcher.add(points)
                    self._shown[name] = self._shown.get(name, 0) + len(points)
                    self._failing.discard(name)

    @contextlib.contextmanager
    def _said(self, name: str) -> Iterator[None]:
        """Report an error, and only the first of several in a row. Libraries of others raise anything."""
        try:
            yield
        except Exception as error:  # nobody's training ends for a curve
            if name not in self._failing:
                said = error if isinstance(error, GristmillError) else f"{type(error).__name__}: {error}"
                warn(printable(masked_words(f"the curves cannot be shown in {name} ({said})")))
            self._failing.add(name)


def wanted() -> dict[str, Callable[[Job], Watcher]]:
    """The store, and each other watcher whose package is installed and whose environment variable is set."""
    found: dict[str, Callable[[Job], Watcher]] = {"the store": StoreWatcher}
    for package, (variable, make) in OTHERS.items():
        if os.environ.get(variable) and importlib.util.find_spec(package) is not None:
            found[package] = make
    return found


@contextlib.contextmanager
def watched(job: Job) -> Iterator[None]:
    """Context for the work of a stage; only rank 0 shows its curves, because all ranks have the same."""
    if job.ranks.rank:
        yield
        return
    watch = Watch(job, wanted())
    watch.start()
    try:
        yield
    finally:
        watch.end()
