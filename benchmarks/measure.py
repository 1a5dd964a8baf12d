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
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what outlives its parent is ours to wait for
    before, start = _processor(), time.monotonic()
    child = subprocess.Popen(command, cwd=cwd, env=os.environ | (environment or {}))
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], _memory(child.pid))

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
    return Cost(wall, _processor() - before, peak[0])


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _memory(root: int) -> int:
    """Bytes of the process and its descendants; memory that forks share counts once where the kernel says how much that is."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
    family, total = {root}, 0
    for _ in range(8):
        family |= {child for child, parent in parents.items() if parent in family}
    for process in family:
        total += _held(process)
    return total


def _held(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        try:
            return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096
        except (OSError, IndexError):
            return 0
