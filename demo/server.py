"""Starts Airflow's standalone server in its own process group, finds it again, and ends it with all its children."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from contract.errors import GristmillError
from demo.rest import healthy
from gristmill_airflow.environment import standalone_environment

START_S = 180
GRACE_S = 25  # tasks get this long to commit a checkpoint after SIGTERM
AIRFLOW_GRACE_S = 5
MARK = "GRISTMILL_DEMO"  # in the environment of everything that a demo started; its value is the demo's folder


@dataclass(frozen=True)
class Server:
    """An Airflow that was started in `folder`; `pid` is also its process group."""

    folder: Path
    pid: int
    port: int

    @property
    def home(self) -> Path:
        """Airflow's own home."""
        return self.folder / "airflow"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def find(folder: Path) -> Server | None:
    """The running Airflow that an earlier call of `start` started in this folder, or None."""
    recorded = _recorded(folder)
    return Server(folder, *recorded) if recorded and recorded[0] in processes(folder) else None


def _recorded(folder: Path) -> tuple[int, int] | None:
    try:
        pid, port = (folder / "airflow.pid").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid), int(port)


def start(folder: Path, port: int, recipe: Path | None = None) -> Server:
    """Start Airflow and wait until scheduler and DAG processor are healthy.

    Raises GristmillError with the end of Airflow's log if they do not become healthy.
    `recipe` becomes the default of the trigger forms, unless GRISTMILL_RECIPE names another.
    """
    check_port(port)
    environment = standalone_environment(folder / "airflow", port)
    if recipe:
        environment.setdefault("GRISTMILL_RECIPE", str(recipe.resolve()))
    log = folder / "airflow.log"
    with open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:  # it names the password
        os.fchmod(out.fileno(), 0o600)
        began_at = out.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "gristmill_airflow.standalone"],
            env={**environment, MARK: str(folder.resolve())},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its children outlive its SIGTERM, so it is ended as a group
        )
    server = Server(folder, process.pid, port)
    (folder / "airflow.pid").write_text(f"{process.pid} {port}\n")
    deadline = time.monotonic() + START_S
    while not healthy(server.url):
        if process.poll() is not None or time.monotonic() > deadline:
            stop(folder)
            with log.open("rb") as lines:
                lines.seek(began_at)
                tail = lines.read().decode(errors="replace").strip().splitlines()[-5:]
            raise GristmillError(f"Airflow does not start; the end of {log}:\n  " + "\n  ".join(tail))
        time.sleep(0.5)
    return server


def recipe_in_force(running: Server | None, form: Path) -> str:
    """The trigger forms' default recipe: `form`, unless GRISTMILL_RECIPE names another.

    Reads the variable from the running Airflow's environment, or from this process's if Airflow is yet to start.
    """
    variables: Mapping[str, str] = os.environ
    if running:
        with contextlib.suppress(psutil.Error):  # it has just ended
            variables = psutil.Process(running.pid).environ()
    return variables.get("GRISTMILL_RECIPE") or str(form.resolve())


def check_port(port: int) -> None:
    """Raises GristmillError if the port is invalid or in use; the message names the process and a free port."""
    if not 0 < port < 65536:
        raise GristmillError(f"port {port}: ports go from 1 to 65535; make demo PORT=8080")
    try:
        taken = not is_free(port)
    except PermissionError:
        raise GristmillError(f"port {port}: this user may not listen there; make demo PORT=8080") from None
    if taken:
        free = next(one for one in (*range(port + 1, 65536), *range(port - 1, 1023, -1)) if is_free(one))
        raise GristmillError(
            f"port {port} is in use by {_holder(port)}; end that, or choose another: make demo PORT={free}"
        )


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of loopback. Raises PermissionError if this user may not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def _holder(port: int) -> str:
    """The process that listens on a port, as far as this user may see it."""
    for socket_ in psutil.net_connections("tcp"):
        if socket_.status == psutil.CONN_LISTEN and socket_.laddr.port == port and socket_.pid:
            with contextlib.suppress(psutil.Error):
                return f"process {socket_.pid} ({' '.join(psutil.Process(socket_.pid).cmdline())[:80].strip()})"
    return "a process of another user"


def stop(folder: Path) -> int:
    """End all processes that demos in this folder started, first with SIGTERM. Returns how many were alive.

    Stages, which run in sessions of their own, get GRACE_S to commit. Airflow gets less: its state is in its database,
    and on a busy machine it would take half a minute to end.
    """
    recorded = _recorded(folder)
    found = processes(folder)
    for pid in found:
        _signal(pid, signal.SIGTERM)
    began = time.monotonic()
    while alive := processes(folder):
        waited = time.monotonic() - began
        stages = any(_session(pid) not in (None, recorded and recorded[0]) for pid in alive)
        if waited > (GRACE_S if stages else AIRFLOW_GRACE_S):
            break
        time.sleep(0.2)
    for pid in alive:
        _signal(pid, signal.SIGKILL)
    (folder / "airflow.pid").unlink(missing_ok=True)
    return len(found)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def processes(folder: Path) -> set[int]:
    """Living processes that a demo in this folder started: those in the server's session, and those with its MARK.

    Both tests are needed: stages run in sessions of their own, and Airflow's workers overwrite their environment with
    their titles.
    """
    recorded = _recorded(folder)
    mark = str(folder.resolve())
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it ended meanwhile, or belongs to another user
            if process.environ().get(MARK) == mark or (
                recorded is not None
                and _session(process.pid) == recorded[0]
                and "airflow" in " ".join(process.cmdline())  # another process may have got the same id
            ):
                found.add(process.pid)
    return found


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
