"""Follow a run through the DAGs that its assets start, and show on the terminal what happens."""

import datetime
import re
import shutil
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from contract.approval import without_ppo
from contract.errors import GristmillError
from contract.headline import headline, omitted
from contract.manifest import find
from contract.metrics import PROGRESS, clock
from contract.plan import WHOLE, Run, open_run
from contract.printable import printable
from contract.stages import STAGES
from demo.rest import Airflow, healthy

CHAIN = ("corpus", "pretrain", "align", "evaluate")
POLL_S = 1.0
PLAIN_EVERY_S = 15.0  # between progress lines if the output is not a terminal
HANDOVER_S = 90  # an asset event starts the next DAG within seconds; after this silence the scheduler is gone


class Screen:
    """Permanent lines, and changing lines below them. Without a terminal, changing lines are printed now and then."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._live = out.isatty()
        self._last = 0.0
        self._shown: tuple[str, ...] = ()

    def say(self, line: str = "") -> None:
        """A line that stays."""
        text = "\n".join(map(printable, line.split("\n")))
        print(f"{self._clear()}{text}", file=self._out, flush=True)
        self._shown = ()

    def show(self, *lines: str) -> None:
        """The lines that change, in place of those shown before."""
        lines = tuple(map(printable, lines))
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(self._clear() + "\n".join(line[:width] for line in lines), end="", file=self._out, flush=True)
            self._shown = lines
        elif lines != self._shown and time.monotonic() - self._last > PLAIN_EVERY_S:
            print(*lines, sep="\n", file=self._out, flush=True)
            self._last, self._shown = time.monotonic(), lines

    def _clear(self) -> str:
        """The control codes that move a terminal to the first changing line and wipe all of them."""
        if not self._live:
            return ""
        return "\r" + f"\x1b[{len(self._shown) - 1}A" * (len(self._shown) > 1) + "\x1b[J"


class TaskFailed(GristmillError):
    """A task failed for good; the message names it, its reason and its page in the web UI."""


class Follower:
    """Follows a run of the recipe through all its DAG runs. `run` is None until the first task resolves the recipe."""

    def __init__(self, airflow: Airflow, screen: Screen) -> None:
        self._airflow, self._screen = airflow, screen
        self.run: Run | None = None

    def follow_chain(self, corpus_run: str, key: str) -> Run:
        """Follow `corpus` and the DAGs after it until all are done; raises TaskFailed if one fails."""
        after = datetime.datetime.now(datetime.UTC).isoformat()
        run_id = corpus_run
        for position, dag in enumerate(CHAIN):
            if position:
                run_id = self._wait_for_run(dag, key, after, self._known(corpus_run).uri)
            self._screen.say(f"\n{dag}  {self._airflow.page(dag, run_id)}")
            self.follow_run(dag, run_id)
        return self._known(corpus_run)

    def _known(self, corpus_run: str) -> Run:
        if self.run is None:
            raise GristmillError(
                f"no task of {corpus_run} named the run's recipe; see {self._airflow.page('corpus', corpus_run)}"
            )
        return self.run

    def _wait_for_run(self, dag: str, key: str, after: str, recipe: str) -> str:
        """The id of the run that our results start. Waits for a busy scheduler as long as it reports."""
        began = reported = time.monotonic()
        while (run := self._airflow.newest_run(dag, key, after, recipe)) is None:
            now = time.monotonic()
            if healthy(self._airflow.url):
                reported = now
            elif now - reported > HANDOVER_S:
                raise GristmillError(
                    f"{dag} did not start, and Airflow's scheduler has been silent for {HANDOVER_S} s; "
                    "look into airflow.log, or run: make stop demo"
                )
            self._screen.show(
                f"  {dag}: waiting for the asset event that starts it ({clock(now - began)}); "
                f"see {self._airflow.url}/assets"
            )
            time.sleep(POLL_S)
        return str(run["dag_run_id"])

    def follow_run(self, dag: str, run_id: str) -> None:
        """Show a DAG run's tasks until the run ends; raises TaskFailed if it failed."""
        told: dict[tuple[str, int], tuple[str, int]] = {}
        while True:
            state = self._airflow.run(dag, run_id)["state"]  # before the tasks, so that at the end they are final
            tasks = self._airflow.tasks(dag, run_id)
            for task in sorted(tasks, key=lambda one: one["end_date"] or ""):
                at, now = (task["task_id"], task["map_index"]), (task["state"], task["try_number"])
                if told.get(at) != now:
                    told[at] = now
                    self._tell(task)
            if state in ("success", "failed"):
                break
            running = [self._progress(task) for task in tasks if task["state"] == "running"]
            self._screen.show(*(f"  {one}" for one in running or [state]))
            time.sleep(POLL_S)
        if state == "failed":
            raise self._failure(dag, run_id, tasks)

    def _tell(self, task: dict[str, Any]) -> None:
        if task["state"] in ("success", "skipped"):
            said = self._outcome(task)
        elif task["state"] == "failed":
            said = f"failed: {reason(self._airflow.log(task))}"
        elif task["state"] == "up_for_retry":
            said = f"failed, will be tried again: {reason(self._airflow.log(task))}"
        else:
            return
        self._screen.say(f"  {self._name(task):<34} {_seconds(task):>6}  {said}".rstrip())

    def _outcome(self, task: dict[str, Any]) -> str:
        """What a finished task did, from its manifest."""
        if self.run is None and task["task_id"] == "resolve":
            self.run = open_run(self._airflow.xcom(task))
        if self.run is None or _stage(task) not in STAGES:
            return ""
        known = self.run.tasks().get((_stage(task), self._partition(task) or WHOLE))
        if known is None:  # a stage that is mapped over nothing
            return omitted(self.run.recipe, _stage(task), None) or "left out"
        manifest = find(self.run.store, known)
        if manifest is None:
            gate = find(self.run.store, self.run.task("gate"))
            why = (
                without_ppo(self.run.store, gate, self.run.task(_stage(task)))
                if _stage(task) == self.run.recipe.align and gate
                else None
            )
            return why or "left out"
        before = "done before, skipped: " if manifest.run != self.run.uri else ""
        return before + headline(manifest)

    def _progress(self, task: dict[str, Any]) -> str:
        said = latest_progress(self._airflow.log(task))
        return f"{self._name(task)}: {said or 'started'} ({_seconds(task)})"

    def _name(self, task: dict[str, Any]) -> str:
        return f"{_stage(task)} {self._partition(task)}".rstrip()

    def _partition(self, task: dict[str, Any]) -> str:
        """The partition of a mapped task: a segment of the crawl, or a model and a benchmark."""
        at = task["map_index"]
        if at < 0:
            return ""
        return self.run.mapped(_stage(task), task["dag_id"])[at] if self.run else str(at)

    def _failure(self, dag: str, run_id: str, tasks: list[dict[str, Any]]) -> TaskFailed:
        failed = [one for one in tasks if one["state"] == "failed"]
        if not failed:
            return TaskFailed(f"{dag} failed; see {self._airflow.page(dag, run_id)}")
        first = min(failed, key=lambda one: one["end_date"] or "")
        why = reason(self._airflow.log(first))
        return TaskFailed(f"{dag}.{self._name(first)} failed: {why}; its log: {self._airflow.page(dag, run_id, first)}")


