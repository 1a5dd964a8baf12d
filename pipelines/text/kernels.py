"""Compiles functions with numba and keeps their machine code on disk, in a folder for each state of all their sources.

A compiled function (a kernel) contains the machine code of the kernels that it calls, but numba compares only the file
that defines it: after an edit of a shared hash, kernels in other files would keep the old one, and nobody would notice.
So the folder is named by a digest of every file with kernels, and an edit of one of them starts an empty folder. numba
itself recompiles for another version of numba or Python, or another processor.
"""

import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba

PACKAGE = Path(__file__).parents[1]
HOLDS_KERNELS = re.compile(rb"^@kernel\b", re.MULTILINE)
NAME = "gristmill-kernels-"
UNUSED_SECONDS = 24 * 3600

CONFIG: Any = numba.config

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_decorating = threading.Lock()


def kernel(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile a function on its first call, or load it from `cache_folder`. It runs without Python's global lock.

    Without a folder, it is compiled in each process.
    """
    # numba takes the folder from its settings alone, and reads them now; then other libraries get theirs back.
    with _decorating:
        folder = cache_folder()
        before = CONFIG.CACHE_DIR, CONFIG.CACHE_LOCATOR_CLASSES
        CONFIG.CACHE_DIR, CONFIG.CACHE_LOCATOR_CLASSES = str(folder), "UserProvidedCacheLocator"
        try:
            compiled: Callable[Arguments, Result] = numba.njit(cache=folder is not None, nogil=True)(function)
        finally:
            CONFIG.CACHE_DIR, CONFIG.CACHE_LOCATOR_CLASSES = before
    return compiled


@cache
def cache_folder() -> Path | None:
    """The first folder of `_places` that this process may write, or None. All processes of a user find the same one.

    Removes the folders of other sources that no process has looked up for a day.
    """
    name = f"{NAME}{digest()}"
    for place in _places():
        folder = place / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            os.utime(folder)
        except OSError:
            continue
        _remove_unused(place, folder)
        return folder
    return None


def digest() -> str:
    """Sixteen hexadecimal digits that change with the name or content of any of `sources`."""
    whole = hashlib.sha256()
    for file, content in sources().items():
        whole.update(f"{file.relative_to(PACKAGE)} {len(content)}\n".encode() + content)
    return whole.hexdigest()[:16]


def sources() -> dict[Path, bytes]:
    """The files that decide the machine code: all with a line `@kernel`, and this one, which sets the options."""
    read = {file: file.read_bytes() for file in sorted(PACKAGE.rglob("*.py"))}
    return {file: content for file, content in read.items() if HOLDS_KERNELS.search(content) or file.samefile(__file__)}


def _places() -> Iterator[Path]:
    """Where numba itself looks, in its order: NUMBA_CACHE_DIR, beside the sources, the user's folder of caches."""
    if CONFIG.CACHE_DIR:
        yield Path(CONFIG.CACHE_DIR).absolute()
    yield PACKAGE / "__pycache__"
    with suppress(RuntimeError):  # the user has no home
        yield Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gristmill"


def _remove_unused(place: Path, used: Path) -> None:
    for other in place.glob(f"{NAME}*"):
        with suppress(OSError):  # another process may remove it, too
            if other != used and other.stat().st_mtime < time.time() - UNUSED_SECONDS:
                shutil.rmtree(other)
