"""While a stage runs, its curves are shown to whoever watches: in the store, and in W&B and MLflow if they are set up.

Threads of rank 0 do it every few seconds, one for each that watches, so no step waits for it. Whatever fails or hangs
there is said once and ends no training. What it writes to the store is no part of the result: numbered files that are
removed when the task is done.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from contract.errors import GristmillError
from contract.fetch import warn
from contract.live import ALL_STEPS, EVERY, LEFT_S, curves_name, points_name
from contract.masking import masked_words
from contract.metrics import GROWTH, SLOWEST_S, Point, charted, dump_points
from contract.printable import printable
from contract.thinning import Thinner, dump_curves
from training.engine.events import event_name, write_events
from training.engine.job import Job

EVERY_S = 3.0
PACE = 20  # of the newest files, over which the pace of the steps is taken
END_S = 30.0  # from the end of a stage's work, for all that its watchers still do


class Watcher(Protocol):
    """Somebody to whom points are shown, in the order of steps."""

    def add(self, points: Sequence[Point]) -> None: ...

    def close(self) -> None: ...


class StoreWatcher:
    """Writes points as numbered files below the attempt: JSON lines, and the same for TensorBoard.

    Now and then it also writes all curves so far, thinned (see `contract.live`).
    """

    def __init__(self, job: Job) -> None:
        self._job, self._number = job, 0
        self._folder, self._thinner = job.scratch.fresh("live"), Thinner()
        self._newest: deque[Point] = deque(maxlen=PACE)  # of each file

    def add(self, points: Sequence[Point]) -> None:
        store, number = self._job.store, self._number
        points = [*points, *self._progress(points[-1])]
        self._thinner.add(points)
        if number % EVERY == EVERY - 1:
            store.write_bytes(self._job.attempt.path(curves_name(number)), dump_curves(self._thinner.curves()))
        store.write_bytes(self._job.attempt.path(points_name(number)), dump_points(points))
        self._number += 1
        local = self._folder / event_name(number)
        write_events(local, [point for point in points if point.name not in (ALL_STEPS, LEFT_S)])
        store.write_bytes(self._job.attempt.path(f"live/{local.name}"), local.read_bytes())
        local.unlink()

    def _progress(self, last: Point) -> Iterator[Point]:
        """All steps of the stage, and the seconds that the steps after `last` take at the pace of the newest files."""
        steps = self._job.curves.steps
        if steps is None:
            return
        yield Point(last.step, ALL_STEPS, float(steps), last.time)
        self._newest.append(last)
        first = self._newest[0]
        if last.step > first.step:
            pace = (last.time - first.time) / (last.step - first.step)
            yield Point(last.step, LEFT_S, (steps - last.step) * pace, last.time)

    def close(self) -> None:
        self._job.store.delete(self._job.attempt.path("live"))


class WandbWatcher:
    """Logs to Weights & Biases, as one run per task: a task that resumes goes on in its run, after what that has."""

    def __init__(self, job: Job) -> None:
        wandb = importlib.import_module("wandb")

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "gristmill"),
            id=f"{job.task.stage}-{job.task.fingerprint}",
            name=f"{job.task.stage} {job.task.fingerprint[:12]}",
            resume="allow",
            config=dict(job.task.identity.settings),
        )
        self._first = int(self._run.step) if self._run.resumed else 0

    def add(self, points: Sequence[Point]) -> None:
        for step, values in by_step(points).items():
            if step >= self._first:
                self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


class MlflowWatcher:
    """Logs to the MLflow server that MLFLOW_TRACKING_URI names, as one run per attempt, which has the whole curves.

    MLflow drops a value that it gets twice, so a batch that failed half way is sent again as it is.
    """

    def __init__(self, job: Job) -> None:
        mlflow = importlib.import_module("mlflow")
        self._metric = importlib.import_module("mlflow.entities").Metric

        self._mlflow, self._client = mlflow, mlflow.MlflowClient()
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "gristmill"))
        run = mlflow.start_run(run_name=f"{job.task.stage} {job.task.fingerprint[:12]}")
        self._id: str = run.info.run_id
        mlflow.log_params({key: str(value)[:500] for key, value in job.task.identity.settings.items()})

    def add(self, points: Sequence[Point]) -> None:
        metrics = [
            self._metric(mlflow_name(one.name), one.value, int(one.time * 1000), one.step) for one in charted(points)
        ]
        for start in range(0, len(metrics), MLFLOW_BATCH):
            self._send(metrics[start : start + MLFLOW_BATCH])

    def _send(self, metrics: Sequence[Any]) -> None:
        """Send a batch; of one that the server refuses, leave out the values that are to blame, and say so."""
        try:
            self._client.log_batch(self._id, metrics=metrics)
        except Exception as error:
            if getattr(error, "error_code", None) not in REFUSED:
                raise
            if len(metrics) == 1:
                left_out = f"{metrics[0].key} of step {metrics[0].step}"
                warn(printable(masked_words(f"MLflow refuses {left_out}, which is left out ({error})")))
                return
            half = len(metrics) // 2
            self._send(metrics[:half])
            self._send(metrics[half:])

    def close(self) -> None:
        self._mlflow.end_run()


MLFLOW_BATCH = 1000  # values that its API takes at once
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""What MLflow's errors say of values that it will not take, whenever they are sent."""


