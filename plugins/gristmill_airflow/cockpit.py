"""The cockpit in Airflow's API server: who asks, what Airflow lets them see, and where Airflow shows the pages.

Nothing is imported when Airflow loads the plugin: the application is made at the first request.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.sdk import conf as settings

from gristmill_airflow.assets import RESOLVED
from gristmill_airflow.result import SUMMARY, WAITS, unpacked

if TYPE_CHECKING:
    from fastapi import Request

    from contract.plan import Run
    from reports.cockpit.visitor import Listed, Refused, TaskState

log = logging.getLogger(__name__)

PREFIX = "/gristmill"
ALIKE = 50  # newest DAG runs of a recipe whose tasks are shown
TABS = (
    ("Gristmill", "nav", "run", ""),
    ("Rate", "nav", "rate", ""),
    ("Run", "dag_run", "run", "/{DAG_ID}/{RUN_ID}"),
    ("Pages", "dag_run", "pages", "/{DAG_ID}/{RUN_ID}"),
    ("Models", "dag_run", "models", "/{DAG_ID}/{RUN_ID}"),
    ("Abilities", "dag_run", "abilities", "/{DAG_ID}/{RUN_ID}"),
    ("Rate", "dag_run", "rate", "/{DAG_ID}/{RUN_ID}"),
    ("Training", "task_instance", "training", "/{DAG_ID}/{RUN_ID}/{TASK_ID}"),
)
"""Where Airflow shows which page: (name, destination, page, rest of its address). The side bar cuts long names."""
ROUTES = {"run": "gristmill", "rate": "gristmill-rounds"}
"""Page of the side bar -> Airflow's own address of it, which no tab may have as well."""
RESOLVE = "resolve"  # the task that makes a run's recipe
LOG_LINES, LOG_CHARS = 8, 500  # of the log of a task that failed, on a page
OURS = "error: "  # begins the line in which a task of ours says why it failed; Airflow's repeat it
LOG_READ = 5000  # lines among which these are sought


def root() -> str:
    """The path at which people reach the cockpit: below that of Airflow's `api.base_url`."""
    return f"{urlsplit(settings.get('api', 'base_url', fallback='')).path.rstrip('/')}{PREFIX}"


def views() -> list[dict[str, str]]:
    """The pages that Airflow shows, in its own form."""
    return [
        {
            "name": name,
            "destination": destination,
            "href": f"{root()}/{page}{rest}",
            "url_route": f"gristmill-{page}" if rest else ROUTES[page],
            "icon": f"{root()}/static/icon.svg",
        }
        for name, destination, page, rest in TABS
        if find_spec(f"reports.cockpit.pages.{page}")
    ]


