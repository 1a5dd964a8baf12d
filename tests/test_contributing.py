"""The diffs in CONTRIBUTING.md, each applied to a copy of the project: they are all that the change takes, and it works."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "home", "build", ".bench", ".hypothesis", ".*_cache", "*.log")
MOST_FILES = 4
SECTIONS = (ROOT / "CONTRIBUTING.md").read_text().split("\n## ")[1:]
EXAMPLES = {
    section.partition("\n")[0]: section.partition("```diff\n")[2].partition("```\n")[0]
    for section in SECTIONS
    if "```diff\n" in section
}
"""Section -> its unified diff."""

COMPLETE = {
    "Add a filter": (
        "tests/contract/settings/test_filter.py",
        "tests/contract/test_identity.py",
        "tests/contract/test_schema.py",
        "tests/contract/test_scores.py",
        "tests/contract/test_settings.py",
        "tests/contract/test_stages.py",
        "tests/pipelines/rules/test_decide.py",
        "tests/test_readme.py::test_filter_documentation_is_current",
    ),
    "Add a stage": (
        "tests/contract/test_headline.py",
        "tests/contract/test_identity.py",
        "tests/contract/test_results.py",
        "tests/contract/test_stages.py",
        "tests/docs/test_generate.py",
        "tests/test_architecture.py::test_stage_has_row_file_and_recipe_section",
        "tests/test_readme.py::test_recipe_table_names_real_settings",
    ),
}
"""Section -> the tests that fail on a change that is only half made."""


def changed_files(diff: str) -> list[str]:
    return re.findall(r"^\+\+\+ b/(.+)$", diff, re.MULTILINE)


def changed_copy(diff: str, folder: Path) -> Path:
    """A copy of the project with a diff applied, in a folder that holds no repository."""
    # the compiled kernels in __pycache__ come along
    copy = Path(shutil.copytree(ROOT, folder / "gristmill", ignore=NOT_COPIED))
    outside = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder)}
    applied = subprocess.run(
        ["git", "apply", "--verbose", "-"], cwd=copy, env=outside, input=diff, capture_output=True, text=True
    )
    assert applied.returncode == 0, f"bring the diff in CONTRIBUTING.md up to date: {applied.stderr}"
    return copy


def python(tree: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python on the modules of a tree, with `given` as its input."""
    place = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    place["PYTHONPATH"] = str(tree)
    return subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=place, input=given, capture_output=True, text=True, timeout=500
    )


