"""The page "Manifest": what a task has committed, in tables."""

from typing import Annotated

from fastapi import Path

from contract.stages import STAGES
from reports import manifests
from reports.cockpit.page import Answer, Ask, Name, Page
from reports.cockpit.visitor import Refused

page = Page("manifest", "")
Index = Annotated[int, Path(ge=0, le=1_000_000)]


@page.get("/{dag_id}/{run_id}/{task_id}")
def whole(ask: Ask, dag_id: Name, run_id: Name, task_id: Name) -> Answer:
    return _show(ask, dag_id, run_id, task_id, -1)


@page.get("/{dag_id}/{run_id}/{task_id}/{map_index}")
def mapped(ask: Ask, dag_id: Name, run_id: Name, task_id: Name, map_index: Index) -> Answer:
    return _show(ask, dag_id, run_id, task_id, map_index)


def _show(ask: Ask, dag_id: str, run_id: str, task_id: str, map_index: int) -> Answer:
    run = ask.run(dag_id, run_id)
    of_variant = dag_id == "ablate" and map_index >= 0  # its mapped tasks are of other runs
    task = None if of_variant else manifests.task_of(run, dag_id, task_id, map_index)
    if task is None:
        raise Refused(404, _unknown(task_id, map_index, of_variant))
    found = manifests.shown(run, task, dag_id)
    return ask.show("manifest.html", dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index, found=found)


def _unknown(task_id: str, map_index: int, of_variant: bool) -> str:
    """Why there is no manifest to look for."""
    if of_variant:
        return f"{task_id} {map_index} belongs to a variant of this run. The task's log names its manifest."
    stage = task_id.rpartition(".")[2]
    if stage not in STAGES:
        return f"The task {task_id} is no stage, so it leaves no manifest."
    if STAGES[stage].scope == "corpus":
        return f"{stage} runs once over the whole corpus; there is no {stage} {map_index}."
    each = "segment of the crawl" if STAGES[stage].scope == "snapshot" else "model and benchmark"
    return f"{stage} runs once for each {each}. Open the manifest from one of its mapped tasks."
