"""The child process that does a task's work: its command line, its start under the supervisor, its output and what its end means."""

import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from contract.errors import EXIT_BAD_INPUT, EXIT_BAD_RECIPE, EXIT_INTERRUPTED, GristmillError
from contract.plan import Run, Task
from contract.stages import STAGES, Plane

GRACE_S: dict[Plane, int] = {"spark": 20, "gpu": 600, "local": 60}
"""How long a child may take to stop well: a Spark driver ends its executors, a training stage finishes its step and its checkpoint."""


def command(run: Run, task: Task) -> list[str]:
    """The command line of a task, with this environment's own Python."""
    plane = STAGES[task.stage].plane
    recipe = ["--recipe", run.uri]
    if plane == "spark":
        return [sys.executable, "-m", "pipelines", task.stage, *recipe, "--partition", task.partition]
    if plane == "local":
        return [sys.executable, "-m", "training", task.stage, *recipe]
    engine = run.recipe.section(task.stage).engine  # type: ignore[attr-defined]
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", str(engine.processes)]
    return [*launcher, "--master_port", str(_free_port()), "--module", "training", task.stage, *recipe]


def check(recipe: str) -> list[str]:
    """Let the Spark plane refuse a run before it begins, in a process of its own, and return the lines that it prints.

    Raises GristmillError as that process ended.
    """
    arguments = [sys.executable, "-m", "pipelines", "check", "--recipe", recipe]
    done = subprocess.run(arguments, capture_output=True, text=True, errors="replace", env=child_environment())
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
        error = GristmillError(said or f"{shown(arguments)} ended with exit code {done.returncode}")
        error.exit_code = done.returncode
        raise error
    return done.stdout.splitlines()


def _free_port() -> int:
    """For the ranks to meet on: with the launcher's fixed one, two runs on a machine would collide."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def lock_path(run: Run, task: Task) -> Path:
    """The lock by which two attempts at a task on one machine exclude each other. Airflow's home is shared by its tasks."""
    home = Path(os.environ.get("AIRFLOW_HOME") or Path.home() / "airflow")
    store = hashlib.sha256(run.store.uri.encode()).hexdigest()[:8]
    return home / "locks" / f"{task.stage}-{task.partition}-{task.fingerprint[:16]}-{store}.lock"


def child_environment() -> dict[str, str]:
    """This process's variables without Airflow's settings, connections and variables, which hold its secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW"))}


class Child:
    """A running child and its supervisor. Read `lines` to the end, then `code`."""

    def __init__(self, arguments: list[str], lock: Path, grace_s: int) -> None:
        supervisor = Path(__file__).with_name("supervisor.py")
        options = ["--lock", str(lock), "--grace", str(grace_s), "--parent", str(os.getpid())]
        self.errors: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, str(supervisor), *options, "--", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
            text=True,
            errors="replace",
        )

    def lines(self) -> Iterator[str]:
        """What the child prints, as it prints it, without empty lines. Remembers its `error:` lines."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.rstrip()
            if text.startswith("error: "):
                self.errors.append(text.removeprefix("error: "))
            if text:
                yield text

    @property
    def code(self) -> int:
        """The exit code; waits for the end."""
        return self._process.wait()

    def stop(self) -> None:
        """Ask the supervisor to stop the child well, and do not wait."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


def verdict(code: int) -> str:
    """What an exit code asks for: done, fail (a retry changes nothing), resume (at once) or retry (after a pause)."""
    if code == 0:
        return "done"
    if code in (EXIT_BAD_INPUT, EXIT_BAD_RECIPE):
        return "fail"
    return "resume" if code == EXIT_INTERRUPTED else "retry"


def shown(arguments: list[str]) -> str:
    """A command line as a person would type it."""
    return shlex.join(arguments)
