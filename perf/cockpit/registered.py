"""Enters the runs of a synthetic store into Airflow's database, as if DAGs had made them: `python -m perf.cockpit.registered FILE`.

FILE has a JSON list of [DAG, run id, URI of the recipe, note], the newest last. It runs with the environment of the Airflow whose
database it writes to; a thousand real runs of the DAGs would take hours.
"""

import datetime
import json
import sys
from pathlib import Path
from typing import Any

from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select

from gristmill_airflow.assets import RESOLVED

WHOLE = 20  # the newest so many have task instances as well


def register(rows: list[tuple[str, str, str, str]]) -> None:
    """Enter runs that ended well, one a minute, the last of them just now."""
    now = datetime.datetime.now(datetime.UTC)
    known = DBDagBag()
    with create_session() as session:
        asset = session.scalar(select(AssetModel.id).where(AssetModel.name == RESOLVED.name))
        dags = {dag: known.get_latest_version_of_dag(dag, session=session) for dag, *_ in rows}
        for number, (dag, run_id, uri, note) in enumerate(rows):
            at = now - datetime.timedelta(minutes=len(rows) - number)
            drawn = dags[dag] if number >= len(rows) - WHOLE else None
            made = _with_tasks(drawn, run_id, at, session) if drawn else _bare(dag, run_id, at, session)
            made.end_date = at
            made.note = note
            session.add(
                AssetEvent(
                    asset_id=asset,
                    extra={"recipe": uri, "uses": note},
                    source_task_id="resolve",
                    source_dag_id=dag,
                    source_run_id=run_id,
                    timestamp=at,
                )
            )


def _with_tasks(dag: Any, run_id: str, at: datetime.datetime, session: Any) -> DagRun:
    made: DagRun = dag.create_dagrun(
        run_id=run_id, run_after=at, start_date=at, run_type=DagRunType.MANUAL, state=DagRunState.SUCCESS,
        triggered_by=DagRunTriggeredByType.TEST, session=session,
    )  # fmt: skip
    for task in made.task_instances:
        task.start_date = task.end_date = at
        task.state = TaskInstanceState.SUCCESS
    return made


def _bare(dag: str, run_id: str, at: datetime.datetime, session: Any) -> DagRun:
    made = DagRun(
        dag_id=dag, run_id=run_id, run_type=DagRunType.MANUAL, state=DagRunState.SUCCESS, run_after=at, start_date=at
    )
    session.add(made)
    return made


if __name__ == "__main__":
    register(json.loads(Path(sys.argv[1]).read_text()))
