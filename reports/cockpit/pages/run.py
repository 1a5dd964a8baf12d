"""The page "Run": what became of the documents and models of a run, beside another run if one is chosen."""

from typing import Annotated, Any

from pydantic import Field

from contract.stages import STAGES
from reports import refinedweb
from reports import run as report
from reports.cockpit.page import Answer, Ask, Asked, InQuery, Name, Page
from reports.cockpit.visitor import Refused, TaskState, in_store
from reports.older import notice

page = Page("run", "Run")
CHOICE = 100  # newest runs to choose from
REASONS = 15  # most frequent ones in the chart; the table has all


class Wanted(Asked):
    """other: DAG id and run id of the run beside this one, with a slash between. variant: of an ablation."""

    other: str = Field(default="", max_length=501, pattern=r"^([\w.~:+@ -]+/[\w.~:+@ -]+)?$")
    variant: str = Field(default="", max_length=200)


@page.get("")
def newest(ask: Ask) -> Answer:
    """The newest run that the visitor may read."""
    for listed in ask.runs(1):
        return show(ask, listed.dag_id, listed.run_id, Wanted())
    raise Refused(404, "There is no run yet. Start one of the DAGs, and its figures appear here.")


@page.get("/{dag_id}/{run_id}")
def show(ask: Ask, dag_id: Name, run_id: Name, wanted: Annotated[Wanted, InQuery()]) -> Answer:
    run = ask.run(dag_id, run_id)
    variants = report.variants(run)
    if wanted.variant:
        if wanted.variant not in variants:
            raise Refused(404, "The recipe names no such variant.")
        run = in_store(run.store, variants[wanted.variant])
    here = report.overview(run)
    there = None
    if wanted.other:
        there = report.overview(ask.run(*wanted.other.split("/")))
    states: dict[str, list[TaskState]] = {}
    for one in ask.visitor.tasks(dag_id, run_id):
        states.setdefault(one.stage, []).append(one)
    found = (one for stage in STAGES for one in states.get(stage, ()))
    related = [*dict.fromkeys((one.dag_id, one.run_id) for one in found)]  # in the order of the pipeline
    others = [one for one in ask.runs(CHOICE) if (one.dag_id, one.run_id) not in related]  # those have this recipe
    return ask.show(
        "run.html",
        dag_id=dag_id,
        run_id=run_id,
        here=here,
        there=there,
        compared=report.compare(here, there) if there else None,
        funnel=funnel(here, there),
        reasons=reasons(here),
        runs=others,
        states=states,
        related=related,
        wanted=wanted,
        variants=list(variants),
        older=notice(here.older),
    )


@page.get("/{dag_id}/{run_id}/recipe")
def recipe(ask: Ask, dag_id: Name, run_id: Name) -> Answer:
    """The whole recipe of a run."""
    found = ask.run(dag_id, run_id).recipe
    return ask.show("recipe.html", name=found.name, settings=list(report.settings(found)))


def funnel(here: report.Overview, there: report.Overview | None) -> dict[str, Any]:
    """The share of documents that is left after each step as bars; RefinedWeb's, and the other run's, beside it."""
    data: list[dict[str, Any]] = [_bars(here, "this run")]
    if there:
        data.append(_bars(there, "the other run"))
    steps = {step.name: step for one in (there, here) if one for step in one.steps}
    published = [step for step in steps.values() if step.published is not None]
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "RefinedWeb",
            "marker": {"symbol": "diamond", "size": 9, "line": {"width": 1}},
            "y": [step.name for step in published],
            "x": [(step.published or 0) / 100 for step in published],
            "hovertemplate": "%{y}: %{x:.1%} left in RefinedWeb<extra></extra>",
        }
    )
    axes = {
        "xaxis": {"tickformat": ".0%", "range": [0, 1.02], "fixedrange": True},
        "yaxis": {"autorange": "reversed", "fixedrange": True, "categoryorder": "array", "categoryarray": [*steps]},
    }
    height = 120 + (44 if there else 34) * len(steps)
    return {"data": data, "layout": {**axes, "barmode": "group", "height": height}}


def _bars(found: report.Overview, name: str) -> dict[str, Any]:
    why = {level.stage: level.reasons.most_common(5) for level in found.levels}
    hover = [
        f"{step.kept:,} documents left"
        + "".join(f"<br>{reason} {count:,}" for reason, count in why.get(step.stage, []) if _drops_in(step, reason))
        for step in found.steps
    ]
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [step.name for step in found.steps],
        "x": [step.share for step in found.steps],
        "hovertext": hover,
        "hovertemplate": "%{y}: %{x:.1%}<br>%{hovertext}<extra></extra>",
    }


def _drops_in(step: refinedweb.Step, reason: str) -> bool:
    """Whether a reason of the stage belongs to this step of it."""
    return step.stage != "filter" or refinedweb.step_of_reason(reason) == step.name


def reasons(found: report.Overview) -> dict[str, Any]:
    """The most frequent reasons of all stages as bars, in documents."""
    counts = sorted(
        ((count, f"{level.stage}: {reason}") for level in found.levels for reason, count in level.reasons.items()),
        reverse=True,
    )[:REASONS]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [name for _, name in counts],
        "x": [count for count, _ in counts],
        "text": [f"{count:,}" for count, _ in counts],
        "hovertemplate": "%{y}: %{x:,} documents<extra></extra>",
    }
    axes = {"xaxis": {"title": {"text": "documents"}, "fixedrange": True}, "yaxis": {"autorange": "reversed"}}
    return {"data": [bars], "layout": {**axes, "height": 90 + 26 * len(counts)}}