EXCEPTION = re.compile(r"(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception|Interrupted|Exit)\b(?:: .+)?)$")


def reason(lines: Iterable[str]) -> str:
    """The line of a task's log that says why it failed: our error line, else the last exception not of Airflow."""
    said = [line.strip() for line in lines if line.strip() and not line.startswith("::")]
    ours = [found[1] for line in said if (found := re.match(r"error: (.+)", line))]
    if ours:
        return ours[-1]
    raised = [found[1] for line in said if (found := EXCEPTION.match(line))]
    told = [line for line in raised if not line.startswith(("AirflowException", "ChildFailedError"))]
    return (told or raised or said or ["its log is empty"])[-1]


def latest_progress(lines: Iterable[str]) -> str | None:
    """The last progress line of a log, in the terminal's format; None if there is none."""
    found = None
    for line in lines:
        found = PROGRESS.search(line) or found
    if found is None:
        return None
    total = f" of {found['total']}" if found["total"] else ""
    left = f", {found['left']} left" if found["left"] else ""
    note = f", {found['note']}" if found["note"] else ""
    return f"{found['done']}{total} {found['unit']}, {found['rate']}/s{left}{note}"


def _stage(task: dict[str, Any]) -> str:
    return str(task["task_id"]).rpartition(".")[2]


def _seconds(task: dict[str, Any]) -> str:
    if not task["start_date"]:
        return ""
    began = datetime.datetime.fromisoformat(task["start_date"])
    ended = (
        datetime.datetime.fromisoformat(task["end_date"]) if task["end_date"] else datetime.datetime.now(datetime.UTC)
    )
    return clock((ended - began).total_seconds())
