"""The line that a run's note gets, beside what a person wrote there."""

import json
import uuid
from types import SimpleNamespace

import pytest
from airflow.models import import_all_models
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.models.taskinstance import TaskInstance
from airflow.models.tasklog import LogTemplate
from airflow.models.xcom import XComModel
from airflow.plugins_manager import get_plugin_info
from sqlalchemy import insert

from gristmill_airflow.assets import CRAWL, RESOLVED
from gristmill_airflow.note import (
    noted,
    on_asset_event_emitted,
    on_dag_run_failed,
    on_dag_run_running,
    on_dag_run_success,
    with_result,
)

LINE = "uses recipe tiny, crawl NEWS-2024-10 of /data/news, as crawl_refresh keeps it"


@pytest.mark.parametrize(
    ("note", "then"),
    [
        (None, LINE),
        ("", LINE),
        ("for the paper", f"{LINE}\nfor the paper"),
        ("uses recipe base, the newest crawl of /data, as the form says\nthe result", f"{LINE}\nthe result"),
        ("uses run s3://b/runs/a/recipe.yaml, crawl A-2024-10, B-2024-11 of /data\nthe result", f"{LINE}\nthe result"),
        ("uses too much memory, see the log", f"{LINE}\nuses too much memory, see the log"),
        ("uses recipe base, the one of Ann", f"{LINE}\nuses recipe base, the one of Ann"),
        (LINE, LINE),
    ],
)
def test_the_first_line_is_ours_and_the_others_stay(note, then):
    assert noted(note, LINE) == then


def test_a_note_never_outgrows_its_column():
    assert noted(None, LINE * 20) == (LINE * 20)[:1000]
    assert noted("x" * 980, LINE) == f"{LINE[:19]}\n{'x' * 980}", "what a person wrote stays whole"
    assert noted("x" * 999, LINE) == noted("x" * 999, "") == "x" * 999
    assert noted("x" * 1000, LINE) == "x" * 1000


@pytest.mark.parametrize(
    ("note", "said", "then"),
    [
        (LINE, "kept 1 of 2", f"{LINE}\nresult: kept 1 of 2"),
        (f"{LINE}\nfor the paper", "kept 1 of 2", f"{LINE}\nresult: kept 1 of 2\nfor the paper"),
        (f"{LINE}\nresult: failed\nfor the paper", "kept 1", f"{LINE}\nresult: kept 1\nfor the paper"),
        (f"{LINE}\nresult: failed\nresult: Ann's own", "", f"{LINE}\nresult: Ann's own"),
        (f"{LINE}\nfor Ann\nresult: hers", "kept 1", f"{LINE}\nresult: kept 1\nfor Ann\nresult: hers"),
        (LINE, "", LINE),
    ],
)
def test_the_second_line_is_the_result_and_the_others_stay(note, said, then):
    assert with_result(note, said) == then


def test_a_result_takes_no_room_from_a_persons_text():
    mine = f"{LINE}\n{'x' * (989 - len(LINE))}"
    assert with_result(mine, "kept 1 of 2 documents") == mine.replace("\n", "\nresult: k\n")
    full = f"{LINE}\n{'x' * (999 - len(LINE))}"
    assert with_result(full, "kept 1") == full


def test_airflow_loads_the_listeners():
    (plugin,) = [one for one in get_plugin_info() if one["name"] == "gristmill"]
    assert plugin["listeners"] == ["gristmill_airflow.note", "gristmill_airflow.alerts"]


@pytest.fixture
def database(tables):
    """Airflow's tables of runs and their notes, with the same run of two DAGs and another run of one."""
    import_all_models()  # to whose tables those below refer
    session = tables(LogTemplate, DagRun, DagRunNote, TaskInstance, XComModel)
    with session() as opened:
        for dag, run in (("corpus", "one"), ("corpus", "two"), ("align", "one")):
            opened.add(DagRun(dag_id=dag, run_id=run, run_type="manual"))
    return session


