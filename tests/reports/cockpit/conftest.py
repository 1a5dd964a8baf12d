"""Pages are asked for over HTTP, of a small real store, as a browser does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from contract.store import Store
from reports.cockpit.app import create
from reports.cockpit.local import DAG, Local
from reports.cockpit.visitor import Refused

HERE = "http://127.0.0.1"


class Reader(Local):
    """A visitor of the store with fewer rights, who leaves a record that tests can read."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.session, self.reads, self.edits, self.votes = True, True, True, True
        self.closed: set[str] = set()  # DAGs in whose rounds the visitor may not vote
        self.recorded: list[tuple[str, str, str, dict[str, object]]] = []
        self.triggered: list[tuple[str, dict[str, object], str | None]] = []
        self.started: set[str] = set()
        self.paused: set[str] = set()  # DAGs that are switched off

    def may_read(self, dag_id: str) -> bool:
        return self.reads and super().may_read(dag_id)

    def may_edit(self, dag_id: str) -> bool:
        return self.edits and self.may_read(dag_id)

    def may_vote(self, dag_id: str) -> bool:
        return self.votes and dag_id not in self.closed and self.reads

    def record(self, event: str, dag_id: str, run_id: str, what: Mapping[str, object]) -> None:
        self.recorded.append((event, dag_id, run_id, dict(what)))

    def trigger(
        self, dag_id: str, conf: Mapping[str, object], partition_key: str | None = None, run_id: str | None = None
    ) -> str:
        if run_id not in self.started:
            self.triggered.append((dag_id, dict(conf), partition_key))
        self.started.add(run_id or f"manual__{len(self.started)}")
        return run_id or "manual__started"

    def is_paused(self, dag_id: str) -> bool:
        return dag_id in self.paused

    def airflow(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        return f"/dags/{dag_id}/runs/{run_id}" + (f"/tasks/{task_id}" if task_id else "")


@dataclass
class Visit:
    """What a test has of the cockpit. visitor: its rights can be taken away: `visit.visitor.edits = False`."""

    client: TestClient
    visitor: Reader
    store: Store
    dag: str = DAG
    same_origin: dict[str, str] = field(default_factory=lambda: {"origin": HERE})

    def get(self, path: str, **query: Any) -> Any:
        """The answer to a browser that asks for an address below the cockpit's, for example `/run/runs/one`."""
        return self.client.get(path, params=query or None, headers={"accept": "text/html"})

    def json(self, path: str, **query: Any) -> Any:
        answer = self.client.get(path, params=query or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, **form: Any) -> Any:
        """The answer to a form that a page of the cockpit sent; redirects are not followed."""
        return self.client.post(path, data=form, headers=self.same_origin, follow_redirects=False)


@pytest.fixture
def visit(tmp_path: Path) -> Visit:
    """The cockpit over the store in which `resolve_run` puts its runs."""
    store = Store(str(tmp_path / "store"))
    visitor = Reader(store)

    async def admit(request: Request) -> Reader:
        if not visitor.session:
            raise Refused(401, "Log in.")
        return visitor

    return Visit(TestClient(create(admit), base_url=HERE), visitor, store)
