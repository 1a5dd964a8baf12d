"""The cockpit as users have it: mounted in the API server of a real Airflow, with a thousand runs and three users."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import requests

from contract.errors import GristmillError
from demo import server
from demo.rest import Airflow
from gristmill_airflow import cockpit
from gristmill_airflow.environment import PASSWORDS, standalone_environment
from perf.cockpit import rights
from perf.cockpit.payloads import PAYLOADS
from perf.cockpit.store import Made

ROOT = Path(__file__).parents[2]
DAGS = ("corpus", "pretrain", "align", "evaluate")
LARGE, HOSTILE = "large", "hostile"
START_S = 120


@dataclass(frozen=True)
class Served:
    """A running API server. runs: (DAG, run id) of every run that was entered, the newest last. passwords: its file."""

    folder: Path
    url: str
    runs: tuple[tuple[str, str], ...]
    passwords: Path

    @property
    def cockpit(self) -> str:
        return self.url + cockpit.PREFIX

    def token(self, user: str = rights.ADMIN) -> str:
        """A session's token; as the cookie `_token` it is what a browser has after its login."""
        passwords = json.loads(self.passwords.read_text())
        answer = requests.post(
            f"{self.url}/auth/token", json={"username": user, "password": passwords[user]}, timeout=30
        )
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def api(self) -> Airflow:
        return Airflow(self.url, self.token)

    def api_server(self) -> list[psutil.Process]:
        """The processes of Airflow's API server."""
        found = map(psutil.Process, server.processes(self.folder))
        return [one for one in found if "api-server" in " ".join(one.cmdline()) or "api_server" in one.name()]

    def memory_mb(self) -> float:
        """What the API server's processes hold for themselves, in MB of 1,000,000 bytes."""
        return float(sum(one.memory_full_info().uss for one in self.api_server())) / 1e6


@contextmanager
def serve(folder: Path, made: Made, port: int) -> Iterator[Served]:
    """Start Airflow in a folder, enter the runs, and end Airflow again."""
    started = server.start(folder, port)
    try:
        rows = entries(made)
        up = Served(folder, started.url, tuple((dag, run) for dag, run, *_ in rows), folder / "airflow" / PASSWORDS)
        api = up.api()
        _wait("all DAGs are read", lambda: set(DAGS) <= api.dags())
        if not api.call("GET", f"dags/{DAGS[0]}/dagRuns", limit=1)["dag_runs"]:
            _enter(folder, port, rows)
        yield up
    finally:
        server.stop(folder)


@contextmanager
def with_rights(up: Served, port: int) -> Iterator[Served]:
    """A second API server on the same database, in which three users have different rights.

    The standalone Airflow insists on the simple auth manager, with which everybody may read everything.
    """
    passwords = up.folder / "rights.json"
    passwords.touch(mode=0o600)
    home = up.folder / "airflow"
    own = {
        "AIRFLOW__CORE__AUTH_MANAGER": rights.SETTING,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "PYTHONPATH": str(ROOT),
    }
    with open(up.folder / "rights.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "api-server"], env=standalone_environment(home, port) | own,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=ROOT,
        )  # fmt: skip
    try:
        second = replace(up, url=f"http://127.0.0.1:{port}", passwords=passwords)
        _wait("the second API server answers", lambda: _answers(second.url) and process.poll() is None)
        yield second
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/api/v2/version", timeout=5).ok
    except requests.RequestException:
        return False


def _wait(what: str, met: Callable[[], bool], limit_s: float = START_S) -> None:
    deadline = time.monotonic() + limit_s
    while not met():
        if time.monotonic() > deadline:
            raise GristmillError(f"after {limit_s:.0f} s still not: {what}")
        time.sleep(0.5)


def entries(made: Made) -> list[tuple[str, str, str, str]]:
    """(DAG, run id, URI, note) of every run: the large one once in each DAG, the tiny ones spread over the DAGs."""
    tiny = [
        (DAGS[number % len(DAGS)], f"tiny-{number:04d}", uri, f"uses recipe tiny, variant {number}")
        for number, uri in enumerate(made.tiny[: made.size.runs - 2 * len(DAGS)])
    ]
    hostile = [(dag, HOSTILE, made.hostile, " ".join(PAYLOADS)[:900]) for dag in DAGS]
    return [*tiny, *hostile, *((dag, LARGE, made.large, "uses recipe bench") for dag in DAGS)]


def _enter(folder: Path, port: int, rows: list[tuple[str, str, str, str]]) -> None:
    listed = folder / "runs.json"
    listed.write_text(json.dumps(rows))
    command = [sys.executable, "-m", "perf.cockpit.registered", str(listed)]
    environment = standalone_environment(folder / "airflow", port)
    with open(folder / "entered.log", "w") as log:  # Airflow says something of each run
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