def notes(database):
    with database() as opened:
        return {f"{run.dag_id} {run.run_id}": run.note for run in opened.query(DagRun) if run.note}


def event(**other):
    named = {"source_dag_id": "corpus", "source_run_id": "one", "extra": {"uses": LINE}}
    return SimpleNamespace(asset=SimpleNamespace(name=RESOLVED.name), **{**named, **other})


def test_the_run_that_resolved_gets_the_line(database):
    on_asset_event_emitted(event())
    assert notes(database) == {"corpus one": LINE}
    on_asset_event_emitted(event(extra={"uses": "uses recipe base"}))
    on_asset_event_emitted(event(source_dag_id="align"))
    assert notes(database) == {"corpus one": "uses recipe base", "align one": LINE}


def test_other_events_and_unknown_runs_change_no_note(database):
    other = event()
    other.asset.name = CRAWL.name
    for ignored in (other, event(source_run_id=None), event(source_run_id="three")):
        on_asset_event_emitted(ignored)
    assert notes(database) == {}


def xcom(opened, task, key, value, index=-1):
    run = opened.query(DagRun).filter_by(dag_id="corpus", run_id="one").one()
    opened.add(
        XComModel(
            dag_run_id=run.id,
            task_id=task,
            map_index=index,
            key=key,
            dag_id=run.dag_id,
            run_id=run.run_id,
            value=json.dumps(value),
        )
    )


def ended(database, call):
    """The note of the run `corpus one` after a listener was called within Airflow's own transaction."""
    with database() as opened:
        call(opened.query(DagRun).filter_by(dag_id="corpus", run_id="one").one(), msg="")
    return notes(database).get("corpus one")


def test_a_corpus_tells_how_much_is_left(database):
    on_asset_event_emitted(event())
    with database() as opened:
        for index, read in enumerate((60, 40)):
            xcom(opened, "segment.crawl", "figures", {"documents_read": read, "documents_kept": 1}, index)
        xcom(opened, "mix", "figures", {"training_documents": 20, "heldout_documents": 5})
        xcom(opened, "pack", "figures", {"tokens": 123456})
        xcom(opened, "pack", "summary", "not asked for")
        xcom(opened, "segment.extract", "figures", {"documents_read": 999})
    told = f"{LINE}\nresult: kept 25 of 100 documents (25.0%), 123,456 tokens"
    assert ended(database, on_dag_run_success) == told
    assert ended(database, on_dag_run_success) == told, "it is written again, not twice"
    assert ended(database, on_dag_run_running) == LINE, "a run that goes on has no result"


def test_a_note_of_another_dag_stays_as_it_is(database):
    mine = "result: a person's own line\nand another"
    with database() as opened:
        opened.query(DagRun).filter_by(dag_id="corpus", run_id="one").one().note = mine
    for call in (on_dag_run_running, on_dag_run_success, on_dag_run_failed):
        assert ended(database, call) == mine


def test_a_run_that_nothing_resolved_gets_no_note(database):
    assert ended(database, on_dag_run_success) is None
    assert ended(database, on_dag_run_failed) is None


def test_a_failed_run_names_its_tasks(database):
    on_asset_event_emitted(event())
    with database() as opened:
        for number, (task, index, state) in enumerate(
            (("segment.crawl", 0, "failed"), ("segment.crawl", 1, "failed"), ("pack", -1, "upstream_failed"))
        ):
            opened.execute(
                insert(TaskInstance).values(
                    id=uuid.UUID(int=number),
                    task_id=task,
                    dag_id="corpus",
                    run_id="one",
                    map_index=index,
                    state=state,
                    try_number=1,
                    max_tries=0,
                    pool="spark",
                    pool_slots=1,
                    executor_config={},
                )
            )
    assert ended(database, on_dag_run_failed) == f"{LINE}\nresult: failed in segment.crawl (2 tasks)"
