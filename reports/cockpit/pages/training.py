"""The page "Training": the curves of a training task, live while it runs, and the gate's decision."""

import datetime
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field

from contract import ablation
from contract.live import Seen
from contract.manifest import Manifest
from contract.plan import Run
from reports import ablation as comparison
from reports import curves, gate, models
from reports.cockpit.download import FileName, attached
from reports.cockpit.page import Answer, Ask, Asked, Asking, InQuery, Name, Page
from reports.cockpit.rendering import duration
from reports.cockpit.visitor import Refused, opened
from reports.older import older

page = Page("training", "Training")

TRAIN = ("pretrain", "align", "ablate")  # DAGs
RUNS = 100  # the newest, in the list to compare with
REPORT_CHARS = 100_000
NEXT_S = {"running": 4, "silent": 30, "stopped": 30, "waiting": 15, "done": None}
"""Seconds until the page asks again, by the state of the task; None: never."""
SAID = {
    "running": "Running. The charts show new points as they come.",
    "silent": "No new points for ten minutes or more: the task may have been stopped.",
    "stopped": "Not running now. These are the curves up to the newest checkpoint. The task goes on from there when it "
    "is started again.",
    "waiting": "No points yet.",
    "done": "Done.",
}


class Which(Asked):
    """Which model of an ablation is meant, as `variant.seed`; empty: the first one, or the run's own."""

    variant: str = Field(default="", max_length=200)


class Since(Which):
    """How far the page has read a running task: an attempt and the number of its last file."""

    attempt: str = Field("", max_length=60, pattern=r"^(attempt-[0-9a-z]+)?$")
    number: int = Field(-1, ge=-1, le=10**9)

    @property
    def seen(self) -> Seen | None:
        return Seen(self.attempt, self.number) if self.attempt else None


@page.get("")
def newest(ask: Ask) -> Answer:
    """The newest run of a DAG that trains, or else the newest one."""
    runs = ask.runs(RUNS)
    if not runs:
        raise Refused(404, "There is no run yet. Start one of the DAGs, and its curves appear here.")
    first = next((one for one in runs if one.dag_id in TRAIN), runs[0])
    return of_run(ask, first.dag_id, first.run_id)


@page.get("/{dag_id}/{run_id}")
def of_run(ask: Ask, dag_id: Name, run_id: Name) -> Answer:
    """The task of a run that trains now, or else the last one that has curves."""
    tasks = curves.states(_variant(ask, dag_id, run_id, "")[0])
    return _shown(ask, dag_id, run_id, curves.stage_to_show(tasks) or curves.STAGES_SHOWN[0], Which(), tasks)


@page.get("/{dag_id}/{run_id}/ablate")
def compared(ask: Ask, dag_id: Name, run_id: Name) -> Answer:
    """What the ablation of a run has found."""
    base = ask.run(dag_id, run_id)
    text = comparison.report(_opened(base, ablation.COMPARISON))[:REPORT_CHARS]
    return ask.show("comparison.html", dag_id=dag_id, run_id=run_id, text=text)


@page.get("/{dag_id}/{run_id}/{task_id}")
def show(ask: Ask, dag_id: Name, run_id: Name, task_id: Name, which: Annotated[Which, InQuery()]) -> Answer:
    return _shown(ask, dag_id, run_id, task_id, which)


def _shown(
    ask: Ask, dag_id: str, run_id: str, task_id: str, which: Which, tasks: Sequence[curves.Shown] = ()
) -> Answer:
    """The page of a task. tasks: the states of the run's tasks, if they are known."""
    stage = _stage(task_id)
    run, variant = _variant(ask, dag_id, run_id, which.variant)
    if stage is None:
        label = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id[:250], "stage": "", "variant": variant or None}
        return ask.show("no_curves.html", tasks=curves.states(run), variants=[], **label)
    variants = ablation.labels(ask.run(dag_id, run_id).recipe) if variant else []
    known: dict[str, Any] = {
        "dag_id": dag_id,
        "run_id": run_id,
        "task_id": task_id,
        "stage": stage,
        "variant": variant or None,
        "variants": variants,
        "tasks": tasks or curves.states(run),
    }
    if stage == "gate":
        found = gate.view(run)
        pictures = {"interval": interval(found), "reliability": reliability(found), "rewards": rewards(found)}
        answered = ask.visitor.approval(dag_id, run_id) if run.recipe.gate.approval else ""
        asks = run.recipe.gate.approval
        return ask.show("gate.html", found=found, asks=asks, answered=answered, **pictures, **known)
    reading = curves.read(run, run.task(stage))
    return ask.show(
        "training.html",
        reading=reading,
        updated=reading.updated and datetime.datetime.fromtimestamp(reading.updated, datetime.UTC),
        said=said(ask, dag_id, run_id, run, stage, reading),
        far=far(reading),
        files=_of_curves(reading.made) if reading.made else [],
        lines=curves.table(reading.curves),
        marks=curves.marks(reading.curves),
        others=others(ask, dag_id, run_id, stage, variant, variants),
        **known,
    )