class User:
    """A user of Airflow, as its auth manager knows them."""

    def __init__(self, user: Any, root: str) -> None:
        """root: what stands before Airflow's own addresses."""
        self._user, self._root = user, root
        self._rights: dict[tuple[str, str, str], bool] = {}  # asked once in a request

    @property
    def name(self) -> str:
        return str(self._user.get_name())

    def may_read(self, dag_id: str) -> bool:
        return self._may("GET", dag_id)

    def may_edit(self, dag_id: str) -> bool:
        return self._may("PUT", dag_id)

    def may_vote(self, dag_id: str) -> bool:
        """The right to answer what a DAG asks people (HITL_DETAIL), which roles may have without that to edit runs."""
        return self._may("PUT", dag_id, "HITL_DETAIL")

    def _may(self, method: Any, dag_id: str, what: str = "RUN") -> bool:
        """what: a name of Airflow's DagAccessEntity."""
        if (method, dag_id, what) not in self._rights:
            self._rights[method, dag_id, what] = self._authorized(method, dag_id, what)
        return self._rights[method, dag_id, what]

    def _authorized(self, method: Any, dag_id: str, what: str) -> bool:
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
        from airflow.models.dag import DagModel

        details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
        ask = get_auth_manager().is_authorized_dag
        return ask(method=method, access_entity=DagAccessEntity[what], details=details, user=self._user)

    def run(self, dag_id: str, run_id: str) -> "Run":
        """The run that the task `resolve` published for a DAG run."""
        from reports.cockpit.visitor import opened

        uri = _recipe(dag_id, run_id)
        if uri is None:
            raise self._unresolved(dag_id, run_id)
        return opened(uri)

    def _unresolved(self, dag_id: str, run_id: str) -> "Refused":
        """Why a DAG run has no recipe, with the log of its task `resolve`."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        from reports.cockpit.visitor import Refused

        of_resolve = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == RESOLVE)
        with create_session() as session:
            state = next(iter(session.scalars(select(TaskInstance.state).where(*of_resolve))), "unknown")
        if state == "unknown":
            return Refused(404, f"The DAG {dag_id} has no run {run_id} with a recipe.")
        why = UNRESOLVED.get(str(state), "it has not run yet" if state is None else f"it is in the state {state}")
        failed = state in ("failed", "up_for_retry")
        told = _errors(dag_id, run_id) if failed and self._may("GET", dag_id, "TASK_LOGS") else []
        at = (f"The log of {RESOLVE} in Airflow", self.airflow(dag_id, run_id, RESOLVE, -1))
        sentence = f"The run {run_id} of the DAG {dag_id} has no recipe: its task {RESOLVE} makes it, and {why}."
        return Refused(404, sentence, "The run has failed" if state == "failed" else "No recipe yet", at, told)

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
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import func, select, tuple_

        from contract.stages import STAGES
        from reports.cockpit.visitor import TaskState

        mine = self._alike(dag_id, run_id)
        with create_session() as session:
            key = TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.state
            asked = (
                select(*key, func.count(), func.min(TaskInstance.map_index), func.min(TaskInstance.pool))
                .where(tuple_(TaskInstance.dag_id, TaskInstance.run_id).in_(mine))
                .group_by(*key)
            )
            rows = session.execute(asked).all()
        rows = [row for row in rows if row.task_id.rpartition(".")[2] in STAGES]
        told = _waits(mine) if any(row.state == "running" for row in rows) else {}
        full = _full_pools() if any(row.state == "scheduled" for row in rows) else set()
        return [
            TaskState(
                dag, run, task, str(state or "waiting"), count, index,
                _waits_for(str(state), told.get((dag, run, task), ""), pool if pool in full else ""),
            )
            for dag, run, task, state, count, index, pool in rows
        ]  # fmt: skip

    def approval(self, dag_id: str, run_id: str) -> str:
        return next(iter(_xcoms(self._alike(dag_id, run_id), SUMMARY, APPROVAL).values()), "")

    def _alike(self, dag_id: str, run_id: str) -> list[tuple[str, str]]:
        """The DAG and run ids of a DAG run and of others of the same recipe whose DAG the user may read."""
        from airflow.models.asset import AssetEvent
        from airflow.utils.session import create_session

        alike = _resolved().where(AssetEvent.extra["recipe"].as_string() == _recipe(dag_id, run_id)).limit(ALIKE)
        with create_session() as session:
            runs = {(dag_id, run_id), *((one.source_dag_id, one.source_run_id) for one in session.execute(alike))}
        return [(dag, run) for dag, run in runs if self.may_read(dag)]

    def record(self, event: str, dag_id: str, run_id: str, what: Mapping[str, object]) -> None:
        from airflow.models.log import Log
        from airflow.utils.session import create_session

        said = json.dumps(what)
        with create_session() as session:
            done = f"gristmill.{event}"
            session.add(Log(done, None, self.name, self.name, said, dag_id=dag_id, run_id=run_id))

    def trigger(
        self, dag_id: str, conf: Mapping[str, object], partition_key: str | None = None, run_id: str | None = None
    ) -> str:
        from airflow.api.common.trigger_dag import trigger_dag
        from airflow.exceptions import DagRunAlreadyExists
        from airflow.sdk.exceptions import AirflowException
        from airflow.utils.types import DagRunTriggeredByType
        from sqlalchemy.exc import IntegrityError

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
                run_id=run_id,
            )
        except (DagRunAlreadyExists, IntegrityError):
            if run_id is None:
                raise
            return run_id  # the same form was sent before, and has started it
        except (AirflowException, ValueError) as error:
            raise Refused(409, f"Airflow does not start a run of {dag_id}: {error}") from error
        if made is None:
            raise Refused(409, f"Airflow has started no run of {dag_id}.")
        return str(made.run_id)

    def is_paused(self, dag_id: str) -> bool:
        from airflow.models.dag import DagModel

        return dag_id in DagModel.get_paused_dag_ids([dag_id])

    def airflow(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        task = f"/tasks/{quote(task_id, safe='')}" if task_id else ""
        mapped = f"/mapped/{map_index}" if task and map_index >= 0 else ""
        run = f"/{quote(run_id, safe='')}" if run_id else ""
        return f"{self._root}/dags/{quote(dag_id, safe='')}/runs{run}{task}{mapped}"


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


UNRESOLVED = {
    "failed": "it has failed",
    "up_for_retry": "it has failed and will be tried again",
    "upstream_failed": "a task before it has failed",
    "running": "it is running now",
    "queued": "it waits for a worker",
    "scheduled": "it waits for a worker",
    "success": "it has published none",
}
"""State of the task `resolve` -> why there is no recipe."""
APPROVAL = "approval"  # the task that asks a person before PPO


def _errors(dag_id: str, run_id: str) -> list[str]:
    """The lines of the log of `resolve` that say why it failed, cut and without secrets; none if it cannot be read."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.log.log_reader import TaskLogReader
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.orm import joinedload

    asked = (
        select(TaskInstance)
        .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == RESOLVE)
        .options(joinedload(TaskInstance.dag_run))
    )
    try:
        with create_session() as session:
            task = session.scalar(asked)
            if task is None or not task.try_number:
                return []
            messages, _ = TaskLogReader().read_log_chunks(task, task.try_number, {"end_of_log": False})
            told = list(islice(_told(islice(messages, LOG_READ)), LOG_LINES))
            return [line for line in told if line.startswith(OURS)] or told
    except Exception:  # whatever keeps the logs; the page has a link to Airflow's own
        log.exception("the log of %s %s %s cannot be read", dag_id, run_id, RESOLVE)
        return []


