"""Deadlines of waiting runs, and the notifiers that an administrator names."""

import asyncio
import datetime
import sys
from types import ModuleType, SimpleNamespace

import pytest
from airflow.models import import_all_models
from airflow.models.callback import Callback
from airflow.models.dagrun import DagRun
from airflow.models.deadline import Deadline
from airflow.models.deadline_alert import DeadlineAlert
from airflow.models.tasklog import LogTemplate
from airflow.sdk import DeadlineReference

from gristmill_airflow import alerts
from gristmill_airflow.alerts import deadline, on_dag_run_running, queued_too_long, tell


@pytest.fixture
def heard(monkeypatch):
    """What the notifiers of a module `ours` were told."""
    said = []
    module = ModuleType("ours")
    module.first = lambda context: said.append(("first", context["reason"]))
    module.broken = lambda context: 1 / 0
    module.second = lambda context: said.append(("second", context["reason"]))
    monkeypatch.setitem(sys.modules, "ours", module)
    return said


def test_every_notifier_is_told_also_behind_a_broken_one(heard, monkeypatch, caplog):
    monkeypatch.setenv("GRISTMILL_ON_FAILURE", "ours.first, ours.broken ours.gone nowhere.at_all,plain ours.second")
    tell({"reason": "task_failure"})
    assert heard == [("first", "task_failure"), ("second", "task_failure")]
    assert [one.getMessage() for one in caplog.records] == [
        "notifier ours.broken failed",
        "notifier ours.gone failed",
        "notifier nowhere.at_all failed",
        "notifier plain failed",
    ]


def test_without_notifiers_nobody_is_told(heard, monkeypatch):
    monkeypatch.delenv("GRISTMILL_ON_FAILURE", raising=False)
    tell({"reason": "task_failure"})
    assert heard == []


@pytest.mark.parametrize(("said", "hours"), [("", 6), ("0.5", 0.5), ("48", 48)])
def test_a_run_may_wait_six_hours_unless_told_otherwise(monkeypatch, said, hours):
    monkeypatch.setenv("GRISTMILL_QUEUED_HOURS", said)
    alert = deadline()
    assert alert.interval == datetime.timedelta(hours=hours)
    assert alert.reference is DeadlineReference.DAGRUN_QUEUED_AT
    assert (alert.callback.path, alert.callback.kwargs) == (
        "gristmill_airflow.alerts.queued_too_long",
        {"hours": hours},
    )


def test_no_hours_are_no_alert(monkeypatch):
    monkeypatch.setenv("GRISTMILL_QUEUED_HOURS", "0")
    assert deadline() is None


def test_a_run_that_starts_loses_only_our_deadline_that_it_has_met():
    def due(missed, path):
        return SimpleNamespace(missed=missed, callback=SimpleNamespace(data={"path": path}))

    ours = deadline().callback.path
    late, early, other = due(True, ours), due(False, ours), due(False, "another.team.alert")
    run = SimpleNamespace(deadlines=[late, early, other])
    on_dag_run_running(run, msg="started")
    assert run.deadlines == [late, other]


def test_a_removed_deadline_leaves_the_database(tables):
    import_all_models()
    session = tables(LogTemplate, Callback, DeadlineAlert, Deadline, DagRun)
    with session() as opened:
        run = DagRun(dag_id="corpus", run_id="one", run_type="manual")
        opened.add(run)
        opened.flush()
        opened.add(Deadline(run.queued_at or run.run_after, deadline().callback, run.id, None))
    with session() as opened:
        on_dag_run_running(opened.query(DagRun).one(), msg="started")
    with session() as opened:
        assert opened.query(Deadline).count() == 0


def test_a_run_that_waits_is_told_of_with_its_name(heard, monkeypatch, caplog):
    monkeypatch.setenv("GRISTMILL_ON_FAILURE", "ours.first")
    said = "run backfill__1 of pretrain has waited 6 hours in the queue"
    context = {"dag_run": {"dag_id": "pretrain", "dag_run_id": "backfill__1"}}
    assert asyncio.run(queued_too_long(hours=6.0, context=context)) == said
    assert heard == [("first", said)]
    assert caplog.messages == [f"{said}: is the DAG paused, or does an earlier run take all its places?"]
    assert alerts.tell is tell
