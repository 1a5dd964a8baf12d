"""Writes a run's recipe, crawl and source into its note, which the web UI shows beside the run's name.

A task cannot write notes, because Airflow's task SDK has no call for that. But it can publish asset events; for each,
Airflow calls this listener in the API server after the event is stored.
"""

import re
from typing import Any

from airflow.listeners import hookimpl

from gristmill_airflow.assets import RESOLVED

USES = "uses "
OURS = re.compile(USES + r"(run|recipe) [^,]+, (crawl .+|the newest crawl) of ")
"""The start of a note's first line if `params.uses` made that line."""
MAX_CHARS = 1000  # of a note, in Airflow's database


def noted(note: str | None, line: str) -> str:
    """The note with `line` as its first line, in place of an earlier try's line; a person's own text stays below it."""
    lines = (note or "").splitlines()
    others = "\n".join(lines[1:] if lines and OURS.match(lines[0]) else lines)
    if not others:
        return line[:MAX_CHARS]
    return f"{line[: max(0, MAX_CHARS - len(others) - 1)]}\n{others}".strip()


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
