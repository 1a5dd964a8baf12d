"""Standalone Airflow without log servers: which components are told, and where the web server looks for a running task's log."""

from pydoc import locate

import pytest
from airflow.cli.commands import standalone_command

from gristmill_airflow import standalone
from gristmill_airflow.environment import standalone_environment


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("scheduler", ["scheduler", "--skip-serve-logs"]),
        ("triggerer", ["triggerer", "--skip-serve-logs"]),
        ("api-server", ["api-server"]),
        ("dag-processor", ["dag-processor"]),
    ],
)
def test_components_that_would_serve_logs_are_told_not_to(name, command):
    made = standalone.Component(None, name=name, command=[name], env={"A": "b"})
    assert (made.parent, made.name, made.command, made.env) == (None, name, command, {"A": "b"})


def test_airflows_own_command_starts_these_components(monkeypatch):
    monkeypatch.setattr(standalone_command, "SubCommand", standalone_command.SubCommand)
    monkeypatch.setattr(standalone.sys, "argv", ["standalone.py"])
    ran = []
    monkeypatch.setattr("airflow.__main__.main", lambda: ran.append("airflow"))
    standalone.main()
    assert ran == ["airflow"]
    assert standalone_command.SubCommand is standalone.Component
    assert standalone.sys.argv == ["airflow", "standalone"]


def test_the_executor_is_local_and_looks_for_logs_in_the_folder_alone(tmp_path):
    executor = locate(standalone_environment(tmp_path, 18123)["AIRFLOW__CORE__EXECUTOR"])
    assert (executor.is_local, executor.serve_logs) == (True, False)
    places, lines = executor.get_task_log(executor, None, 1)
    assert (len(places), lines) == (1, [])
