"""How much memory a task has taken on its machine."""

import os
from pathlib import Path

PROC = Path("/proc")


def peak_bytes(pid: int | None = None, proc: Path = PROC) -> int | None:
    """The peak resident memory of a process and its living descendants, in bytes; None where /proc does not tell.

    Each process's own peak is counted, so the sum is an upper bound. A Spark driver's JVM and workers on this machine
    are descendants; executors elsewhere, other ranks of a training, and a GPU's memory are not in it.
    """
    peaks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for folder in proc.glob("[0-9]*"):
        try:
            lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
            children.setdefault(int(lines["PPid"]), []).append(int(folder.name))
            peaks[int(folder.name)] = int(lines.get("VmHWM", "0 kB").split()[0]) * 1024
        except (OSError, KeyError, ValueError):  # it has just ended
            continue
    waiting, total = [pid or os.getpid()], 0
    while waiting:
        one = waiting.pop()
        total += peaks.get(one, 0)
        waiting += children.pop(one, [])
    return total or None
