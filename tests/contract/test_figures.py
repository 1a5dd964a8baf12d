"""The figures of every stage, from manifests such as the stages write."""

import math

import pytest

from contract.figures import MOST, SHOWN, figures
from contract.manifest import Rows
from contract.results import RESULTS
from contract.stages import STAGES
from tests.contract.test_headline import LANGID, made

KEPT = {"documents_read": 456, "documents_kept": 393}


@pytest.mark.parametrize(
    ("manifest", "found"),
    [
        (made("langid", LANGID), KEPT),
        (made("crawl", LANGID, files=3, parts=9), {**KEPT, "files": 3}),
        (
            made("preferences", Rows(read=9, kept=7, dropped=2, reasons={"a": 2}), training=5, heldout=2, data="x"),
            {"examples_read": 9, "examples_kept": 7, "training": 5, "heldout": 2},
        ),
        (made("pack", LANGID, tokens=12, documents=3, padding=0.5), {"documents": 3, "tokens": 12}),
        (
            made("gate", open=False, accuracy=2 / 3, low=0.5, high=0.75, threshold=0.55),
            {"open": False, "accuracy": 0.666667, "low": 0.5, "high": 0.75, "threshold": 0.55},
        ),
        (made("sft", heldout_perplexity_after=math.inf, examples=4), {"examples": 4}),
        (made("evaluate", win_rate=None, perplexity_sft=math.nan, perplexity_pretrain=9.0), {"perplexity_pretrain": 9}),
        (made("ablate", verdict="x" * 900, best=None, models=2), {"verdict": "x" * 200, "models": 2}),
    ],
)
def test_the_figures_are_the_manifests(manifest, found):
    assert figures(manifest) == found


def test_a_checkpoint_has_no_figures_of_the_finished_model():
    assert figures(made("pretrain", partition="step-00000010", step=10)) == {}


def test_every_name_is_a_field_of_the_stages_result():
    wrong = [(stage, name) for stage in SHOWN for name in SHOWN[stage] if name not in RESULTS[stage].model_fields]
    assert wrong == []
    assert SHOWN.keys() <= STAGES.keys()


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_shows_more_than_fit_beside_an_asset(stage):
    everything = made(stage, LANGID, **dict.fromkeys(SHOWN.get(stage, ()), 1.0))
    assert 1 <= len(figures(everything)) <= MOST
    assert len(SHOWN.get(stage, ())) + 2 * STAGES[stage].drops <= MOST, "none is cut off"
