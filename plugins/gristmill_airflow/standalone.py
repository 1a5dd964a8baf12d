"""`airflow standalone` without its two log servers: python -m gristmill_airflow.standalone.

In Airflow 3.3 these listen on every interface of the machine, and no setting changes that
(airflow/utils/serve_logs/core.py). One machine does not need them: all logs lie in a folder that the web server reads
itself.
"""

import sys
from typing import Any

from airflow.cli.commands import standalone_command
from airflow.executors.local_executor import LocalExecutor

SERVE_LOGS = ("scheduler", "triggerer")  # the components that would start a log server


class FolderLogs(LocalExecutor):
    """A LocalExecutor with which the web server does not ask a log server for a running task's output."""

    serve_logs = False

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        """(places searched for the log, its lines). A place ends the search; the web server then reads the folder."""
        return ["this machine's folder of logs"], []


class Component(standalone_command.SubCommand):
    """One of standalone's child processes."""

    def __init__(self, parent: Any, name: str, command: list[str], env: dict[str, str]) -> None:
        skip = ["--skip-serve-logs"] if name in SERVE_LOGS else []
        super().__init__(parent, name, [*command, *skip], env)


def main() -> None:
    from airflow.__main__ import main as airflow

    standalone_command.SubCommand = Component  # type: ignore[misc]
    sys.argv = ["airflow", "standalone"]
    airflow()


if __name__ == "__main__":
    main()