def others(
    ask: Ask, dag_id: str, run_id: str, stage: str, variant: str, variants: Sequence[str]
) -> list[tuple[str, str]]:
    """The runs to compare with, and first the other models of an ablation: (name, address of the points)."""
    own = [(one, ask.link("training", dag_id, run_id, stage, "points", variant=one)) for one in variants]
    runs = [
        (f"{one.dag_id} {one.run_id}", ask.link("training", one.dag_id, one.run_id, stage, "points"))
        for one in ask.runs(RUNS)
        if (one.dag_id, one.run_id) != (dag_id, run_id)
    ]
    return [*(one for one in own if one[0] != variant), *runs]


@page.get("/{dag_id}/{run_id}/{task_id}/points")
def points(ask: Ask, dag_id: Name, run_id: Name, task_id: Name, since: Annotated[Since, InQuery()]) -> Answer:
    """The points after those that the page has, and when to ask again."""
    stage = _stage(task_id)
    if stage in (None, "gate"):
        raise Refused(404, f"The task {task_id} has no curves.")
    run, _ = _variant(ask, dag_id, run_id, since.variant)
    found = curves.read(run, run.task(stage), since.seen)
    return {
        "state": found.state,
        "whole": found.whole,
        "attempt": found.seen.attempt if found.seen else "",
        "number": found.seen.number if found.seen else -1,
        "updated": found.updated,
        "said": said(ask, dag_id, run_id, run, stage, found),
        "far": far(found),
        "next_s": NEXT_S[found.state],
        "curves": {name: [one.steps, one.values] for name, one in found.curves.items() if name not in curves.HIDDEN},
        "charts": [vars(one) for one in curves.charts(found.curves)],
        "marks": [vars(one) for one in curves.marks(found.curves)],
    }


@page.get("/{dag_id}/{run_id}/{task_id}/files/{name}")
def download(
    ask: Ask, dag_id: Name, run_id: Name, task_id: Name, name: FileName, which: Annotated[Which, InQuery()]
) -> Answer:
    """A file of a task's curves, by its name in the manifest."""
    stage = _stage(task_id)
    if stage in (None, "gate"):
        raise Refused(404, f"The task {task_id} has no curves.")
    run, _ = _variant(ask, dag_id, run_id, which.variant)
    return attached(ask, run.store, _of_curves(models.committed(run, stage)), name)


def _of_curves(made: Manifest) -> list[models.Download]:
    """The files of a task's curves."""
    return [one for one in models.downloads(made) if one.kind in models.CURVES]


def said(ask: Asking, dag_id: str, run_id: str, run: Run, stage: str, reading: curves.Reading) -> str:
    """What a task does now, in a sentence or two."""
    if reading.problem:
        return reading.problem
    if reading.state not in ("waiting", "stopped"):
        return SAID[reading.state]
    states = [one for one in ask.visitor.tasks(dag_id, run_id) if one.stage == stage]
    if waits := next((one.waits for one in states if one.waits), ""):
        return f"{SAID[reading.state]} The task waits for {waits}."
    if any(one.state == "running" for one in states):
        return "The task runs. It has shown no points yet."
    before = older(run).get(stage) if reading.state == "waiting" else None
    return f"{SAID[reading.state]} {before.said[:1].upper()}{before.said[1:]}." if before else SAID[reading.state]


def far(reading: curves.Reading) -> str:
    """How far a running task is, as a sentence; empty if it does not run, or if there are no new points to say so."""
    found = curves.progress(reading.curves) if reading.state in ("running", "silent") else None
    if found is None:
        return ""
    of = f" of {found.of:,}" if found.of is not None else ""
    left = f", about {duration(found.left_s)} left" if found.left_s is not None and found.left_s >= 1 else ""
    return f"Step {found.step:,}{of}{left}."


