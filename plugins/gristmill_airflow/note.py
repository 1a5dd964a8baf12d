"""Writes a run's note, which the web UI shows beside the run's name: its recipe, crawl and source, then its result.

A task cannot write notes, because Airflow's task SDK has no call for that. But it can publish asset events; for each,
Airflow calls this listener in the API server after the event is stored. The second line is written when the run ends,
by the scheduler, in its own transaction and from Airflow's database alone.
"""

import re
from collections import defaultdict
from typing import Any

from airflow.listeners import hookimpl

from gristmill_airflow.assets import RESOLVED
from gristmill_airflow.result import FIGURES, READ, SUMMARY, TOLD, failure, result, unpacked

USES = "uses "
OURS = re.compile(USES + r"(run|recipe) [^,]+, (crawl .+|the newest crawl) of ")
"""The start of a note's first line if `params.uses` made that line."""
RESULT = "result: "  # begins the second line
MAX_CHARS = 1000  # of a note, in Airflow's database


def noted(note: str | None, line: str) -> str:
    """The note with `line` as its first line, in place of an earlier try's line; a person's own text stays below it."""
    lines = (note or "").splitlines()
    others = "\n".join(lines[1:] if lines and OURS.match(lines[0]) else lines)
    if not others:
        return line[:MAX_CHARS]
    return f"{line[: max(0, MAX_CHARS - len(others) - 1)]}\n{others}".strip()


def with_result(note: str, said: str) -> str:
    """A note of ours with its result as the second line, in place of an earlier try's; without one if `said` is empty.

    A person's own text stays below it.
    """
    ours, *others = note.splitlines()
    if others and others[0].startswith(RESULT):
        others = others[1:]
    room = MAX_CHARS - len("\n".join([ours, *others])) - 1
    told = [f"{RESULT}{said}"[:room].rstrip()] if said and room > len(RESULT) else []
    return "\n".join([ours, *told, *others])


@hookimpl
def on_asset_event_emitted(asset_event: Any) -> None:
    if asset_event.asset.name != RESOLVED.name or not asset_event.source_run_id:
        return
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    wanted = select(DagRun).where(
        DagRun.dag_id == asset_event.source_dag_id, DagRun.run_id == asset_event.source_run_id
    )
    with create_session() as session:
        run = session.scalar(wanted)
        if run is not None:
            run.note = noted(run.note, asset_event.extra["uses"])


@hookimpl
def on_dag_run_running(dag_run: Any, msg: str) -> None:
    """Take away the result of an earlier try: the run goes on."""
    if _is_ours(dag_run) and RESULT in dag_run.note:
        dag_run.note = with_result(dag_run.note, "")


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    if _is_ours(dag_run):
        _tell(dag_run, _made(dag_run))


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    if _is_ours(dag_run):
        _tell(dag_run, failure(_failed(dag_run)))


def _is_ours(dag_run: Any) -> bool:
    """Whether a task of ours wrote the note. Airflow calls the listeners for the runs of every DAG."""
    return bool(dag_run.note and OURS.match(dag_run.note))


def _tell(dag_run: Any, said: str) -> None:
    """Write the second line. The caller's transaction commits it."""
    if said:
        dag_run.note = with_result(dag_run.note, said)


def _made(dag_run: Any) -> str:
    """The result of a run, from its tasks' XComs."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import and_, or_, select
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None:
        return ""
    wanted = or_(
        and_(XComModel.key == FIGURES, XComModel.task_id.in_(READ)),
        and_(XComModel.key == SUMMARY, XComModel.task_id.in_(TOLD)),
    )
    rows = session.execute(
        select(XComModel.task_id, XComModel.key, XComModel.value).where(
            XComModel.dag_id == dag_run.dag_id, XComModel.run_id == dag_run.run_id, wanted
        )
    ).all()
    figures: dict[str, list[Any]] = defaultdict(list)
    for task, key, value in rows:
        if key == FIGURES:
            figures[READ[task]].append(unpacked(value))
    summaries = {task: str(unpacked(value)) for task, key, value in rows if key == SUMMARY}
    return result(dag_run.dag_id, summaries, figures)


def _failed(dag_run: Any) -> dict[str, int]:
    """Task -> how many of its instances failed in a run."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import func, select
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None:
        return {}
    wanted = (
        select(TaskInstance.task_id, func.count())
        .where(
            TaskInstance.dag_id == dag_run.dag_id,
            TaskInstance.run_id == dag_run.run_id,
            TaskInstance.state == "failed",
        )
        .group_by(TaskInstance.task_id)
    )
    return {str(task): int(count) for task, count in session.execute(wanted)}