def mlflow_name(name: str) -> str:
    """The name of a curve as MLflow takes it; names of sources may have any character.

    A changed name ends in a digest of its own, so that two curves never become one.
    """
    kind, slash, source = name.partition("/")
    clean = kind + slash + re.sub(r"[^\w. -]|^[.]+$", "_", source, flags=re.ASCII)[:200]
    return clean if clean == name else f"{clean}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


OTHERS: Mapping[str, tuple[str, Callable[[Job], Watcher]]] = {
    "wandb": ("WANDB_API_KEY", WandbWatcher),
    "mlflow": ("MLFLOW_TRACKING_URI", MlflowWatcher),
}
"""Package -> (the environment variable that says that it is wanted, its watcher)."""


def by_step(points: Sequence[Point]) -> dict[int, dict[str, float]]:
    """Step -> name -> value, in the order of steps, of the points that a chart can show."""
    steps: dict[int, dict[str, float]] = {}
    for point in sorted(charted(points), key=lambda one: one.step):
        steps.setdefault(point.step, {})[point.name] = point.value
    return steps


class Watch:
    """Shows a job's new points to one watcher every few seconds; the longer it runs, the more seldom.

    It has a thread of its own, in which the watcher is also made: a service that hangs holds up nobody else.
    """

    def __init__(self, job: Job, name: str, make: Callable[[Job], Watcher], every_s: float = EVERY_S) -> None:
        self._job, self._name, self._make, self._every_s = job, name, make, every_s
        self._shown = 0  # points
        self._failing = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Let the watcher show what is left, and close."""
        self._ended.set()

    def wait(self, seconds: float) -> None:
        """Wait for its end, so long and no longer: what it has not shown by then is not shown, and that is said."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            warn(f"{self._name} does not answer; the stage ends without it, its curves may lack the last points")

    def _run(self) -> None:
        watcher: Watcher | None = None
        with self._said():
            watcher = self._make(self._job)
        if watcher is None:
            return
        passed = 0.0
        while not self._ended.wait(pause := max(self._every_s, min(SLOWEST_S, GROWTH * passed))):
            passed += pause
            self._show(watcher)
        self._show(watcher)
        with self._said():
            watcher.close()

    def _show(self, watcher: Watcher) -> None:
        """Show the points that it has not seen; where that fails, they are shown the next time."""
        points = self._job.curves.points[self._shown :]
        if points:
            with self._said():
                watcher.add(points)
                self._shown += len(points)
                self._failing = False

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Report an error, and only the first of several in a row. Libraries of others raise anything."""
        try:
            yield
        except Exception as error:  # nobody's training ends for a curve
            if not self._failing:
                said = error if isinstance(error, GristmillError) else f"{type(error).__name__}: {error}"
                warn(printable(masked_words(f"the curves cannot be shown in {self._name} ({said})")))
            self._failing = True


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
    watches = [Watch(job, name, make) for name, make in wanted().items()]
    for watch in watches:
        watch.start()
    try:
        yield
    finally:
        for watch in watches:
            watch.end()
        until = time.monotonic() + END_S
        for watch in watches:
            watch.wait(until - time.monotonic())
