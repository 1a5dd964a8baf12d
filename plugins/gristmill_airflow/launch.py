"""The child process that does a task's work: its command line, its start under the supervisor, its output and what its end means."""

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
from contract.stages import STAGES, Plane
from gristmill_airflow.output import ending

GRACE_S: dict[Plane, int] = {"spark": 20, "gpu": 600, "local": 60}
"""How long a child may take to stop well: a Spark driver ends its executors, a training stage finishes its step and its checkpoint."""

NVIDIA = Path("/dev/nvidiactl")  # there is such a device where the driver is loaded
LOCKS = "GRISTMILL_LOCKS"
DEVICE_LOCKS = "/tmp"  # noqa: S108 (where all tasks of a machine meet, whatever their user and TMPDIR)


def accelerators(processes: int) -> list[int]:
    """The numbers of the accelerators that the ranks use; empty where they run on the CPU.

    They are the first of CUDA_VISIBLE_DEVICES where that is set, and the first of the machine elsewhere.

    Raises RecipeError where CUDA_VISIBLE_DEVICES names too few, or names them in a way that DeepSpeed's launcher does not read.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not NVIDIA.exists() or visible in ("", "-1"):  # set to these, it hides every device
        return []
    if visible is None:
        return list(range(processes))
    named = [one.strip() for one in visible.split(",")]
    if not all(one.isdecimal() for one in named):
        raise RecipeError(f"CUDA_VISIBLE_DEVICES={visible}: name the devices by number, for example 0,1")
    if len(named) < processes:
        raise RecipeError(
            f"CUDA_VISIBLE_DEVICES={visible} names {len(named)} devices, engine.processes asks for {processes}; lower it or name more"
        )
    return [int(one) for one in named[:processes]]


def device_locks(run: Run, task: Task) -> list[Path]:
    """The locks of the accelerators that a task uses, of the CPU as one where the machine has none; no lock for other planes."""
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
    """The command line of a task, with this environment's own Python."""
    plane = STAGES[task.stage].plane
    recipe = ["--recipe", run.uri]
    if plane == "spark":
        return [sys.executable, "-m", "pipelines", task.stage, *recipe, "--partition", task.partition]
    if plane == "local":
        return [sys.executable, "-m", "training", task.stage, *recipe]
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    where = _where(_processes(run, task))
    here = ["--hostfile", os.devnull]  # else ranks start wherever /job/hostfile says, which others may have left
    quiet = ["--log_level", "error"]  # else its own settings fill a screen before the stage says a word
    module = ["--master_port", str(_free_port()), "--module", "training", task.stage]
    return [launcher, *where, *here, *quiet, *module, *recipe]


def _where(processes: int) -> list[str]:
    """The launcher's option that says on which devices the ranks run.

    Given only a number of ranks, the launcher ignores CUDA_VISIBLE_DEVICES and takes the machine's first devices.
    """
    used = accelerators(processes)
    if used == list(range(len(used))):
        return ["--num_accelerators", str(processes)]
    return ["--include", f"localhost:{','.join(map(str, used))}"]


def check(recipe: str) -> list[str]:
    """Let the Spark plane refuse a run before it begins, in a process of its own, and return the lines that it prints.

    Raises GristmillError as that process ended.
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
    """What a child said in one line. Only a line feed ends it: at a `\\r` that a page's URL holds, what follows is no line of ours."""
    return printable(said.decode(errors="replace").expandtabs().rstrip())


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

    def __init__(self, arguments: list[str], lock: Path, grace_s: int, name: str, devices: Sequence[Path] = ()) -> None:
        """`name` tells others who holds the locks: that of the task, and those of the accelerators that it uses."""
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
        """What the child prints, as it prints it, printable and without empty lines. Remembers its `error:` lines."""
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
        """Ask the supervisor, unless it has ended, to stop the child well, and do not wait."""
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
