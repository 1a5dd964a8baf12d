"""The page "Training": the curves of a training task, live while it runs, and the gate's decision."""

import datetime
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field

from contract import ablation
from contract.live import Seen
from contract.plan import Run
from reports import ablation as comparison
from reports import curves, gate
from reports.cockpit.page import Answer, Ask, Asked, InQuery, Name, Page
from reports.cockpit.visitor import Refused, opened

page = Page("training", "Training")

TRAIN = ("pretrain", "align", "ablate")  # DAGs
RUNS = 100  # the newest, in the list to compare with
REPORT_CHARS = 100_000
NEXT_S = {"running": 4, "silent": 30, "stopped": 30, "waiting": 15, "done": None}
"""Seconds until the page asks again, by the state of the task; None: never."""
SAID = {
    "running": "Running; the charts follow.",
    "silent": "No new points for a long time: the task may have been stopped.",
    "stopped": "It does not run now. These are the curves of its newest checkpoint, from which it goes on.",
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
    stage = curves.stage_to_show(curves.states(_variant(ask, dag_id, run_id, "")[0]))
    return show(ask, dag_id, run_id, stage or curves.STAGES_SHOWN[0], Which())


@page.get("/{dag_id}/{run_id}/ablate")
def compared(ask: Ask, dag_id: Name, run_id: Name) -> Answer:
    """What the ablation of a run has found."""
    base = ask.run(dag_id, run_id)
    text = comparison.report(_opened(base, ablation.COMPARISON))[:REPORT_CHARS]
    return ask.show("comparison.html", dag_id=dag_id, run_id=run_id, text=text)


@page.get("/{dag_id}/{run_id}/{task_id}")
def show(ask: Ask, dag_id: Name, run_id: Name, task_id: Name, which: Annotated[Which, InQuery()]) -> Answer:
    stage = _stage(task_id)
    run, variant = _variant(ask, dag_id, run_id, which.variant)
    variants = ablation.labels(ask.run(dag_id, run_id).recipe) if variant else []
    known: dict[str, Any] = {
        "dag_id": dag_id,
        "run_id": run_id,
        "task_id": task_id,
        "stage": stage,
        "variant": variant or None,
        "variants": variants,
        "tasks": curves.states(run),
    }
    if stage == "gate":
        found = gate.view(run)
        pictures = {"interval": interval(found), "reliability": reliability(found), "rewards": rewards(found)}
        return ask.show("gate.html", found=found, asks=run.recipe.gate.approval, **pictures, **known)
    reading = curves.read(run, run.task(stage))
    return ask.show(
        "training.html",
        reading=reading,
        updated=reading.updated and datetime.datetime.fromtimestamp(reading.updated, datetime.UTC),
        said=reading.problem or SAID[reading.state],
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
    if stage == "gate":
        raise Refused(404, "The gate has no curves.")
    run, _ = _variant(ask, dag_id, run_id, since.variant)
    found = curves.read(run, run.task(stage), since.seen)
    return {
        "state": found.state,
        "whole": found.whole,
        "attempt": found.seen.attempt if found.seen else "",
        "number": found.seen.number if found.seen else -1,
        "updated": found.updated,
        "said": found.problem or SAID[found.state],
        "next_s": NEXT_S[found.state],
        "curves": {name: [one.steps, one.values] for name, one in found.curves.items()},
        "charts": [vars(one) for one in curves.charts(found.curves)],
        "marks": [vars(one) for one in curves.marks(found.curves)],
    }


def _stage(task_id: str) -> str:
    """The stage of a task, whose id may begin with a group's. Raises Refused if this page does not show it."""
    stage = task_id.rpartition(".")[2]
    if stage not in curves.STAGES_SHOWN:
        raise Refused(404, f"The task {task_id} has no curves; {', '.join(curves.STAGES_SHOWN)} have a page here.")
    return stage


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
        "name": "as sure as right",
        "x": [0.5, 1.0],
        "y": [0.5, 1.0],
        "line": {"dash": "dash"},
    }
    axes = {
        "xaxis": {"tickformat": ".0%", "range": [0.49, 1.01], "title": {"text": "how sure the model is"}},
        "yaxis": {"tickformat": ".0%", "range": [-0.05, 1.05], "title": {"text": "how often it is right"}},
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
