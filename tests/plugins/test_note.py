"""The line that a run's note gets, beside what a person wrote there."""

from types import SimpleNamespace

import pytest
from airflow.models.dagrun import DagRun, DagRunNote
from airflow.models.tasklog import LogTemplate
from airflow.plugins_manager import get_plugin_info

from gristmill_airflow.assets import CRAWL, RESOLVED
from gristmill_airflow.note import noted, on_asset_event_emitted

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


def test_airflow_loads_the_listener():
    (plugin,) = [one for one in get_plugin_info() if one["name"] == "gristmill"]
    assert plugin["listeners"] == ["gristmill_airflow.note"]


@pytest.fixture
def database(tables):
    """Airflow's tables of runs and their notes, with the same run of two DAGs and another run of one."""
    session = tables(LogTemplate, DagRun, DagRunNote)
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
