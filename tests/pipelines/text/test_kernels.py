"""The cache of compiled kernels: an edit of any of their sources empties it, and nothing else does."""

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import pipelines
from pipelines.text import kernels

PACKAGE = Path(pipelines.__file__).parent
SIGN = """
import json
import numpy as np
from pipelines.dedup import simhash
from pipelines.text import kernels
found = simhash.keys(np.array([7], np.uint64), 0).tolist()
stats = simhash._keys.stats
print(json.dumps({"keys": found, "hits": sum(stats.cache_hits.values()), "misses": sum(stats.cache_misses.values()),
                  "folder": str(kernels.cache_folder()), "numba": kernels.CONFIG.CACHE_DIR}))
"""
FACTOR, OTHER = "0xFF51AFD7ED558CCD", "0xFF51AFD7ED558CCF"


def mixed(value: int, factor: int) -> int:
    value = (value ^ value >> 33) * factor % 2**64
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 % 2**64
    return value ^ value >> 33


def key(factor: str) -> list[list[int]]:
    """What `simhash.keys` makes of the fingerprint 7 at distance 0, where one key has all bits."""
    return [[mixed((7 + mixed(1, int(factor, 16))) % 2**64, int(factor, 16))]]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, as an installation has it: without caches."""
    shutil.copytree(PACKAGE, tmp_path / "site" / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "site"


def sign(site: Path, *environments: dict[str, str]) -> list[dict[str, Any]]:
    """Processes that call a kernel in simhash.py, all at once, one for each environment."""
    basic = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    basic |= {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": str(site.parent / "user")}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SIGN],
            cwd=site.parent,
            env=basic | environment,
            stdout=subprocess.PIPE,
        )
        for environment in environments
    ]
    printed = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started)
    return [json.loads(one) for one in printed]


def files(folder: str) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in Path(folder).rglob("*.nb?")}


def test_an_edit_of_a_kernel_recompiles_the_kernels_of_other_files_that_call_it(copy: Path) -> None:
    first = sign(copy, {}, {})  # two at once
    assert [one["keys"] for one in first] == [key(FACTOR)] * 2
    assert max(one["misses"] for one in first) == 1
    folder = first[0]["folder"]
    assert Path(folder).parent == copy / "pipelines" / "__pycache__"
    assert first[1]["folder"] == folder
    made = files(folder)
    assert {file.name.partition("-")[0] for file in made} >= {"simhash._keys", "mixing.mix64"}
    [again] = sign(copy, {})
    assert (again["keys"], again["hits"], again["misses"], again["folder"]) == (key(FACTOR), 1, 0, folder)
    assert files(folder) == made

    source = next(file for file in (copy / "pipelines" / "text").glob("*.py") if FACTOR in file.read_text())
    source.write_text(source.read_text().replace(FACTOR, OTHER))
    [edited] = sign(copy, {})
    assert (edited["keys"], edited["hits"], edited["misses"]) == (key(OTHER), 0, 1)
    assert edited["folder"] != folder
    assert files(folder) == made


def test_the_folder_is_where_the_process_may_write(copy: Path, tmp_path: Path) -> None:
    (copy / "pipelines" / "__pycache__").write_text("no folder can be made here")
    named, locators = (
        {"NUMBA_CACHE_DIR": str(tmp_path / "named")},
        {"NUMBA_CACHE_LOCATOR_CLASSES": "InTreeCacheLocator"},
    )
    user, given = sign(copy, {}, named | locators)
    assert Path(user["folder"]).parent == tmp_path / "user" / "gristmill"
    assert Path(given["folder"]).parent == tmp_path / "named"
    assert [one["numba"] for one in (user, given)] == ["", str(tmp_path / "named")]  # other libraries keep theirs
    assert Path(user["folder"]).name == Path(given["folder"]).name
    assert files(user["folder"])
    assert files(given["folder"])
    (tmp_path / "blocked").write_text("")
    [nowhere] = sign(copy, {"XDG_CACHE_HOME": str(tmp_path / "blocked"), "NUMBA_CACHE_DIR": str(tmp_path / "blocked")})
    assert (nowhere["keys"], nowhere["folder"], nowhere["hits"]) == (key(FACTOR), "None", 0)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a new lookup of the folder begins."""
    monkeypatch.setattr(kernels.CONFIG, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernels, "cache_folder", kernels.cache_folder.__wrapped__)
    return tmp_path


