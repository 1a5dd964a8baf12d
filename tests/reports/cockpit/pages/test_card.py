"""The card's figures: of the newest run of each DAG that the visitor may read, with the pages that say more."""

import datetime

import pytest

from contract.manifest import Attempt
from contract.results import result_of
from reports.cockpit.visitor import Listed, Refused

NOW = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)


@pytest.fixture
def listed(visit, judged, monkeypatch):
    """Runs of several DAGs, the newest first; each is the run `one` of the store, but for `gone`."""
    runs = [
        Listed("align", "new", "running", NOW),
        Listed("corpus", "new", "success", NOW),
        Listed("corpus", "old", "failed", NOW),
        Listed("evaluate", "gone", "failed", None),
        Listed("crawl_refresh", "x", "success", NOW),
    ]

    def opened(self, dag_id, run_id):
        if run_id == "gone":
            raise Refused(404, "no recipe yet")
        return judged

    monkeypatch.setattr(type(visit.visitor), "runs", lambda self, limit: runs[:limit])
    monkeypatch.setattr(type(visit.visitor), "run", opened)
    monkeypatch.setattr(type(visit.visitor), "may_read", lambda self, dag_id: dag_id != self.hidden)
    visit.visitor.hidden = None
    return visit


def test_the_newest_run_of_each_dag_is_told(listed, judged):
    result = result_of("gate").model_construct(open=False, accuracy=0.5, low=0.4, high=0.6, threshold=0.55)
    Attempt(judged, judged.task("gate")).commit([], result=result)
    runs = listed.json("/card")["runs"]
    assert set(runs) == {"corpus", "align", "evaluate"}
    assert (runs["corpus"]["run"], runs["corpus"]["state"]) == ("new", "success")
    assert runs["corpus"]["steps"] == [
        {"stage": "crawl", "kept": 7, "share": 0.7},
        {"stage": "extract", "kept": 5, "share": 0.5},
    ]
    assert runs["align"]["stages"]["gate"]["figures"]["accuracy"] == 0.5
    assert runs["evaluate"]["error"] == "no recipe yet"


def test_every_question_has_its_page(listed):
    runs = listed.json("/card")["runs"]
    assert {dag: {one["title"]: one["address"] for one in run["links"]} for dag, run in runs.items()} == {
        "corpus": {"Funnel": "/run/corpus/new", "Why a page was dropped": "/pages/corpus/new"},
        "align": {"Gate decision": "/training/align/new/gate", "PPO curves": "/training/align/new/ppo"},
        "evaluate": {"Sample replies": "/models/evaluate/gone"},
    }


def test_a_dag_that_the_visitor_may_not_read_is_not_told(listed):
    listed.visitor.hidden = "align"
    assert "stages" not in listed.json("/card")["runs"]["align"]
    listed.visitor.session = False
    assert listed.get("/card").status_code == 401


def test_a_store_alone_has_no_card(visit, judged):
    assert visit.json("/card") == {"runs": {}}
