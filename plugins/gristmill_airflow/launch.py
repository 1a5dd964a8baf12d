"""The child process that does a task's work: command line, start under the supervisor, output and exit code."""

import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from contract.errors import EXIT_BAD_INPUT, EXIT_BAD_RECIPE, EXIT_INTERRUPTED, GristmillError, RecipeError
from contract.plan import Run, Task
from contract.printable import printable
from contract.stages import STAGES, WHOLE, Plane
from gristmill_airflow.output import ending

GRACE_S: dict[Plane, int] = {"spark": 20, "gpu": 600, "local": 60}
"""Seconds that a child may take to stop: a Spark driver ends its executors, a training stage saves a checkpoint."""

NVIDIA = Path("/dev/nvidiactl")  # exists while the driver is loaded
LOCKS = "GRISTMILL_LOCKS"
DEVICE_LOCKS = "/tmp"  # noqa: S108 (the same for all tasks of a machine, whatever their user and TMPDIR)


def accelerators(processes: int) -> list[int]:
    """The numbers of the accelerators that the ranks use; empty if they run on the CPU.

    They are the first of CUDA_VISIBLE_DEVICES if that is set, else the first of the machine. Raises RecipeError if
    CUDA_VISIBLE_DEVICES names too few, or in a form that DeepSpeed's launcher does not read.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not NVIDIA.exists() or visible in ("", "-1"):  # these values hide every device
        return []
    if visible is None:
        return list(range(processes))
    named = [number.strip() for number in visible.split(",")]
    if not all(number.isdecimal() for number in named):
        raise RecipeError(f"CUDA_VISIBLE_DEVICES={visible}: name the devices by number, for example 0,1")
    if len(named) < processes:
        raise RecipeError(
            f"CUDA_VISIBLE_DEVICES={visible} names {len(named)} devices, engine.processes asks for {processes}; "
            "lower it or name more devices"
        )
    return [int(number) for number in named[:processes]]


def device_locks(run: Run, task: Task) -> list[Path]:
    """The locks of the accelerators that a GPU task uses, or of the CPU if it uses none; no locks for other planes."""
    if STAGES[task.stage].plane != "gpu":
        return []
    used = accelerators(_processes(run, task))
    names = [f"gpu-{number}" for number in used] or ["cpu"]
    folder = Path(os.environ.get(LOCKS) or DEVICE_LOCKS)
    return [folder / f"gristmill-{name}.lock" for name in names]


def _processes(run: Run, task: Task) -> int:
    processes: int = run.recipe.section(task.stage).engine.processes  # type: ignore[attr-defined]
    return processes


def command(run: Run, task: Task) -> list[str]:
    """The command line of a task, with the Python of this environment."""
    plane = STAGES[task.stage].plane
    recipe = ["--recipe", run.uri]
    if plane == "spark":
        return [sys.executable, "-m", "pipelines", task.stage, *recipe, "--partition", task.partition]
    if task.partition != WHOLE:
        recipe += ["--partition", task.partition]
    if plane == "local":
        return [sys.executable, "-m", "training", task.stage, *recipe]
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    where = _where(_processes(run, task))
    here = ["--hostfile", os.devnull]  # else a stray /job/hostfile decides where ranks start
    quiet = ["--log_level", "error"]  # else the launcher's settings fill a screen before the stage's output
    module = ["--master_port", str(_free_port()), "--module", "training", task.stage]
    return [launcher, *where, *here, *quiet, *module, *recipe]


def _where(processes: int) -> list[str]:
    """The launcher's option for the devices of the ranks.

    Given only a number of ranks, the launcher ignores CUDA_VISIBLE_DEVICES and takes the machine's first devices.
    """
    used = accelerators(processes)
    if used == list(range(len(used))):
        return ["--num_accelerators", str(processes)]
    return ["--include", f"localhost:{','.join(map(str, used))}"]


def check(recipe: str) -> list[str]:
    """Let the Spark plane check a run before it begins, in a process of its own, and return the lines that it prints.

    Raises GristmillError with that process's message and exit code if it refuses the run.
    """
    arguments = [sys.executable, "-m", "pipelines", "check", "--recipe", recipe]
    done = subprocess.run(arguments, capture_output=True, env=child_environment())
    if done.returncode:
        said = _line(done.stderr.strip().rpartition(b"\n")[2]).removeprefix("error: ")
        error = GristmillError(said or f"{shown(arguments)} {ending(done.returncode)}")
        error.exit_code = done.returncode
        raise error
    return [_line(line) for line in done.stdout.rstrip(b"\n").split(b"\n")] if done.stdout else []


def _line(said: bytes) -> str:
    """One line of a child's output, printable. Only a line feed ends a line: a page's URL may hold a `\\r`."""
    return printable(said.decode(errors="replace").expandtabs().rstrip())


def _free_port() -> int:
    """A port for the ranks' rendezvous: with the launcher's fixed port, two runs on a machine would collide."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def lock_path(run: Run, task: Task) -> Path:
    """The lock that keeps two attempts at a task on one machine apart. All tasks share Airflow's home."""
    home = Path(os.environ.get("AIRFLOW_HOME") or Path.home() / "airflow")
    store = hashlib.sha256(run.store.uri.encode()).hexdigest()[:8]
    return home / "locks" / f"{task.stage}-{task.partition}-{task.fingerprint[:16]}-{store}.lock"


def child_environment() -> dict[str, str]:
    """This process's environment without Airflow's settings, connections and variables, which hold its secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW"))}


class Child:
    """A running child and its supervisor. Read `lines` to the end, then `code`."""

    def __init__(self, arguments: list[str], lock: Path, grace_s: int, name: str, devices: Sequence[Path] = ()) -> None:
        """`name` is the holder's name in the locks, for others that wait. `devices` are the accelerators' locks."""
        supervisor = Path(__file__).with_name("supervisor.py")
        options = ["--lock", str(lock), "--name", name, "--grace", str(grace_s), "--parent", str(os.getpid())]
        for device in devices:
            options += ["--device", str(device)]
        self.errors: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, str(supervisor), *options, "--", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
        )

    def lines(self) -> Iterator[str]:
        """The child's output, line by line, printable and without empty lines. `error:` lines are kept in `errors`."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = _line(line)
            if text.startswith("error: "):
                self.errors.append(text.removeprefix("error: "))
            if text:
                yield text

    @property
    def code(self) -> int:
        """The exit code; waits for the end."""
        return self._process.wait()

    def stop(self) -> None:
        """Ask the supervisor, unless it has ended, to stop the child cleanly; do not wait."""
        self._process.send_signal(signal.SIGTERM)


def verdict(code: int) -> str:
    """The action for an exit code: done, fail (a retry changes nothing), resume (at once) or retry (after a pause)."""
    if code == 0:
        return "done"
    if code in (EXIT_BAD_INPUT, EXIT_BAD_RECIPE):
        return "fail"
    return "resume" if code == EXIT_INTERRUPTED else "retry"


def shown(arguments: list[str]) -> str:
    """A command line as a person would type it."""
    return shlex.join(arguments)
