"""A store that is served alone: its runs and no others, to this machine's own name."""

import os
import shutil

import pytest
from fastapi.testclient import TestClient

from contract.store import Store
from reports.cockpit.app import create
from reports.cockpit.local import Local, admit, listed
from reports.cockpit.visitor import Refused


def test_runs_are_listed_newest_first_and_bounded(judged, resolve_run, tmp_path):
    resolve_run(tmp_path / "crawl", {}, "old")
    os.utime(tmp_path / "store" / "runs" / "old" / "recipe.yaml", (1_000_000_000, 1_000_000_000))
    (tmp_path / "store" / "runs" / "half").mkdir()
    found = listed(judged.store)
    assert [(run.dag_id, run.run_id) for run in found] == [("runs", "one"), ("runs", "old")]
    assert f"{found[1].started:%Y-%m-%d}" == "2001-09-09"
    assert [run.run_id for run in Local(judged.store).runs(1)] == ["one"]


@pytest.mark.parametrize("name", ["two", "..", "../runs/one", "one/recipe.yaml", "", ".one", "one#sha256=00"])
def test_a_name_outside_the_listing_is_no_run(judged, name):
    with pytest.raises(Refused) as error:
        Local(judged.store).run("runs", name)
    assert error.value.status == 404


def test_a_copied_store_is_read_in_its_new_place(judged, tmp_path):
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    copy = Store(str(tmp_path / "copy"))
    run = Local(copy).run("runs", "one")
    assert run.store == copy
    assert run.task("curate").prefix == judged.task("curate").prefix


def test_there_is_no_airflow(judged):
    visitor = Local(judged.store)
    assert visitor.airflow("runs", "one", "", -1) == ""
    assert visitor.tasks("runs", "one") == ()
    assert not visitor.may_read("another")
    with pytest.raises(Refused, match="Runs are started in Airflow"):
        visitor.trigger("corpus", {})
    assert not visitor.is_paused("feedback")


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1", 200), ("localhost:8090", 200), ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403),
])  # fmt: skip
def test_a_browser_that_was_led_here_by_another_name_gets_nothing(judged, host, status):
    client = TestClient(create(admit(judged.store)), base_url="http://127.0.0.1")
    assert client.get("/run/runs/one", headers={"host": host}).status_code == status
