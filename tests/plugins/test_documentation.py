"""Each task's documentation, from the stage table and the settings."""

from pathlib import Path

import pytest

from contract.stages import STAGES
from gristmill_airflow.documentation import OUTSIDE, PAGES, task_doc

ROOT = Path(__file__).parents[2]


def rows(text):
    """Heading of a row -> its text."""
    return dict(
        line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("| ") and line != "| | |"
    )


def test_a_stage_that_drops():
    assert rows(task_doc("dedup_url")) == {
        "in": "filter",
        "out": "a manifest, read by dedup_fuzzy",
        "drops": "documents, each with its reason",
        "recipe": "section `dedup_url`: `keep`",
        "runs on": "Spark, once for the whole corpus",
        "read more": "docs/deduplication.md",
    }


def test_a_stage_that_trains():
    found = rows(task_doc("reward"))
    assert found["in"] == "sft, tokenizer, preferences"
    assert found["out"] == (
        "a manifest, read by gate, ppo, grpo, evaluate, benchmark; figures: accuracy, accuracy_low, accuracy_high, shorter_accuracy, pairs"
    )
    assert (found["drops"], found["read more"]) == ("nothing", "docs/training.md")
    assert "`batch`" in found["recipe"]


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_its_page_and_its_inputs(name):
    found = rows(task_doc(name))
    assert (ROOT / found["read more"]).exists()
    assert found["in"] == (", ".join(STAGES[name].reads) or OUTSIDE[name])
    assert task_doc(name).startswith(f"{STAGES[name].summary}\n")
    assert PAGES.keys() <= STAGES.keys()
