"""`airflow standalone` without its two log servers: python -m gristmill_airflow.standalone.

Airflow 3.3 lets them listen on every interface of the machine and has no setting for that (airflow/utils/serve_logs/core.py). On one
machine nobody needs them: all logs lie in a folder that the web server reads itself.
"""

import sys
from typing import Any

from airflow.cli.commands import standalone_command
from airflow.executors.local_executor import LocalExecutor

SERVE_LOGS = ("scheduler", "triggerer")  # the components that would start a log server


class FolderLogs(LocalExecutor):
    """Runs tasks as LocalExecutor does, and keeps the web server from asking a log server for what a running task prints."""

    serve_logs = False

    def get_task_log(self, ti: Any, try_number: int) -> tuple[list[str], list[str]]:
        """(where a log was looked for, its lines): naming a place ends the search, and the lines are those of the folder."""
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