def _stage(task_id: str) -> str | None:
    """The stage of a task, whose id may begin with a group's; None if it has no curves and no gate."""
    stage = task_id.rpartition(".")[2]
    return stage if stage in curves.STAGES_SHOWN else None


def _variant(ask: Ask, dag_id: str, run_id: str, label: str) -> tuple[Run, str]:
    """The run whose models are meant, and its label: the DAG run's own, or that of one model of its ablation.

    Raises Refused if there is no such model.
    """
    run = ask.run(dag_id, run_id)
    labels = ablation.labels(run.recipe)
    if label and label not in labels:
        raise Refused(404, f"The run {run_id} has no model {label}.")
    first = labels[0] if labels and (dag_id == "ablate" or label) else ""
    return (_opened(run, label or first), label or first) if first else (run, "")


def _opened(base: Run, label: str) -> Run:
    path = f"runs/{ablation.name_of(base, label)}/recipe.yaml"
    if not base.store.exists(path):
        raise Refused(404, "The runs of this ablation's variants are not there yet; its first task makes them.")
    return opened(base.store.full(path))


def interval(found: gate.View) -> dict[str, Any] | None:
    """The accuracy with its interval and the threshold as Plotly's figure; None before the gate has decided."""
    decision = found.decision
    if decision is None:
        return None
    ends = {"array": [decision.high - decision.accuracy], "arrayminus": [decision.accuracy - decision.low]}
    accuracy = {
        "type": "scatter",
        "mode": "markers",
        "name": "accuracy",
        "x": [decision.accuracy],
        "y": [0],
        "marker": {"size": 12},
        "error_x": {"type": "data", "symmetric": False, **ends, "thickness": 3, "width": 12},
    }
    threshold = {
        "type": "scatter",
        "mode": "lines",
        "name": "threshold",
        "x": [decision.threshold] * 2,
        "y": [-1, 1],
        "line": {"dash": "dash"},
    }
    low = min(0.5, decision.low, decision.threshold) - 0.02
    axes = {"xaxis": {"tickformat": ".0%", "range": [max(0, low), 1.02]}, "yaxis": {"visible": False}}
    return {"data": [accuracy, threshold], "layout": {**axes, "height": 180}}


def reliability(found: gate.View) -> dict[str, Any] | None:
    """The reliability diagram as Plotly's figure; None if the reward model has no calibration."""
    if found.calibration is None:
        return None
    bins = found.calibration.bins
    most = max((one.pairs for one in bins), default=1)
    right = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "share ranked right",
        "x": [one.confidence for one in bins],
        "y": [one.right for one in bins],
        "marker": {"size": [6 + 24 * math.sqrt(one.pairs / most) for one in bins]},
        "customdata": [one.pairs for one in bins],
        "hovertemplate": "%{y:.1%} of %{customdata} pairs",
    }
    sure = {
        "type": "scatter",
        "mode": "lines",
        "name": "calibrated",
        "x": [0.5, 1.0],
        "y": [0.5, 1.0],
        "line": {"dash": "dash"},
    }
    axes = {
        "xaxis": {"tickformat": ".0%", "range": [0.49, 1.01], "title": {"text": "probability given to the ranking"}},
        "yaxis": {"tickformat": ".0%", "range": [-0.05, 1.05], "title": {"text": "share ranked right"}},
    }
    return {"data": [right, sure], "layout": axes}


def rewards(found: gate.View) -> dict[str, Any] | None:
    """The rewards of better and worse replies as Plotly's histograms; None if there are none."""
    drawn = found.calibration.histograms if found.calibration else gate.Histograms()
    middles = [(low + high) / 2 for low, high in pairwise(drawn.edges)]
    if not middles or {len(drawn.better), len(drawn.worse)} != {len(middles)}:
        return None
    bars = [
        {"type": "bar", "name": name, "x": middles, "y": counts, "opacity": 0.6}
        for name, counts in (("preferred by people", drawn.better), ("the other", drawn.worse))
    ]
    axes = {"xaxis": {"title": {"text": "reward before normalisation"}}, "yaxis": {"title": {"text": "replies"}}}
    return {"data": bars, "layout": {**axes, "barmode": "overlay", "bargap": 0}}
