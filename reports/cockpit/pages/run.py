"""The page "Run": what became of the documents of a run."""

from typing import Any

from contract import funnel
from reports import run as report
from reports.cockpit.page import Answer, Ask, Name, Page
from reports.cockpit.visitor import Refused

page = Page("run", "Run")


@page.get("")
def newest(ask: Ask) -> Answer:
    """The newest run that the visitor may read."""
    for listed in ask.runs(1):
        return show(ask, listed.dag_id, listed.run_id)
    raise Refused(404, "There is no run yet. Start one of the DAGs, and its figures appear here.")


@page.get("/{dag_id}/{run_id}")
def show(ask: Ask, dag_id: Name, run_id: Name) -> Answer:
    found = report.overview(ask.run(dag_id, run_id))
    entered = {level.stage: funnel.entered(list(found.levels), level) for level in found.levels}
    return ask.show(
        "run.html", dag_id=dag_id, run_id=run_id, found=found, entered=entered, figure=figure(found), runs=ask.runs(100)
    )


def figure(found: report.Overview) -> dict[str, Any]:
    """The funnel as Plotly's bars: the share of documents that is left after each step, with RefinedWeb's beside it."""
    names = [step.name for step in found.steps]
    ours = {
        "type": "bar",
        "orientation": "h",
        "name": "this run",
        "y": names,
        "x": [step.share for step in found.steps],
    }
    theirs = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "RefinedWeb",
        "y": [step.name for step in found.steps if step.published is not None],
        "x": [step.published / 100 for step in found.steps if step.published is not None],
    }
    axes = {"xaxis": {"tickformat": ".0%", "range": [0, 1]}, "yaxis": {"autorange": "reversed", "automargin": True}}
    return {"data": [ours, theirs], "layout": axes}
