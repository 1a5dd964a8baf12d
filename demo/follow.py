"""Follow a run through the DAGs that its assets start, and show on the terminal what happens."""

import datetime
import re
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from contract.errors import GristmillError
from contract.metrics import PROGRESS, clock
from demo.rest import Airflow

CHAIN = ("corpus", "pretrain", "align", "evaluate")
POLL_S = 1.0
PLAIN_EVERY_S = 15.0  # between progress lines where output is no terminal
HANDOVER_S = 90  # an asset event starts the next DAG within seconds; later than this means never
OVER = ("success", "failed", "skipped", "upstream_failed", "removed")


class Screen:
    """Lines that stay, and below them one line that changes. Where output is no terminal the changing line is printed now and then."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._live = out.isatty()
        self._last = 0.0
        self._shown = ""

    def say(self, line: str = "") -> None:
        """A line that stays."""
        print(f"\r\x1b[K{line}" if self._live else line, file=self._out, flush=True)
        self._shown = ""

    def show(self, line: str) -> None:
        """The line that changes."""
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{line[:width]}", end="", file=self._out, flush=True)
        elif line != self._shown and time.monotonic() - self._last > PLAIN_EVERY_S:
            print(line, file=self._out, flush=True)
            self._last, self._shown = time.monotonic(), line


class TaskFailed(GristmillError):
    """A task failed for good; the message names it, its reason and its page in the web UI."""


def follow_chain(
    airflow: Airflow, screen: Screen, corpus_run: str, key: str, outcome: Callable[[dict[str, Any]], str]
) -> None:
    """Follow `corpus` and the DAGs after it until all are done. `outcome` describes a finished task in a few words."""
    after = datetime.datetime.now(datetime.UTC).isoformat()
    run_id = corpus_run
    for position, dag in enumerate(CHAIN):
        if position:
            run_id = _wait_for_run(airflow, screen, dag, key, after)
        screen.say(f"\n{dag}  {airflow.page(dag, run_id)}")
        follow_run(airflow, screen, dag, run_id, outcome)


def _wait_for_run(airflow: Airflow, screen: Screen, dag: str, key: str, after: str) -> str:
    deadline = time.monotonic() + HANDOVER_S
    while time.monotonic() < deadline:
        run = airflow.newest_run(dag, key, after)
        if run:
            return str(run["dag_run_id"])
        screen.show(f"  {dag}: waiting for the asset event that starts it")
        time.sleep(POLL_S)
    raise GristmillError(
        f"{dag} did not start within {HANDOVER_S} s of its inputs; see {airflow.url}/assets, or trigger {dag} there by hand"
    )


def follow_run(
    airflow: Airflow, screen: Screen, dag: str, run_id: str, outcome: Callable[[dict[str, Any]], str]
) -> None:
    """Show a run's tasks as they go until it ends; raises TaskFailed when it failed."""
    told: dict[tuple[str, int], tuple[str, int]] = {}
    while True:
        state = airflow.run(dag, run_id)["state"]
        tasks = airflow.tasks(dag, run_id)
        for task in sorted(tasks, key=lambda one: one["end_date"] or ""):
            at = (task["task_id"], task["map_index"])
            now = (task["state"], task["try_number"])
            if told.get(at) == now:
                continue
            told[at] = now
            if task["state"] in ("success", "skipped"):
                screen.say(f"  {_name(task):<44} {_seconds(task):>6}  {outcome(task)}".rstrip())
            elif task["state"] in ("failed", "up_for_retry"):
                what = "failed" if task["state"] == "failed" else "failed, will be tried again"
                screen.say(f"  {_name(task):<44} {_seconds(task):>6}  {what}: {reason(airflow.log(task))}")
        if state in ("success", "failed"):
            break
        screen.show("  " + (" | ".join(_progress(airflow, one) for one in tasks if one["state"] == "running") or state))
        time.sleep(POLL_S)
    if state == "failed":
        raise _failure(airflow, dag, run_id, tasks)


def _failure(airflow: Airflow, dag: str, run_id: str, tasks: list[dict[str, Any]]) -> TaskFailed:
    failed = [one for one in tasks if one["state"] == "failed"]
    if not failed:
        return TaskFailed(f"{dag} failed; see {airflow.page(dag, run_id)}")
    first = min(failed, key=lambda one: one["end_date"] or "")
    return TaskFailed(
        f"{dag}.{_name(first)} failed: {reason(airflow.log(first))}; its log: {airflow.page(dag, run_id, first)}"
    )


def reason(lines: Any) -> str:
    """The line of a task's log that says why it failed: ours if there is one, else the last exception's."""
    said = [line.strip() for line in lines]
    ours = [found[1] for line in said if (found := re.search(r"\berror: (.+)", line))]
    if ours:
        return ours[-1]
    raised = [line for line in said if re.match(r"[\w.]*(Error|Exception|Interrupted)\b.*", line)]
    return (raised or said or ["its log is empty"])[-1]


def latest_progress(lines: Any) -> str | None:
    """What the last progress line of a log says, in the words of the terminal."""
    found = None
    for line in lines:
        found = PROGRESS.search(line) or found
    if found is None:
        return None
    total = f" of {found['total']}" if found["total"] else ""
    left = f", {found['left']} left" if found["left"] else ""
    note = f", {found['note']}" if found["note"] else ""
    return f"{found['done']}{total} {found['unit']}, {found['rate']}/s{left}{note}"


def _progress(airflow: Airflow, task: dict[str, Any]) -> str:
    said = latest_progress(airflow.log(task))
    return f"{_name(task)}: {said or 'started'} ({_seconds(task)})"


def _name(task: dict[str, Any]) -> str:
    shown = task.get("rendered_map_index")
    name = task["task_id"].rpartition(".")[2]
    if task["map_index"] < 0:
        return str(name)
    return f"{name} {shown or task['map_index']}"


def _seconds(task: dict[str, Any]) -> str:
    if not task["start_date"]:
        return ""
    began = datetime.datetime.fromisoformat(task["start_date"])
    ended = (
        datetime.datetime.fromisoformat(task["end_date"]) if task["end_date"] else datetime.datetime.now(datetime.UTC)
    )
    return clock((ended - began).total_seconds())
