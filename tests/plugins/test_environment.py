"""The environment of a standalone Airflow: its own home and ports, a secret that lasts, nothing open to the network."""

import stat

import pytest

from gristmill_airflow.environment import PASSWORDS, password, pools, standalone_environment


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
