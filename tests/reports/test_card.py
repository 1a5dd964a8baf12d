"""The funnel and the headlines of the card on Airflow's home page."""

import pytest

from contract.manifest import Attempt, Rows
from contract.results import result_of
from reports import card


@pytest.fixture
def run(tmp_path, resolve_run):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    return resolve_run(tmp_path / "crawl")


def judged(run, stage, read, kept):
    task = next(task for task in run.tasks().values() if task.stage == stage)
    reasons = {"a": read - kept} if read > kept else {}
    Attempt(run, task).commit([], Rows(read=read, kept=kept, dropped=read - kept, reasons=reasons))


def test_the_funnel_grows_with_the_run(run):
    judged(run, "crawl", 10, 8)
    assert card.steps(run) == (card.Step("crawl", 8, 0.8),)
    judged(run, "extract", 8, 4)
    assert card.steps(run) == (card.Step("crawl", 8, 0.8), card.Step("extract", 4, 0.4))


def test_the_headlines_of_what_is_done(run):
    result = result_of("gate").model_construct(open=True, accuracy=0.75, low=0.6, high=0.8, threshold=0.55)
    Attempt(run, run.task("gate")).commit([], result=result)
    assert card.lines(run, "align") == {
        "gate": {
            "line": "open: held-out accuracy 0.75, confidence interval 0.6 to 0.8, whose lower end reaches 0.55",
            "figures": {"open": True, "accuracy": 0.75, "low": 0.6, "high": 0.8, "threshold": 0.55},
        }
    }
    assert card.lines(run, "evaluate") == card.lines(run, "corpus") == {}
