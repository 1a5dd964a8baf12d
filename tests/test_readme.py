"""What the documentation claims: its commands run, its links and files exist, its table names real settings."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from contract import recipe as recipes
from contract.recipe import Recipe
from contract.settings.base import Settings
from demo import crawl_pydoc
from docs import filters

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PYTHON = ".venv/bin/python"


def commands() -> list[str]:
    """Lines of the README's shell blocks, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_make_targets_exist():
    wanted = {line.split()[1] for line in commands() if line.startswith("make ")}
    wanted |= set(re.findall(r"`make (\w+)`", README + CONTRIBUTING))
    assert wanted >= {"demo", "stop", "test", "lint", "bench", "setup"}
    for target in sorted(wanted):
        planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README + CONTRIBUTING))))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_every_extra_is_explained():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name for text in re.findall(r'"\.\[([a-z,]+)\]"', README) for name in text.split(",")} == set(extras)
    for package in extras["cuda"]:
        assert f"\n- {re.split('[=<>]', package)[0]} " in README


def test_nothing_is_left_to_fill_in():
    without_diffs = re.sub(r"```diff\n[^`]*```", "", CONTRIBUTING)
    assert "@@" not in README + without_diffs


def test_named_variables_and_files_exist():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    planes = ("contract/", "pipelines/", "training/", "evals/", "plugins/", "demo/")
    code = "\n".join((ROOT / name).read_text() for name in tracked if name.startswith(planes) and name.endswith(".py"))
    named = set(re.findall(r"`([^`\n]+)`", README + CONTRIBUTING))
    variables = {name for name in named if name.startswith("GRISTMILL_")}
    assert variables
    assert {name for name in variables if f'"{name}"' not in code} == set()
    files = {name for name in named if re.fullmatch(r"[\w/]+/\w+\.(py|yaml|md)", name) and "NAME" not in name}
    assert files
    assert files - set(tracked) == set()


def test_code_named_for_contributors_stands_where_they_look():
    fixture = re.search(r"a real Spark \(`(\w+)`\)", CONTRIBUTING)[1]
    assert f"def {fixture}(" in "".join(file.read_text() for file in ROOT.glob("tests/**/conftest.py"))


def test_annotated_tree_is_the_tree():
    block = re.search(r"## Where things are\n\n```\n(.*?)```", README, re.DOTALL)[1]
    folder = Path()
    for line in block.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = Path(name)
            assert (ROOT / folder).is_dir(), name
        for file in re.findall(r"[\w/]+\.(?:py|yaml)", line):
            assert (ROOT / folder / file).is_file(), f"{folder}/{file}"


def test_recipe_table_names_real_settings():
    rows = re.findall(r"^\| (`.+?) \| .+? \| (.*?) ?\|$", README, re.MULTILINE)
    sections = [re.findall(r"`(\w+)`", first) for first, _ in rows]
    named = [name for row in sections for name in row]
    assert len(named) > 20
    assert len(set(named)) == len(named)
    assert {*named} < {*Recipe.model_fields}, "docs/stages.md lists the settings of every stage"
    for names, (_, remark) in zip(sections, rows, strict=True):
        known = {"enabled"}
        for name in names:
            annotation = Recipe.model_fields[name].annotation
            if isinstance(annotation, type) and issubclass(annotation, Settings):
                known |= set(annotation.model_fields)
        for key in re.findall(r"`(\w+)(?:: [^`]*)?`", remark):
            assert key in known, f"{names} has no setting {key}"


def test_overrides_in_the_readme_are_accepted():
    overrides = [item for line in commands() for text in re.findall(r'SET="([^"]*)"', line) for item in text.split()]
    assert overrides
    recipes.load(str(ROOT / "recipes" / "tiny.yaml"), overrides)


@pytest.mark.parametrize("name", ["tiny", "sample", "base"])
def test_recipes_are_valid_and_hold_differences_only(name):
    recipe = recipes.load(str(ROOT / "recipes" / f"{name}.yaml"))
    assert recipe.name == name


def test_filter_documentation_is_current():
    """After a change that is meant: .venv/bin/python -m docs.generate."""
    text = filters.PAGE.read_text()
    assert filters.page(text) == text
    assert filters.table() in text


def test_commands_without_airflow(tmp_path):
    """The block as it stands, on a few pages and a store of its own; training is left to the tests of its stages."""
    crawl_pydoc.crawl(tmp_path / "warc", 5)
    trains = "-m contract commands"  # would train, too
    block = [line for line in commands() if ("-m contract" in line or "-m pipelines" in line) and trains not in line]
    assert len(block) == 8
    script = "\n".join(block)
    script = script.replace(PYTHON, sys.executable).replace("home/store", f"{tmp_path}/store")
    script = script.replace("/data/warc/a.warc.gz", f"{tmp_path}/warc/pydoc-00000.warc.gz").replace(
        "/data/warc", f"{tmp_path}/warc"
    )
    script = script.replace("-m contract resolve", f"-m contract resolve --set store={tmp_path}/store")
    # One stage needs those before it.
    script = script.replace(
        f"{sys.executable} -m pipelines extract",
        f"{sys.executable} -m pipelines crawl --recipe $run\n{sys.executable} -m pipelines extract",
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^extract +WARC-\d{4}-\d\d\.00000 +[0-9a-f]{12} +spark +to do$", done.stdout, re.MULTILINE)
    assert re.search(r"^extract +5 ", done.stdout, re.MULTILINE)
    assert re.search(r"^ +made extract WARC-\d{4}-\d\d\.00000 ", done.stdout, re.MULTILINE)
    assert re.search(r"^checked .*/recipe\.yaml\S*: no stage refuses its settings$", done.stdout, re.MULTILINE)
    assert re.search(r"^2 manifests, \d+ files, [\d.]+ KiB: all as committed$", done.stdout, re.MULTILINE)
    assert "0 unlisted attempts" in done.stdout


def test_training_commands_know_their_stages():
    asked = subprocess.run([sys.executable, "-m", "training", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert asked.returncode == 0
    assert "pretrain" in asked.stdout