def _told(messages: "Iterable[Any]") -> "Iterable[str]":
    """The errors among the messages of a log, one line each."""
    from contract.masking import masked
    from contract.printable import printable

    for message in messages:
        level = str(getattr(message, "level", "") or "")
        if level.lower() in ("error", "critical"):
            detail = getattr(message, "error_detail", None) or ()
            raised = (f"{one.get('exc_type')}: {one.get('exc_value')}" for one in detail)
            for line in (message.event, *raised):
                yield printable(masked(str(line)))[:LOG_CHARS]


def _waits(runs: Sequence[tuple[str, str]]) -> dict[tuple[str, str, str], str]:
    """(DAG id, run id, task id) -> what a running task waits for, as it has said itself."""
    return {key: said for key, said in _xcoms(runs, WAITS).items() if said}


def _xcoms(runs: Sequence[tuple[str, str]], key: str, task_id: str = "") -> dict[tuple[str, str, str], str]:
    """(DAG id, run id, task id) -> the newest text under a key, the newest task first. task_id: only of this task."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select, tuple_

    asked = (
        select(XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.value)
        .where(tuple_(XComModel.dag_id, XComModel.run_id).in_(runs), XComModel.key == key)
        .order_by(XComModel.timestamp.desc())
        .limit(ALIKE)
    )
    found: dict[tuple[str, str, str], str] = {}
    with create_session() as session:
        for dag, run, task, stored in session.execute(asked.where(XComModel.task_id == task_id) if task_id else asked):
            found.setdefault((dag, run, task), str(unpacked(stored) or ""))
    return found


def _full_pools() -> set[str]:
    """The pools of Airflow that have no free slot."""
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    with create_session() as session:
        return {name for name, one in Pool.slots_stats(session=session).items() if one["open"] <= 0}


def _waits_for(state: str, told: str, pool: str) -> str:
    """What tasks in a state wait for; empty if they do not wait or nothing tells."""
    if state == "running":
        return told
    return f"a free slot of the pool {pool}" if state == "scheduled" and pool else ""


def _first_line(note: str | None) -> str:
    return (note or "").partition("\n")[0]


VIEWS = views()


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
