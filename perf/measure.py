"""What a command costs: wall time, processor time of it and everything it starts, and the most memory that they hold together."""

import ctypes
import os
import resource
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes."""

    wall: float
    processor: float
    memory: int


def cost(command: Sequence[str], cwd: Path | None = None, environment: dict[str, str] | None = None) -> Cost:
    """Run a command to its end; raises CalledProcessError where it fails. One at a time: orphans are counted too."""
    adopt()
    before, start = _processor(), time.monotonic()
    child = subprocess.Popen(command, cwd=cwd, env=os.environ | (environment or {}))
    peak, done = [0], threading.Event()
    ticks: dict[int, int] = {}  # by process, because what a process's parent never waited for is in nobody's account

    def watch() -> None:
        while not done.wait(0.5):
            alive = family(child.pid)
            ticks.update(alive)
            peak[0] = max(peak[0], sum(map(_held, alive)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = child.wait()
    wall = time.monotonic() - start
    done.set()
    watcher.join()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    if code:
        raise subprocess.CalledProcessError(code, command)
    return Cost(wall, max(_processor() - before, sum(ticks.values()) / os.sysconf("SC_CLK_TCK")), peak[0])


def adopt() -> None:
    """Make this process the parent of whatever outlives its own among its descendants."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def family(root: int) -> dict[int, int]:
    """A process and its descendants, each with the processor time that it has used itself, in clock ticks."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)], ticks[int(folder.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    found = {root} & ticks.keys()
    for _ in range(8):
        found |= {child for child, parent in parents.items() if parent in found}
    return {process: ticks[process] for process in found}


def _held(process: int) -> int:
    """Bytes; memory that forks share counts once where the kernel says how much that is."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        try:
            return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096
        except (OSError, IndexError):
            return 0
