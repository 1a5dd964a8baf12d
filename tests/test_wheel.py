"""The wheel: installed into an environment of its own and used from another folder, with nothing of this checkout in sight."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from demo import crawl_pydoc

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without network from a copy of what git tracks or would track, so that the checkout stays as it is."""
    place = tmp_path_factory.mktemp("wheel")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "perf/", "mutants/")):
            (place / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / "tree" / name)
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", place, place / "tree"]
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *build], check=True, timeout=300)
    (made,) = place.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs the Python of an environment that has the wheel, in a folder of its own; returns what it printed.

    The environment sees this one's libraries, but not its Gristmill, which only a `.pth` file brings into view.
    """
    home = tmp_path_factory.mktemp("home")
    venv.create(home / "venv", symlinks=True)
    python = home / "venv" / "bin" / "python"
    site = next((home / "venv" / "lib").glob("python*")) / "site-packages"
    install = ["install", "-q", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *install], check=True, timeout=300)
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GRISTMILL"))}
    (home / "here").mkdir()

    def run(*arguments: object) -> str:
        command = [str(python), *map(str, arguments)]
        done = subprocess.run(command, cwd=home / "here", env=clean, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert run("-c", "import contract; print(contract.__file__)").strip() == str(site / "contract" / "__init__.py")
    return run


def test_the_wheel_holds_code_and_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"contract", "evals", "gristmill", "gristmill_airflow", "pipelines", "reports", "training"}
    data = sorted(name for name in names if not name.endswith(".py") and ".dist-info/" not in name)
    recipes = sorted(f"gristmill/recipes/{file.name}" for file in (ROOT / "recipes").glob("*.yaml"))
    cockpit = ROOT / "reports" / "cockpit"
    pages = sorted(
        file.relative_to(ROOT).as_posix() for folder in ("static", "templates") for file in (cockpit / folder).iterdir()
    )
    assert data == [*recipes, "pipelines/spark/log4j2.properties", *pages]
    for folder, inside in {"dags": "gristmill/dags", "plugins/gristmill_airflow": "gristmill_airflow"}.items():
        assert {file.name for file in (ROOT / folder).glob("*.py")} == {
            Path(name).name for name in names if name.rpartition("/")[0] == inside
        }
    for package in tops - {"gristmill", "gristmill_airflow"}:
        there = {file.relative_to(ROOT).as_posix() for file in (ROOT / package).rglob("*.py")}
        assert there <= set(names), "a package is missing in pyproject.toml"


def test_a_stage_runs_from_another_folder(elsewhere: Callable[..., str], tmp_path: Path) -> None:
    crawl_pydoc.crawl(tmp_path / "warc", 5)
    settings = [f"store={tmp_path}/store", f"crawl.source={tmp_path}/warc"]
    overrides = [word for setting in settings for word in ("--set", setting)]
    run = elsewhere("-m", "contract", "resolve", "--recipe", "tiny", *overrides).strip()
    assert run.startswith(f"file://{tmp_path}/store/runs/tiny-") or run.startswith(f"{tmp_path}/store/runs/tiny-")
    elsewhere("-m", "pipelines", "crawl", "--recipe", run)
    (made,) = (tmp_path / "store" / "crawl").glob("*/*/manifest.json")
    manifest = json.loads(made.read_text())
    assert manifest["rows"]["kept"] == 5
    version, _, sources = manifest["code"].partition("+sources.")
    assert version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert len(sources) == 12
    assert "crawl" in elsewhere("-m", "contract", "funnel", "--recipe", run)


def test_a_name_that_no_recipe_has_is_told_those_that_are_shipped(elsewhere: Callable[..., str]) -> None:
    script = (
        "from contract.recipe import load\n"
        "from contract.errors import RecipeError\n"
        "try: load('recipes/bog.yaml')\n"
        "except RecipeError as error: print(error)"
    )
    said = "recipe recipes/bog.yaml: no such file; there are recipes/base.yaml, recipes/large.yaml, recipes/sample.yaml, recipes/tiny.yaml\n"
    assert elsewhere("-c", script) == said


def test_airflow_finds_the_dags_and_the_recipes(elsewhere: Callable[..., str], tmp_path: Path) -> None:
    script = (
        "import json, pathlib, sys\n"
        "from gristmill_airflow.environment import standalone_environment\n"
        "from contract.offered import recipe_names, recipe_uri\n"
        "dags = standalone_environment(pathlib.Path(sys.argv[1]), 8080)['AIRFLOW__CORE__DAGS_FOLDER']\n"
        "print(json.dumps([dags, sorted(file.name for file in pathlib.Path(dags).glob('*.py')),"
        " recipe_names(), recipe_uri('tiny')]))"
    )
    folder, dags, names, tiny = json.loads(elsewhere("-c", script, tmp_path).splitlines()[-1])
    assert str(ROOT) not in folder
    assert dags == sorted(file.name for file in (ROOT / "dags").glob("*.py"))
    assert names == ["base", "large", "sample", "tiny"]
    assert Path(tiny).is_file()
    assert Path(tiny).parent == Path(folder).with_name("recipes")
