"""Environment variables, pools and login of a standalone Airflow that runs Gristmill on one machine.

Standard library only. An Airflow of your own needs only the two pools.
"""

import contextlib
import json
import math
import os
import secrets
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from contract.shipped import shipped

ON_FAILURE = "GRISTMILL_ON_FAILURE"
QUEUED_HOURS = "GRISTMILL_QUEUED_HOURS"
DEFAULT_QUEUED_HOURS = 6.0
USER = "admin"
PASSWORDS = "simple_auth_manager_passwords.json.generated"  # Airflow's own name for it


def pools(cores: int | None = None) -> dict[str, tuple[int, str]]:
    """Pool name -> (slots, description). One task at a time holds the accelerators; Spark drivers share the cores."""
    cores = cores or os.cpu_count() or 2
    return {
        "gpu": (1, "training stages: one at a time holds this machine's accelerators"),
        "spark": (max(2, cores // 4), "Spark drivers that may run at once"),
    }


def queued_hours() -> float:
    """How long a run may wait in the queue before an alert, in hours; 0 for no alert.

    Raises ValueError if the variable holds no such number, so that Airflow shows it as an error of the DAG file.
    """
    said = os.environ.get(QUEUED_HOURS, "").strip()
    try:
        hours = float(said or DEFAULT_QUEUED_HOURS)
    except ValueError:
        hours = math.nan
    if not 0 <= hours <= 24 * 365:
        raise ValueError(f"{QUEUED_HOURS}={said}: give hours as a number from 0 (no alert) to 8760")
    return hours


def notifier_paths() -> list[str]:
    """The import paths of those who are told of failed runs, separated by spaces or commas in the variable."""
    return os.environ.get(ON_FAILURE, "").replace(",", " ").split()


def standalone_environment(home: Path, port: int) -> dict[str, str]:
    """This process's environment plus the variables for `python -m gristmill_airflow.standalone`.

    Creates `home` and its secret if absent. Relative paths in recipes refer to the folder in which Airflow starts.
    Start it in a session of its own and end the whole session: a signal to the first process alone leaves its children
    running.
    """
    home = home.resolve()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "CORE__DAGS_FOLDER": shipped("dags"),
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTOR": "gristmill_airflow.standalone.FolderLogs",
        "CORE__PARALLELISM": 8,
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "API__BASE_URL": url,
        "API__INSTANCE_NAME": "Gristmill",
        "API_AUTH__JWT_SECRET": _secret(home),
        "DAG_PROCESSOR__REFRESH_INTERVAL": 5,
        # The API server of a busy laptop may stall for a minute or two, which must not end a training task.
        "WORKERS__MAX_FAILED_HEARTBEATS": 30,
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": 600,
    }
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    variables |= {f"AIRFLOW__{name}": str(value) for name, value in settings.items()}
    variables["AIRFLOW_HOME"] = str(home)
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return variables


def password(home: Path) -> str:
    """The password that Airflow made for `admin` at its first start in this home; FileNotFoundError before that."""
    made: dict[str, str] = json.loads((home / PASSWORDS).read_text() or "{}")
    if USER not in made:
        raise FileNotFoundError(f"{home / PASSWORDS}: Airflow has not filled it yet")
    return made[USER]


def token(home: Path, port: int) -> str:
    """A bearer token for the REST API of the Airflow that runs in `home`. Raises OSError while it is not up."""
    answer = _call(f"http://127.0.0.1:{port}/auth/token", "POST", {"username": USER, "password": password(home)})
    return str(answer["access_token"])


def create_pools(home: Path, port: int) -> None:
    """Create the missing pools; existing ones keep their slots, which somebody may have changed."""
    bearer = token(home, port)
    for name, (slots, description) in pools().items():
        body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        try:
            _call(f"http://127.0.0.1:{port}/api/v2/pools", "POST", body, bearer)
        except urllib.error.HTTPError as error:
            if error.code != 409:  # it exists
                raise


def _call(url: str, method: str, body: dict[str, Any], bearer: str | None = None) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)  # noqa: S310 (http on loopback)
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        found: dict[str, Any] = json.loads(answer.read())
    return found


def _secret(home: Path) -> str:
    """A secret that all Airflow processes share across restarts; only its owner may read it, and the password."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    # Airflow fills an existing file; a file that it creates itself is readable by everybody.
    (home / PASSWORDS).touch(mode=0o600)
    (home / PASSWORDS).chmod(0o600)
    file = home / "jwt_secret"
    if not file.exists():
        handle, made = tempfile.mkstemp(dir=home)  # mode 0600
        with os.fdopen(handle, "w") as draft:
            draft.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(made, file)
        os.unlink(made)
    return file.read_text()
