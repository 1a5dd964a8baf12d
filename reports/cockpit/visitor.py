"""Who asks for a page, and what they may see and do: a user of Airflow, or whoever sits at this machine."""

import datetime
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

from fastapi import Request

from contract.plan import Run, open_run
from contract.store import Store

MOST_RUNS = 1000
OPEN_RUNS = 16  # that are kept open: a run of a whole crawl with its plan takes some megabytes


class Refused(Exception):
    """An answer other than the page: its status, and a sentence that says what is wrong and what to do.

    title: the heading of the page, or empty for that of the status. at: where to go on, as (label, address of Airflow's
    page). told: lines of a log that say why.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        title: str = "",
        at: tuple[str, str] | None = None,
        told: Sequence[str] = (),
    ) -> None:
        super().__init__(sentence)
        self.status, self.title, self.at, self.told = status, title, at, tuple(told)


@dataclass(frozen=True)
class Listed:
    """A run in a list. state: as Airflow says it; empty without Airflow. note: the first line of the run's note."""

    dag_id: str
    run_id: str
    state: str
    started: datetime.datetime | None
    note: str = ""


@dataclass(frozen=True)
class TaskState:
    """The tasks of a stage that are in one state, in one DAG run. map_index: the first one's, -1 if not mapped.

    waits: what the first one waits for, empty if it does not wait or nothing tells.
    """

    dag_id: str
    run_id: str
    task_id: str
    state: str
    count: int
    map_index: int
    waits: str = ""

    @property
    def stage(self) -> str:
        """The task's name without that of its group."""
        return self.task_id.rpartition(".")[2]


class Visitor(Protocol):
    """One person's request. Methods may block, so the frame calls them in its own threads."""

    @property
    def name(self) -> str:
        """Whom the audit log names."""

    def may_read(self, dag_id: str) -> bool: ...

    def may_edit(self, dag_id: str) -> bool: ...

    def may_vote(self, dag_id: str) -> bool:
        """Whether the visitor may rate replies in the rounds of a DAG's runs."""

    def run(self, dag_id: str, run_id: str) -> Run:
        """The resolved run of a DAG run that the visitor may read. Raises Refused if there is none."""

    def runs(self, limit: int) -> Sequence[Listed]:
        """The newest runs that the visitor may read, the newest first, at most `limit`."""

    def tasks(self, dag_id: str, run_id: str) -> Sequence[TaskState]:
        """The tasks of a DAG run, and of the other DAGs' runs of the same recipe; none without Airflow."""

    def approval(self, dag_id: str, run_id: str) -> str:
        """What a person has answered before PPO, with who and when, in the newest DAG run of this recipe that asked.

        Empty if nobody has answered, or without Airflow.
        """

    def record(self, event: str, dag_id: str, run_id: str, what: Mapping[str, object]) -> None:
        """Write into the audit log that the visitor does `event`."""

    def trigger(
        self, dag_id: str, conf: Mapping[str, object], partition_key: str | None = None, run_id: str | None = None
    ) -> str:
        """Start a run of a DAG, under the name of a crawl if one is given, and return its id.

        run_id: the id that it gets. If the DAG has a run of this id, none is started. Raises Refused if no run can be
        started.
        """

    def is_paused(self, dag_id: str) -> bool:
        """Whether a DAG is switched off, so that its runs wait. False without Airflow."""

    def airflow(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        """The address of Airflow's page on a run, on one of its tasks, or with an empty run_id on the DAG's runs.

        Empty without Airflow.
        """


Admit = Callable[[Request], Awaitable[Visitor]]
"""Tells who sent a request. Raises Refused(401, ...) if nobody known did."""


def in_store(store: Store, path: str) -> Run:
    """The run at a path of a store, with its results read from that store even if it was moved or copied.

    Raises Refused if there is none.
    """
    try:
        return _in_store(store, path)
    except FileNotFoundError:
        raise Refused(404, f"{path} does not exist yet.") from None


@lru_cache(maxsize=OPEN_RUNS)
def _in_store(store: Store, path: str) -> Run:
    if not store.exists(path):
        raise FileNotFoundError
    found = open_run(store.full(path))
    return replace(found, recipe=found.recipe.model_copy(update={"store": store.uri}))


@lru_cache(maxsize=OPEN_RUNS)
def opened(uri: str) -> Run:
    """The run at a URI. A resolved run never changes, so it is read once."""
    return open_run(uri)