def test_folders_of_other_sources_go_after_a_day_without_use(place: Path) -> None:
    now = time.time()
    for name, hours in (
        ("gristmill-kernels-old", 25),
        ("gristmill-kernels-new", 23),
        ("others", 99),
        (used := kernels.NAME + kernels.digest(), 99),
    ):
        (place / name / "dedup").mkdir(parents=True)
        os.utime(place / name, (now - hours * 3600,) * 2)
    assert kernels.cache_folder() == place / used
    assert {one.name for one in place.iterdir()} == {"gristmill-kernels-new", "others", used}
    assert (place / used / "dedup").is_dir()
    assert (place / used).stat().st_mtime > now - 60  # in use from now on


def test_the_digest_is_of_names_and_contents_of_the_files_with_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "PACKAGE", tmp_path)
    file = tmp_path / "below" / "loops.py"
    file.parent.mkdir()
    seen = [kernels.digest()]
    for content in ("@kernel\ndef f(): ...", "@kernel\ndef g(): ...", "# an @kernel elsewhere\n@kernels\ndef f(): ..."):
        file.write_text(content)
        seen.append(kernels.digest())
    assert seen[3] == seen[0]
    assert len(set(seen)) == 3
    assert {len(one) for one in seen} == {16}
    file.write_text("@kernel\ndef f(): ...")
    file.rename(file.with_name("other.py"))
    assert kernels.digest() not in seen


def test_a_folder_that_is_there_but_read_only_is_passed_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not stop root, so the file that is tried stands for them."""
    (place / (kernels.NAME + kernels.digest())).mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "user"))
    tried = []

    def refuse(dir: Path) -> Any:
        tried.append(dir.parent)
        if dir.is_relative_to(place / "user"):
            return (place / "made").open("w")
        raise PermissionError(dir)

    monkeypatch.setattr(kernels.tempfile, "TemporaryFile", refuse)
    assert kernels.cache_folder() == place / "user" / "gristmill" / (kernels.NAME + kernels.digest())
    assert tried == [place, PACKAGE / "__pycache__", place / "user" / "gristmill"]


def imports(file: Path) -> dict[str, str]:
    """Name -> module, of all that a file takes from modules of the project."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname or alias.name: node.module or ""
        for node in nodes
        if (node.module or "").startswith(("pipelines", "contract"))
        for alias in node.names
    }


def test_every_kernel_and_all_that_it_takes_from_the_project_is_in_the_digest() -> None:
    sources = {
        ".".join(("pipelines", *file.relative_to(PACKAGE).with_suffix("").parts)): file for file in kernels.sources()
    }
    assert len(sources) > 8
    modules = [importlib.import_module(name) for name in sources if name != kernels.__name__]
    for module in modules:
        found = [one.py_func for one in vars(module).values() if isinstance(one, Dispatcher)]
        assert {one.__module__ for one in found} <= set(sources)
        own = [one for one in found if one.__module__ == module.__name__]
        assert own
        used = {name for one in own for name in one.__code__.co_names}
        assert {
            name: origin
            for name, origin in imports(sources[module.__name__]).items()
            if name in used and not {origin, f"{origin}.{name}"} & set(sources)
        } == {}


def test_numba_is_used_through_the_cache_alone() -> None:
    users = [
        file for file in PACKAGE.rglob("*.py") if "numba." in file.read_text() or "import numba" in file.read_text()
    ]
    assert users == [Path(kernels.__file__)]


def test_a_kernel_is_compiled_where_no_folder_can_be_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "cache_folder", lambda: None)

    def double(values: Any) -> Any:
        return values * 2

    made: Any = kernels.kernel(double)
    assert made(np.arange(3)).tolist() == [0, 2, 4]
    assert isinstance(made, Dispatcher)
    assert made.targetoptions["nogil"] is True
    assert str(place) == numba.config.CACHE_DIR
    assert list(place.iterdir()) == []
