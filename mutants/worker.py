"""Runs the tests of one fault after another in a copy of the tree.

Each run is a fork of a process that has imported the slow libraries already, and begins with the tests that were quickest when the code
had no fault: most faults are noticed by a test that takes milliseconds.
"""

import contextlib
import ctypes
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mutants.areas import area
from mutants.faults import Fault, apply, change

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
SLOW_IMPORTS = (
    "pytest",
    "hypothesis",
    "numpy",
    "pyarrow.fs",
    "pyarrow.parquet",
    "pydantic",
    "boto3",
    "torch",
    "transformers",
    "pyspark.sql",
    "numba",
    "trafilatura",
)


@dataclass(frozen=True)
class Outcome:
    """How a run of tests ended: pytest's exit code, None where time ran out. seconds: wall time."""

    code: int | None
    seconds: float
    said: str


def serve(number: int, root: Path, known: Set[tuple[str, str]], jobs: Any, results: Any) -> None:
    """Take the faults of one module after another from the queue `jobs` until it says None.

    Puts (fault, state, seconds, change) of each into `results`. A fault that is `known` to be equivalent, by its module and change, needs
    no tests.
    """
    with tempfile.TemporaryDirectory(prefix=f"gristmill-mutants-{number}-") as folder:
        place = Path(folder) / "tree"
        copy_tree(root, place)
        enter(place)
        while of_module := jobs.get():
            for result in _try(of_module, place, known):
                results.put(result)
        os.chdir(root)


def _try(
    of_module: Sequence[Fault], place: Path, known: Set[tuple[str, str]]
) -> Iterator[tuple[Fault, str, float, str]]:
    module = of_module[0].module
    log, seconds = place.with_name("log"), place.with_name(f"{module.replace('/', '.')}.json")
    source, files = (place / module).read_text(), area(module, place)
    changed = {fault: apply(fault, source) for fault in of_module}
    said = {fault: change(source, faulty) for fault, faulty in changed.items()}
    equivalent = [fault for fault in of_module if (module, said[fault]) in known]
    yield from ((fault, "equivalent", 0.0, said[fault]) for fault in equivalent)
    left = [fault for fault in of_module if fault not in equivalent]
    if not left:
        return
    sound = run(files, log, 600, seconds)
    for fault in left:
        if sound.code != 0:
            yield fault, f"untried, the tests fail without a fault: {sound.said[-300:]}", sound.seconds, ""
            continue
        (place / module).write_text(changed[fault])
        outcome = run(files, log, 3 * sound.seconds + 10, seconds)
        yield fault, _state(outcome.code), outcome.seconds, said[fault]
    (place / module).write_text(source)


def _state(code: int | None) -> str:
    if code is None:
        return "noticed, time ran out"
    return "survived" if code == 0 else "noticed"


def copy_tree(root: Path, place: Path) -> None:
    """Copy the files that git tracks or would track, and compile them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (root / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, place / name)
    compile_tree(place)


def compile_tree(place: Path) -> None:
    """Python compares the compiled code with the content of its source, so that a changed file counts at once."""
    compiling = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "."]
    subprocess.run(compiling, cwd=place, check=True)


def enter(place: Path) -> None:
    """Make this process one that forks test runs in `place`: its modules are found first, no stale bytecode is left."""
    os.chdir(place)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what a killed test leaves comes to us
    os.environ |= {
        "PYTHONPATH": f"{place}{os.pathsep}{place / 'plugins'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    sys.dont_write_bytecode = True
    sys.path[:] = [
        str(place),
        str(place / "plugins"),
        *(entry for entry in sys.path if Path(entry or ".").resolve() != place),
    ]
    for name in SLOW_IMPORTS:
        importlib.import_module(name)


class QuickestFirst:
    """A plugin of pytest: orders the tests of each file by the seconds that an earlier run wrote into `file`, or writes them there."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, float] | None = json.loads(file.read_text()) if file.exists() else None
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self._known is not None:
            files = list(dict.fromkeys(item.path for item in items))
            items.sort(key=lambda item: (files.index(item.path), self._known.get(item.nodeid, 0.0)))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        if self._known is None:
            self._file.write_text(json.dumps(self._seconds))


def run(tests: Iterable[str], log: Path, limit_s: float, seconds: Path) -> Outcome:
    """Run these test files until one fails, at most `limit_s` seconds, in a fork; ends all that they started.

    seconds: the file of `QuickestFirst`. The run that makes it also keeps pytest's rewritten tests, which the later ones then only load.
    """
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _test(list(tests), log, seconds)
    code = _wait(child, began + limit_s)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    return Outcome(code, time.monotonic() - began, log.read_text(errors="replace")[-2000:])


def _test(tests: list[str], log: Path, seconds: Path) -> None:
    """In the fork: pytest's exit code is ours. Never returns."""
    import pytest

    code = 3  # pytest's own for an internal error
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.dont_write_bytecode = seconds.exists()
        chosen = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-m", "not slow", *tests]
        code = int(pytest.main(chosen, [QuickestFirst(seconds)]))
    finally:
        os._exit(code)


def _wait(child: int, deadline: float) -> int | None:
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
