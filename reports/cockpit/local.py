"""The visitor of a store that is served alone: the one person at this machine, who may read every run of the store."""

import datetime
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from fastapi import Request

from contract.plan import Run
from contract.stages import stage_dags
from contract.store import Store
from reports.cockpit.visitor import Admit, Listed, Refused, TaskState, in_store

log = logging.getLogger(__name__)

DAG = "runs"  # what stands for a DAG in the addresses
RUN = re.compile(r"[A-Za-z0-9][\w.~:+@-]*")
LISTING_S = 5.0  # for so long a listing of the store's runs is taken for true
HOSTS = ("127.0.0.1", "localhost")


class Local:
    """Everything of one store."""

    name = "this machine"

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listed: tuple[float, list[Listed]] = (-LISTING_S, [])

    def may_read(self, dag_id: str) -> bool:
        return dag_id == DAG or dag_id in stage_dags()

    may_edit = may_read

    def may_vote(self, dag_id: str) -> bool:
        return True

    def run(self, dag_id: str, run_id: str) -> Run:
        if dag_id != DAG or not RUN.fullmatch(run_id):
            raise Refused(404, f"The store has no run {run_id}.")
        return in_store(self._store, f"runs/{run_id}/recipe.yaml")

    def runs(self, limit: int) -> Sequence[Listed]:
        at, found = self._listed
        if time.monotonic() - at > LISTING_S:
            found = listed(self._store)
            self._listed = time.monotonic(), found
        return found[:limit]

    def tasks(self, dag_id: str, run_id: str) -> Sequence[TaskState]:
        return ()

    def approval(self, dag_id: str, run_id: str) -> str:
        return ""

    def record(self, event: str, dag_id: str, run_id: str, what: Mapping[str, object]) -> None:
        log.info("%s %s/%s %s", event, dag_id, run_id, json.dumps(what))

    def trigger(
        self, dag_id: str, conf: Mapping[str, object], partition_key: str | None = None, run_id: str | None = None
    ) -> str:
        raise Refused(
            409,
            "Runs are started in Airflow, or by hand: python -m contract resolve, then python -m contract commands.",
        )

    def is_paused(self, dag_id: str) -> bool:
        return False

    def airflow(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        return ""


def listed(store: Store) -> list[Listed]:
    """The runs of a store, the newest first."""
    recipes = [file for file in store.files("runs") if file.path.endswith("/recipe.yaml") and file.path.count("/") == 2]
    return [
        Listed(DAG, file.path.split("/")[1], "", datetime.datetime.fromtimestamp(file.modified / 1e9, datetime.UTC))
        for file in sorted(recipes, key=lambda file: (file.modified, file.path), reverse=True)
    ]


def admit(store: Store) -> Admit:
    """Admit whoever asks by this machine's own name; another name may be a site's that leads a browser here."""
    visitor = Local(store)

    async def admitted(request: Request) -> Local:
        if urlsplit(f"//{request.headers.get('host', '')}").hostname not in HOSTS:
            raise Refused(403, f"Open this page at http://{HOSTS[0]}, on the machine that serves it.")
        return visitor

    return admitted
