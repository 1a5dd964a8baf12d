"""The environment of a standalone Airflow: its own home and ports, a secret that lasts, nothing open to the network."""

import json
import os
import stat
import sys
import urllib.error
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from gristmill_airflow.environment import (
    PASSWORDS,
    create_pools,
    notifier_paths,
    password,
    pools,
    queued_hours,
    standalone_environment,
    token,
)


def test_home_ports_and_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    first = standalone_environment(tmp_path / "home", 18123)
    again = standalone_environment(tmp_path / "home", 18123)
    assert first == again
    assert first["AIRFLOW_HOME"] == str(tmp_path / "home")
    assert first["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert first["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:18123"
    assert first["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18123/execution/"
    assert len(first["AIRFLOW__API_AUTH__JWT_SECRET"]) == 64
    assert "PYTHONDONTWRITEBYTECODE" not in first
    file = tmp_path / "home" / "jwt_secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    passwords = tmp_path / "home" / PASSWORDS
    assert sorted(one.name for one in (tmp_path / "home").iterdir()) == ["jwt_secret", passwords.name]
    assert stat.S_IMODE(passwords.stat().st_mode) == 0o600
    other = standalone_environment(tmp_path / "other", 18123)
    assert other["AIRFLOW__API_AUTH__JWT_SECRET"] != first["AIRFLOW__API_AUTH__JWT_SECRET"]


def test_one_gpu_slot_whatever_the_machine():
    assert [pools(cores)["gpu"][0] for cores in (1, 64)] == [1, 1]
    assert [pools(cores)["spark"][0] for cores in (1, 2, 64)] == [2, 2, 16]


def test_the_password_is_airflows_own_and_readable_by_its_owner_alone(tmp_path, monkeypatch):
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    standalone_environment(tmp_path, 18123)
    with pytest.raises(FileNotFoundError, match="Airflow has not filled it yet"):
        password(tmp_path)
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "admin:admin")
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(tmp_path / PASSWORDS))
    SimpleAuthManager().init()
    assert len(password(tmp_path)) >= 8
    assert stat.S_IMODE((tmp_path / PASSWORDS).stat().st_mode) == 0o600
    (tmp_path / PASSWORDS).chmod(0o644)
    standalone_environment(tmp_path, 18123)
    assert stat.S_IMODE((tmp_path / PASSWORDS).stat().st_mode) == 0o600, "one that Airflow made"


def test_every_setting_of_a_standalone_airflow(tmp_path, monkeypatch):
    """Open to this machine alone, one small database, and heartbeats that a busy laptop cannot miss."""
    for name in [one for one in os.environ if one.startswith("AIRFLOW")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", "/bin")
    made = standalone_environment(tmp_path, 18123)
    secret = made.pop("AIRFLOW__API_AUTH__JWT_SECRET")
    assert secret == (tmp_path / "jwt_secret").read_text()
    assert {name: value for name, value in made.items() if name.startswith("AIRFLOW")} == {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parents[2] / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "gristmill_airflow.standalone.FolderLogs",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:18123/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": "18123",
        "AIRFLOW__API__BASE_URL": "http://127.0.0.1:18123",
        "AIRFLOW__API__INSTANCE_NAME": "Gristmill",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "600",
    }
    assert made["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/bin"
    assert made["HOME"] == os.environ["HOME"]


def test_a_secret_that_another_process_made_meanwhile_is_taken(tmp_path, monkeypatch):
    link = os.link

    def slower(source, target):
        Path(target).write_text("theirs")
        link(source, target)

    monkeypatch.setattr(os, "link", slower)
    made = standalone_environment(tmp_path / "deep" / "home", 1)
    assert made["AIRFLOW__API_AUTH__JWT_SECRET"] == "theirs"
    assert not [one for one in (tmp_path / "deep" / "home").iterdir() if one.name.startswith("tmp")]


def test_spark_drivers_share_the_cores_of_this_machine(monkeypatch):
    for cores, slots in ((None, 2), (4, 2), (12, 3), (15, 3)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert pools()["spark"][0] == slots
    assert pools(8)["spark"][0] == 2


class Airflow(BaseHTTPRequestHandler):
    """Answers as Airflow's API does; the pool `gpu` exists already."""

    asked: list
    pool_answers = {"gpu": 409, "spark": 201}  # noqa: RUF012

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, self.headers["Content-Type"], self.headers["Authorization"], body))
        self.send_response(self.pool_answers[body["name"]] if "name" in body else 201)
        self.end_headers()
        self.wfile.write(b'{"access_token": "T0KEN"}')

    def log_message(self, *arguments):
        pass


@pytest.fixture
def airflow(serve, tmp_path, monkeypatch):
    """The port of an Airflow that runs in `tmp_path`, whose password is known there."""
    monkeypatch.setattr(Airflow, "asked", [], raising=False)
    (tmp_path / "simple_auth_manager_passwords.json.generated").write_text('{"admin": "geheim", "other": "x"}')
    return int(serve(Airflow).rpartition(":")[2])


def test_pools_are_made_once_with_the_password_of_this_home(airflow, tmp_path):
    assert token(tmp_path, airflow) == "T0KEN"
    create_pools(tmp_path, airflow)
    entered = ("/auth/token", "application/json", None, {"username": "admin", "password": "geheim"})
    assert Airflow.asked[:2] == [entered] * 2
    assert Airflow.asked[2:] == [
        (
            "/api/v2/pools",
            "application/json",
            "Bearer T0KEN",
            {"name": name, "slots": slots, "description": description, "include_deferred": False},
        )
        for name, (slots, description) in pools().items()
    ]


def test_a_pool_that_cannot_be_made_is_an_error(airflow, tmp_path, monkeypatch):
    monkeypatch.setattr(Airflow, "pool_answers", {"gpu": 500, "spark": 201})
    with pytest.raises(urllib.error.HTTPError, match="500"):
        create_pools(tmp_path, airflow)


@pytest.mark.parametrize(("said", "hours"), [(None, 6), ("", 6), ("0", 0), (" 1.5 ", 1.5)])
def test_how_long_a_run_may_wait(monkeypatch, said, hours):
    monkeypatch.delenv("GRISTMILL_QUEUED_HOURS", raising=False)
    if said is not None:
        monkeypatch.setenv("GRISTMILL_QUEUED_HOURS", said)
    assert queued_hours() == hours


@pytest.mark.parametrize("said", ["soon", "-1", "nan", "inf", "9000"])
def test_a_wrong_number_of_hours_is_refused(monkeypatch, said):
    monkeypatch.setenv("GRISTMILL_QUEUED_HOURS", said)
    with pytest.raises(ValueError, match=rf"^GRISTMILL_QUEUED_HOURS={said}: give hours as a number from 0"):
        queued_hours()


def test_notifiers_are_separated_by_spaces_or_commas(monkeypatch):
    monkeypatch.setenv("GRISTMILL_ON_FAILURE", " a.b, c.d\te.f ,")
    assert notifier_paths() == ["a.b", "c.d", "e.f"]
    monkeypatch.delenv("GRISTMILL_ON_FAILURE")
    assert notifier_paths() == []