def run_tests(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(tree, "-m", "pytest", "-q", "-rfEp", "-p", "no:cacheprovider", *arguments)


DECIDE = """
import json, sys
import contract, pipelines
from contract.facts import FACTS
from contract.recipe import DEFAULTS
from contract.settings.corpus import Score
from contract.settings.filter import RULE_SETS, Filter
from pipelines.rules.decide import decide, rules_for
from pipelines.rules.measure import Tools, clean_and_score

text = sys.stdin.read()
scores = clean_and_score(text, "en", Score(), Tools())[1]
json.dump(
    {
        "from": [contract.__file__, pipelines.__file__],
        "verdict": decide(scores, rules_for(Filter(), "en")),
        "reasons": list(RULE_SETS),
        "identity": [FACTS["new_scores"](DEFAULTS), DEFAULTS.identity("filter")],
    },
    sys.stdout,
)
"""
LOUD = """The river bends twice before it meets the old mill on the hill!!!
Nobody has ground any corn there since my grandmother was young!!!
In spring the children of both villages come to fish below the weir!!!
They have to be home when the bell of the small church begins to ring!!!
My uncle once found a silver coin between the stones of the wheel pit!!!
"""


def decided(tree: Path) -> dict[str, Any]:
    """What the code of a tree decides on a loud text that no other rule drops."""
    done = python(tree, "-c", DECIDE, given=LOUD)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("from") == [str(tree / name / "__init__.py") for name in ("contract", "pipelines")]
    return found


def a_filter_drops_for_its_reason(copy: Path) -> None:
    before, after = decided(ROOT), decided(copy)
    assert before["verdict"] is None
    assert after["verdict"] == ["shouting", pytest.approx(LOUD.count("!") / len(LOUD.split()))]
    assert set(after["reasons"]) - set(before["reasons"]) == {"shouting"}
    (scores_before, rules_before), (scores_after, rules_after) = before["identity"], after["identity"]
    assert (scores_before, scores_after) == ([], ["exclamation_ratio"]), "scores that lack it are stale"
    new = {"filter.rules": [*rules_before["filter.rules"], "shouting if exclamation_ratio > 0.2"]}
    assert rules_after == new, "what the old rules kept is stale"


def a_stage_takes_its_place(copy: Path) -> None:
    written = python(copy, "-m", "docs.generate")
    assert written.returncode == 0, written.stderr
    documented = (copy / "docs" / "stages.md").read_text()
    assert "| [toxicity](../pipelines/toxicity.py) | 1 |" in documented
    assert "| corpus | toxicity | heldout_fraction," in documented, "mix reads it"
    refused = python(copy, "-c", "from contract.recipe import parse; parse('', 'here', ['toxicity.max_fraction=2'])")
    assert "toxicity.max_fraction: Input should be less than or equal to 1, got 2" in refused.stderr


SHOWS = {"Add a filter": a_filter_drops_for_its_reason, "Add a stage": a_stage_takes_its_place}
"""Section -> what its change does, as a check of the changed copy."""


def test_every_diff_is_shown_to_work() -> None:
    assert EXAMPLES.keys() == SHOWS.keys()


@pytest.mark.parametrize("section", EXAMPLES)
def test_a_change_takes_few_files(section: str) -> None:
    files = changed_files(EXAMPLES[section])
    assert len(set(files)) == len(files) <= MOST_FILES
    assert any(name.startswith("tests/") for name in files)


@pytest.mark.slow
@pytest.mark.parametrize("section", EXAMPLES)
def test_a_change_is_whole_and_works(section: str, tmp_path: Path) -> None:
    diff = EXAMPLES[section]
    copy = changed_copy(diff, tmp_path)
    for name in changed_files(diff):
        assert not (ROOT / name).exists() or (copy / name).read_text() != (ROOT / name).read_text(), name
    SHOWS[section](copy)
    own = [name for name in changed_files(diff) if name.startswith("tests/")]
    ran = run_tests(copy, *own, *COMPLETE[section])
    others = [line for line in ran.stdout.splitlines() if not line.startswith("PASSED ")]
    assert ran.returncode == 0, "\n".join(others)[-5000:] + ran.stderr[-2000:]
    for test in re.findall(r"^\+(?:async )?def (test_\w+)\(", diff, re.MULTILINE):
        assert re.search(rf"^PASSED \S+::{test}\b", ran.stdout, re.MULTILINE), test


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_out", "fails"),
    [
        ("pipelines/rules/measure.py", "test_a_score_without_a_measure_or_a_rule_is_named"),
        ("contract/settings/filter.py", "test_a_score_without_a_measure_or_a_rule_is_named"),
        ("tests/pipelines/rules/test_measure.py", "test_every_score_equals_its_plain_definition"),
        ("docs/filters.md", "test_filter_documentation_is_current"),
    ],
)
def test_a_filter_that_is_half_made_fails(left_out: str, fails: str, tmp_path: Path) -> None:
    parts = re.split(r"^(?=--- a/)", EXAMPLES["Add a filter"], flags=re.MULTILINE)
    rest = [part for part in parts if part and left_out not in changed_files(part)]
    assert len(rest) == MOST_FILES - 1
    copy = changed_copy("".join(rest), tmp_path)
    files = ("tests/pipelines/rules/test_measure.py", "tests/test_readme.py")
    ran = run_tests(copy, *files, "-k", fails)
    assert ran.returncode == 1, ran.stdout
    assert re.search(rf"^FAILED \S+::{fails}\b", ran.stdout, re.MULTILINE), ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("left_out", ["contract/settings/corpus.py", "pipelines/toxicity.py"])
def test_a_stage_that_is_half_made_fails(left_out: str, tmp_path: Path) -> None:
    parts = re.split(r"^(?=--- )", EXAMPLES["Add a stage"], flags=re.MULTILINE)
    rest = [part for part in parts if part and left_out not in changed_files(part)]
    assert len(rest) == MOST_FILES - 1
    copy = changed_copy("".join(rest), tmp_path)
    fails = "test_stage_has_row_file_and_recipe_section[toxicity]"
    ran = run_tests(copy, f"tests/test_architecture.py::{fails}")
    assert ran.returncode == 1, ran.stdout
    assert f"::{fails}" in ran.stdout
