"""The cockpit in Airflow's API server: who asks, what Airflow lets them see, and where Airflow shows the pages.

Nothing is imported when Airflow loads the plugin: the application is made at the first request.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gristmill_airflow.assets import RESOLVED

if TYPE_CHECKING:
    from fastapi import Request

    from contract.plan import Run
    from reports.cockpit.visitor import Listed, TaskState

PREFIX = "/gristmill"
ALIKE = 50  # newest DAG runs of a recipe whose tasks are shown
TABS = (
    ("Gristmill", "nav", "run", ""),
    ("Run", "dag_run", "run", "/{DAG_ID}/{RUN_ID}"),
    ("Pages", "dag_run", "pages", "/{DAG_ID}/{RUN_ID}"),
    ("Models", "dag_run", "models", "/{DAG_ID}/{RUN_ID}"),
    ("Training", "task_instance", "training", "/{DAG_ID}/{RUN_ID}/{TASK_ID}"),
)
"""Where Airflow shows which page: (name, destination, page, rest of its address). The side bar cuts long names."""
VIEWS = [
    {
        "name": name,
        "destination": destination,
        "href": f"{PREFIX}/{page}{rest}",
        "url_route": f"gristmill-{page}" if rest else "gristmill",
        "icon": f"{PREFIX}/static/icon.svg",
    }
    for name, destination, page, rest in TABS
    if find_spec(f"reports.cockpit.pages.{page}")
]


class User:
    """A user of Airflow, as its auth manager knows them."""

    def __init__(self, user: Any, root: str) -> None:
        """root: what stands before Airflow's own addresses."""
        self._user, self._root = user, root
        self._rights: dict[tuple[str, str], bool] = {}  # asked once in a request

    @property
    def name(self) -> str:
        return str(self._user.get_name())

    def may_read(self, dag_id: str) -> bool:
        return self._may("GET", dag_id)

    def may_edit(self, dag_id: str) -> bool:
        return self._may("PUT", dag_id)

    def _may(self, method: Any, dag_id: str) -> bool:
        if (method, dag_id) not in self._rights:
            self._rights[method, dag_id] = self._authorized(method, dag_id)
        return self._rights[method, dag_id]

    def _authorized(self, method: Any, dag_id: str) -> bool:
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
        from airflow.models.dag import DagModel

        details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
        ask = get_auth_manager().is_authorized_dag
        return ask(method=method, access_entity=DagAccessEntity.RUN, details=details, user=self._user)

    def run(self, dag_id: str, run_id: str) -> "Run":
        """The run that the task `resolve` published for a DAG run."""
        from reports.cockpit.visitor import Refused, opened

        uri = _recipe(dag_id, run_id)
        if uri is None:
            raise Refused(404, f"The run {run_id} of the DAG {dag_id} has no recipe yet: its task resolve is not done.")
        return opened(uri)

    def runs(self, limit: int) -> "Sequence[Listed]":
        from airflow.models.asset import AssetEvent
        from airflow.models.dagrun import DagRun, DagRunNote
        from airflow.utils.session import create_session
        from sqlalchemy import select

        from reports.cockpit.visitor import Listed

        with create_session() as session:
            dags = session.scalars(select(AssetEvent.source_dag_id).where(*_is_resolved()).distinct()).all()
        mine = [dag for dag in dags if dag and self.may_read(dag)]
        with create_session() as session:
            events = _resolved().where(AssetEvent.source_dag_id.in_(mine)).limit(2 * limit).subquery()
            held = (DagRun.dag_id == events.c.source_dag_id) & (DagRun.run_id == events.c.source_run_id)
            newest = (
                select(DagRun.id, DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.start_date, DagRunNote.content)
                .join(events, held)
                .outerjoin(DagRunNote, DagRunNote.dag_run_id == DagRun.id)
                .distinct()
                .order_by(DagRun.id.desc())
                .limit(limit)
            )
            return [
                Listed(run.dag_id, run.run_id, str(run.state), run.start_date, _first_line(run.content))
                for run in session.execute(newest)
            ]

    def tasks(self, dag_id: str, run_id: str) -> "Sequence[TaskState]":
        from airflow.models.asset import AssetEvent
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import func, select, tuple_

        from contract.stages import STAGES
        from reports.cockpit.visitor import TaskState

        alike = _resolved().where(AssetEvent.extra["recipe"].as_string() == _recipe(dag_id, run_id)).limit(ALIKE)
        with create_session() as session:
            runs = {(dag_id, run_id), *((one.source_dag_id, one.source_run_id) for one in session.execute(alike))}
        mine = [(dag, run) for dag, run in runs if self.may_read(dag)]
        with create_session() as session:
            key = TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.state
            asked = (
                select(*key, func.count(), func.min(TaskInstance.map_index))
                .where(tuple_(TaskInstance.dag_id, TaskInstance.run_id).in_(mine))
                .group_by(*key)
            )
            found = [
                TaskState(dag, run, task, str(state or "waiting"), count, index)
                for dag, run, task, state, count, index in session.execute(asked)
            ]
        return [one for one in found if one.stage in STAGES]

    def record(self, event: str, dag_id: str, run_id: str, what: Mapping[str, object]) -> None:
        from airflow.models.log import Log
        from airflow.utils.session import create_session

        said = json.dumps(what)
        with create_session() as session:
            done = f"gristmill.{event}"
            session.add(Log(done, None, self.name, self.name, said, dag_id=dag_id, run_id=run_id))

    def trigger(self, dag_id: str, conf: Mapping[str, object], partition_key: str | None = None) -> str:
        from airflow.api.common.trigger_dag import trigger_dag
        from airflow.sdk.exceptions import AirflowException
        from airflow.utils.types import DagRunTriggeredByType

        from reports.cockpit.visitor import Refused

        if not self._may("POST", dag_id):
            raise Refused(403, f"You may not start runs of the DAG {dag_id}. Ask who administers Airflow.")
        try:
            made = trigger_dag(
                dag_id,
                triggered_by=DagRunTriggeredByType.UI,
                triggering_user_name=self.name,
                conf=dict(conf),
                partition_key=partition_key,
            )
        except (AirflowException, ValueError) as error:
            raise Refused(409, f"Airflow does not start a run of {dag_id}: {error}") from error
        if made is None:
            raise Refused(409, f"Airflow has started no run of {dag_id}.")
        return str(made.run_id)

    def airflow(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        task = f"/tasks/{quote(task_id, safe='')}" if task_id else ""
        mapped = f"/mapped/{map_index}" if task and map_index >= 0 else ""
        return f"{self._root}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}{task}{mapped}"


def _is_resolved() -> Any:
    from airflow.models.asset import AssetEvent, AssetModel
    from sqlalchemy import select

    asset = select(AssetModel.id).where(AssetModel.name == RESOLVED.name, AssetModel.uri == RESOLVED.uri)
    return AssetEvent.asset_id.in_(asset), AssetEvent.source_run_id.is_not(None)


def _resolved() -> Any:
    """The events by which runs publish their recipe, the newest first. Only a task can send one with a run's id."""
    from airflow.models.asset import AssetEvent
    from sqlalchemy import select

    columns = AssetEvent.source_dag_id, AssetEvent.source_run_id, AssetEvent.extra
    return select(*columns).where(*_is_resolved()).order_by(AssetEvent.timestamp.desc())


def _recipe(dag_id: str, run_id: str) -> str | None:
    """The URI that the newest event of a DAG run names; None if there is none."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    asked = _resolved().where(AssetEvent.source_dag_id == dag_id, AssetEvent.source_run_id == run_id).limit(1)
    with create_session() as session:
        found = session.execute(asked).first()
    return str(found.extra["recipe"]) if found else None


def _first_line(note: str | None) -> str:
    return (note or "").partition("\n")[0]


async def admit(request: "Request") -> User:
    """The user whose session or token a request carries. Raises Refused(401) if there is none."""
    from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
    from fastapi import HTTPException

    from reports.cockpit.visitor import Refused

    try:
        user = await get_user(request, None, await bearer_scheme(request))
    except HTTPException as error:
        raise Refused(401, f"Log in to Airflow, then load this page again. ({error.detail})") from None
    return User(user, request.scope.get("root_path", "").removesuffix(PREFIX))


@cache
def application() -> Any:
    from reports.cockpit.app import create

    return create(admit)


class Cockpit:
    """The application as Airflow mounts it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await application()(scope, receive, send)
