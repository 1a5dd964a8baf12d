"""Checks that this machine can run Gristmill. Standard library only, because it runs before anything is installed."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

SETUP_GIB = (
    8  # packages with a CPU build of PyTorch, unpacked, and the demo's store; a CUDA build takes about as much again
)


def problem(folder: Path, free_gib: float = SETUP_GIB) -> str | None:
    """One line on what is missing and how to install it, or None."""
    return python_problem() or java_problem() or compiler_problem() or disk_problem(folder, free_gib)


def python_problem(version: tuple[int, ...] = sys.version_info[:2]) -> str | None:
    """Airflow, Spark and DeepSpeed are pinned to versions that were tried together on 3.11 only."""
    if tuple(version) != (3, 11):
        return (
            f"this is Python {'.'.join(map(str, version))}, 3.11 is needed; "
            "install it and run: make PYTHON=/path/to/python3.11 ..."
        )
    if importlib.util.find_spec("ensurepip") is None:
        return "this Python cannot make virtual environments; on Debian: apt-get install python3.11-venv"
    return None


def java_problem(command: str = "java") -> str | None:
    """Spark 4 needs Java 17 or newer."""
    what = "Spark needs Java 17; on Debian: apt-get install openjdk-17-jre-headless"
    try:
        said = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.SubprocessError):
        return f"no Java was found: {what}"
    found = re.search(r'version "(\d+)', said)
    if found is None:
        return f"`java -version` does not work: {what}"
    if int(found[1]) < 17:
        return f"Java {found[1]} is too old: {what}"
    return None


def compiler_problem() -> str | None:
    """DeepSpeed compiles its CPU communication when it is first used."""
    if shutil.which("g++") is None:
        return "no C++ compiler was found: DeepSpeed needs one; on Debian: apt-get install g++"
    return None


def disk_problem(folder: Path, free_gib: float) -> str | None:
    """`folder` need not exist yet; its nearest existing parent is checked."""
    at = folder.absolute()
    while not at.exists():
        at = at.parent
    free = shutil.disk_usage(at).free / (1 << 30)
    if free < free_gib:
        return (
            f"{at}: {free:.1f} GiB of disk are free, {free_gib:g} GiB are needed; "
            "make room or choose another folder with WHERE=DIR"
        )
    return None


if __name__ == "__main__":
    found = problem(Path.cwd())
    if found:
        sys.exit(f"error: {found}")
