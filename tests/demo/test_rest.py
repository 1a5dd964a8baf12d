"""The REST client: it reads listings to their end and ends no run but the demo's."""

import pytest

from contract.errors import GristmillError
from demo import rest, server
from demo.rest import Airflow


class Answers(Airflow):
    """An Airflow that answers from a dictionary, `page` rows at most at a time as the real one, and remembers what it was told."""

    def __init__(self, listings, page=2):
        super().__init__("http://localhost:1", lambda: "")
        self.listings, self.page_size, self.told = listings, page, []

    def call(self, method, path, body=None, **query):
        if method != "GET":
            self.told.append((method, path, body))
            return None
        name, rows = self.listings[path]
        start = query.get("offset", 0)
        limit = min(self.page_size, query.get("limit", 50))
        return {name: rows[start : start + limit], "total_entries": len(rows)}


def run(name, dag, kind, started=True):
    moment = "2026-11-20T10"
    known = {"dag_run_id": name, "dag_id": dag, "run_type": kind, "partition_key": "A-2026-47"}
    return {**known, "queued_at": moment, "start_date": moment if started else None}


@pytest.fixture
def pretrain():
    runs = [
        run("queued", "pretrain", "asset_triggered", started=False),
        *(run(name, "pretrain", "asset_triggered") for name in ("ours", "a person's")),
        run("manual__x", "pretrain", "manual"),
    ]
    events = {
        "ours": [{"extra": {}}, {"extra": {"recipe": "file:///s/runs/corpus.demo__2026-11-20/recipe.yaml"}}],
        "a%20person%27s": [{"extra": {"recipe": "file:///s/runs/corpus.manual__2026/recipe.yaml"}}],
    }
    paths = {
        f"dags/pretrain/dagRuns/{name}/upstreamAssetEvents": ("asset_events", rows) for name, rows in events.items()
    }
    return Answers({"dags/pretrain/dagRuns": ("dag_runs", runs), **paths})


def test_listings_are_read_to_their_end():
    tasks = [{"task_id": str(number)} for number in range(7)]
    assert Answers({"dags/corpus/dagRuns/a/taskInstances": ("task_instances", tasks)}).tasks("corpus", "a") == tasks


def test_only_the_demos_runs_are_ended(pretrain):
    assert pretrain.end_unfinished("pretrain", "demo__") == 1
    assert pretrain.told == [("PATCH", "dags/pretrain/dagRuns/ours", {"state": "failed"})]
    corpus = [run("demo__2026", "corpus", "manual"), run("manual__2026", "corpus", "manual")]
    airflow = Answers({"dags/corpus/dagRuns": ("dag_runs", corpus)})
    assert airflow.end_unfinished("corpus", "demo__") == 1
    assert airflow.told == [("PATCH", "dags/corpus/dagRuns/demo__2026", {"state": "failed"})]


def test_the_next_run_is_the_one_that_our_result_started(pretrain):
    ours = "file:///s/runs/corpus.demo__2026-11-20/recipe.yaml"
    assert pretrain.newest_run("pretrain", "A-2026-47", "2026-11-20T09", ours)["dag_run_id"] == "ours"
    assert pretrain.newest_run("pretrain", "A-2026-47", "2026-11-20T11", ours) is None
    assert pretrain.newest_run("pretrain", "A-2026-47", "2026-11-20T09", "another") is None


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_whose_airflow_was_stopped_ends_at_once(monkeypatch, method):
    alive = [True, False]
    slept = []
    monkeypatch.setattr(rest.time, "sleep", slept.append)
    port = next(one for one in range(19200, 19300) if server.is_free(one))
    airflow = Airflow(f"http://127.0.0.1:{port}", lambda: "bearer", lambda: alive.pop(0) if method == "GET" else False)
    with pytest.raises(GristmillError, match="was stopped, so nothing is left to follow; go on with: make demo"):
        airflow.call(method, "dags")
    assert slept == ([1] if method == "GET" else []), "as long as its process is there, Airflow may only be busy"
