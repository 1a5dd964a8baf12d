"""The few calls of Airflow's REST API that the demo needs."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import requests

from contract.errors import GristmillError

TIMEOUT_S = 30
PAGE = 100  # Airflow cuts longer pages to api.maximum_page_limit, whose default is 100
BUSY_S = 60  # an API server on a loaded laptop may pause; only longer silence means that Airflow is gone


# apache-airflow-client is not used: it takes 0.9 s to import instead of 0.1 s and twice as long for a call, and login,
# waiting and paging would still be code of ours.
class Airflow:
    """A session with the Airflow at `url`, for example http://localhost:8080.

    Methods raise GristmillError if Airflow is gone or refuses.
    """

    def __init__(self, url: str, log_in: Callable[[], str], runs: Callable[[], bool] = lambda: True) -> None:
        """`log_in` returns a fresh bearer token, or raises OSError. runs: whether Airflow's process is still there."""
        self.url, self._log_in, self._runs = url, log_in, runs
        self._session = requests.Session()

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The parsed answer of one call below /api/v2, repeated while the server does not answer."""
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                response = self._send(method, path, body, query)
                break
            except requests.RequestException as error:
                if not self._runs():
                    raise GristmillError(
                        f"Airflow at {self.url} was stopped, so nothing is left to follow; go on with: make demo"
                    ) from error
                # An interrupted POST may have had its effect: repeating it could start a second run.
                if method == "POST" or time.monotonic() > deadline:
                    raise GristmillError(
                        f"Airflow at {self.url} no longer answers; look into airflow.log, "
                        "or start again with: make demo"
                    ) from error
                time.sleep(1)
        if not response.ok:
            detail = response.json().get("detail", response.text) if _is_json(response) else response.text[:300]
            raise GristmillError(f"Airflow refuses {method} {path}: {response.status_code} {detail}")
        return response.json() if response.content and _is_json(response) else None

    def _send(self, method: str, path: str, body: Any, query: dict[str, Any]) -> requests.Response:
        for _ in range(2):
            if "Authorization" not in self._session.headers:
                try:
                    self._session.headers["Authorization"] = f"Bearer {self._log_in()}"
                except OSError as error:
                    raise requests.ConnectionError(str(error)) from error
            response = self._session.request(
                method, f"{self.url}/api/v2/{path}", json=body, params=query or None, timeout=TIMEOUT_S
            )
            if response.status_code != 401:
                break
            del self._session.headers["Authorization"]  # the token is a day old: log in again
        return response

    def pause(self, dag: str, paused: bool) -> None:
        self.call("PATCH", f"dags/{dag}", {"is_paused": paused})

    def rows(self, path: str, name: str, **query: Any) -> list[dict[str, Any]]:
        """All rows of a listing, read page by page; `name` is the key of the rows in the answer."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.call("GET", path, limit=PAGE, offset=len(found), **query)
            found += answer[name]
            if not answer[name] or len(found) >= answer["total_entries"]:
                return found

    def end_unfinished(self, dag: str, name: str) -> int:
        """Fail queued and running runs called `name`..., and those that their assets started. Returns their number.

        Airflow then ends the tasks of these runs.
        """
        rows = self.rows(f"dags/{dag}/dagRuns", "dag_runs", state=["queued", "running"])
        ours = [row for row in rows if row["dag_run_id"].startswith(name) or self._descends(row, name)]
        for row in ours:
            self.call("PATCH", f"dags/{dag}/dagRuns/{quote(row['dag_run_id'], safe='')}", {"state": "failed"})
        return len(ours)

    def _descends(self, row: dict[str, Any], name: str) -> bool:
        """Whether a result of a run called `name`... started the run.

        A resolved recipe lies in a folder with the name of its DAG run.
        """
        return any(re.search(rf"/runs/\w+\.{re.escape(name)}", recipe) for recipe in self.recipes(row))

    def recipes(self, row: dict[str, Any]) -> list[str]:
        """The resolved recipes of the asset events that started a run.

        Empty while the run is queued, because Airflow 3.3 fails to answer then.
        """
        if row["run_type"] != "asset_triggered" or row["start_date"] is None:
            return []
        path = f"dags/{row['dag_id']}/dagRuns/{quote(row['dag_run_id'], safe='')}/upstreamAssetEvents"
        events = self.call("GET", path)["asset_events"]
        return [event["extra"]["recipe"] for event in events if "recipe" in (event["extra"] or {})]

    def dags(self) -> set[str]:
        """The DAGs that are parsed by now."""
        return {row["dag_id"] for row in self.rows("dags", "dags")}

    def import_errors(self) -> list[str]:
        """One line for each DAG file that could not be parsed."""
        rows = self.call("GET", "importErrors")["import_errors"]
        return [f"{row['filename']}: {row['stack_trace'].strip().splitlines()[-1]}" for row in rows]

    def trigger(self, dag: str, conf: dict[str, Any], partition_key: str, run_id: str) -> str:
        """Start a run and return its id."""
        body = {"logical_date": None, "conf": conf, "partition_key": partition_key, "dag_run_id": run_id}
        return str(self.call("POST", f"dags/{dag}/dagRuns", body)["dag_run_id"])

    def run(self, dag: str, run_id: str) -> dict[str, Any]:
        row: dict[str, Any] = self.call("GET", f"dags/{dag}/dagRuns/{quote(run_id, safe='')}")
        return row

    def newest_run(self, dag: str, partition_key: str, after: str, recipe: str) -> dict[str, Any] | None:
        """The newest run of a partition that a result of `recipe` started, queued after `after` (ISO 8601)."""
        rows = self.call(
            "GET", f"dags/{dag}/dagRuns", order_by="-run_after", limit=20, partition_key_pattern=partition_key
        )["dag_runs"]
        recent = (row for row in rows if row["partition_key"] == partition_key and row["queued_at"] > after)
        return next((row for row in recent if recipe in self.recipes(row)), None)

    def tasks(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        """Every task instance of a run."""
        return self.rows(f"dags/{dag}/dagRuns/{quote(run_id, safe='')}/taskInstances", "task_instances")

    def log(self, task: dict[str, Any]) -> Iterator[str]:
        """The lines of a task instance's newest try."""
        if not task["try_number"]:
            return
        run = f"dags/{task['dag_id']}/dagRuns/{quote(task['dag_run_id'], safe='')}"
        path = f"{run}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
        content = self.call("GET", path, map_index=task["map_index"], full_content="true")["content"]
        for line in content:
            if isinstance(line, str):
                yield line
                continue
            yield str(line.get("event", ""))
            yield from (f"{one['exc_type']}: {one['exc_value']}" for one in line.get("error_detail") or ())

    def xcom(self, task: dict[str, Any], key: str = "return_value") -> Any:
        """A value that a task published."""
        run = f"dags/{task['dag_id']}/dagRuns/{quote(task['dag_run_id'], safe='')}"
        path = f"{run}/taskInstances/{task['task_id']}/xcomEntries/{key}"
        return self.call("GET", path, map_index=task["map_index"], deserialize="true")["value"]

    def page(self, dag: str, run_id: str, task: dict[str, Any] | None = None) -> str:
        """The address of a run, or of one of its tasks, in the web UI."""
        address = f"{self.url}/dags/{dag}/runs/{quote(run_id, safe='')}"
        if task:
            address += f"/tasks/{task['task_id']}"
            if task["map_index"] >= 0:
                address += f"/mapped/{task['map_index']}"
        return address


def healthy(url: str) -> bool:
    """Whether scheduler and DAG processor report; False if nothing answers."""
    try:
        report = requests.get(f"{url}/api/v2/monitor/health", timeout=TIMEOUT_S).json()
    except (requests.RequestException, ValueError):
        return False
    return all((report.get(part) or {}).get("status") == "healthy" for part in ("scheduler", "dag_processor"))


def _is_json(response: requests.Response) -> bool:
    return response.headers.get("content-type", "").startswith("application/json")
