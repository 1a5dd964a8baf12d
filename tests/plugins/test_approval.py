"""Who is asked before PPO and when nobody is, what a person sees, and what becomes of the answer."""

import datetime
import logging
from types import SimpleNamespace

import pytest
from airflow.providers.standard.operators.hitl import HITLOperator

from contract.approval import Refusal, refusal, refuse
from contract.manifest import Attempt, find
from contract.results import result_of
from gristmill_airflow import approval
from gristmill_airflow.approval import Approval, body, keep, stale_after, unasked

AT = datetime.datetime(2026, 11, 22, 15, 0, 7, 5, tzinfo=datetime.UTC)
GATE = {"accuracy": 0.7, "low": 0.62, "high": 0.77, "threshold": 0.55}
ANN = {"id": "7", "name": "ann"}


def commit(run, name, **metrics):
    return Attempt(run, run.task(name)).commit([], result=result_of(name).model_construct(**metrics))


@pytest.fixture
def make(tmp_path, resolve_run):
    """`make(asks, open_)`: a run with its reward model and its gate."""
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")

    def resolved(asks=True, open_=True):
        run = resolve_run(tmp_path / "crawl", {"gate.approval": asks, "gate.approval_hours": 0.5})
        commit(run, "reward", ece=0.031, heldout_pairs=110)
        commit(run, "gate", open=open_, **GATE)
        return run

    return resolved


class Parked(Exception):
    pass


@pytest.fixture
def operate(monkeypatch):
    """`operate(run, **event)`: run the operator as Airflow does until it parks, or with an event, what follows the answer."""

    def park(self, context):
        raise Parked

    def call(run, **event):
        monkeypatch.setattr(HITLOperator, "execute", park)
        monkeypatch.setattr(Approval, "log", logging.getLogger("task"))
        operator = Approval(recipe=run.uri)
        context = {
            "dag_run": SimpleNamespace(dag_id="align", run_id="manual__1"),
            "ti": SimpleNamespace(xcom_push=lambda key, value: operator.__dict__.setdefault("said", {key: value})),
        }
        if event:
            given = {"chosen_options": [], "params_input": {}, "responded_at": AT, "responded_by_user": ANN, **event}
            answer = operator.execute_complete(context, given)
            return answer, operator.__dict__["said"]
        try:
            return operator, Approval.execute.__wrapped__(operator, context)
        except Parked:
            return operator, "parked"

    return call


def test_nobody_is_asked_unless_the_recipe_says_so(make, operate, caplog):
    run = make(asks=False)
    refuse(run.store, run.task("ppo"), Refusal("ann", "2026"))
    with caplog.at_level("INFO"):
        assert operate(run)[1] is None
    assert caplog.messages == ["nobody is asked: the recipe sets no gate.approval"]
    assert refusal(run.store, run.task("ppo")) is None, "an earlier refusal stands no longer"


def test_nobody_is_asked_about_a_closed_gate_or_a_finished_ppo(make):
    closed = make(open_=False)
    assert unasked(closed, find(closed.store, closed.task("gate"))) == "the gate is closed"


def test_a_finished_ppo_is_not_asked_about(make, operate, caplog):
    run = make()
    commit(run, "ppo", reward_first=0.0)
    with caplog.at_level("INFO"):
        assert operate(run)[1] is None
    assert caplog.messages == ["nobody is asked: PPO is done already"]


def test_it_parks_with_the_figures_and_refuses_after_the_recipes_hours(make, operate):
    operator, state = operate(make())
    assert state == "parked"
    assert operator.response_timeout == datetime.timedelta(minutes=30)
    assert (operator.options, operator.defaults) == (["Approve", "Reject"], ["Reject"])
    assert [line for line in operator.body.splitlines() if line.startswith("| ")] == [
        "| figure | value |",
        "| held-out accuracy of the reward model | 0.7 |",
        "| lower end of its confidence interval | 0.62 |",
        "| upper end | 0.77 |",
        "| threshold for the lower end | 0.55 |",
        "| held-out pairs | 110 |",
        "| expected calibration error | 0.031 |",
    ]
    assert "(/gristmill/training/align/manual__1/gate)" in operator.body


def test_a_rejection_is_kept_and_an_approval_removes_it(make, operate):
    run = make()
    answer, said = operate(run, chosen_options=["Reject"])
    assert said == {"summary": "rejected by ann, 2026-11-22T15:00:07+00:00"}
    assert answer["responded_by_user"] == ANN
    assert refusal(run.store, run.task("ppo")) == Refusal("ann", "2026-11-22T15:00:07+00:00")
    _, said = operate(run, chosen_options=["Approve"])
    assert said == {"summary": "approved by ann, 2026-11-22T15:00:07+00:00"}
    assert refusal(run.store, run.task("ppo")) is None


def test_no_answer_in_time_is_a_rejection_by_nobody(make, operate):
    run = make()
    _, said = operate(run, chosen_options=["Reject"], responded_by_user=None)
    assert said == {"summary": "rejected, because nobody answered in time, 2026-11-22T15:00:07+00:00"}
    assert refusal(run.store, run.task("ppo")).why.startswith("PPO is left out, because nobody approved it in time")


def test_a_late_approval_names_what_was_made_without_ppo(make, operate, caplog):
    run = make()
    made = commit(run, "evaluate", perplexity_sft=9.0)
    operate(run, chosen_options=["Approve"])
    uri = run.store.full(made.path)
    assert f"warning: {uri} was made without PPO; delete it to have PPO measured" in caplog.messages
    commit(run, "ppo", reward_first=0.0)
    assert stale_after(run) == []


def test_a_name_forges_no_line(make):
    run = make()
    answer = {"responded_by_user": {"id": "1", "name": "a\nresult: b"}, "responded_at": AT}
    assert keep(run, False, answer) == r"rejected by a\nresult: b, 2026-11-22T15:00:07+00:00"


def test_missing_figures_are_left_out_of_the_table(make):
    run = make()
    gate = find(run.store, run.task("gate"))
    shown = body(gate, gate.model_copy(update={"metrics": {}}), SimpleNamespace(dag_id="align", run_id="1"))
    assert "calibration" not in shown
    assert "0.62" in shown


@pytest.mark.parametrize(("setting", "value"), [("gate.approval", True), ("gate.approval_hours", 1.0)])
def test_no_setting_of_the_approval_changes_a_fingerprint(tmp_path, resolve_run, setting, value):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    plain, changed = (
        resolve_run(tmp_path / "crawl", name="a"),
        resolve_run(tmp_path / "crawl", {setting: value}, name="b"),
    )
    prints = [{key: task.fingerprint for key, task in run.tasks().items()} for run in (plain, changed)]
    assert prints[0] == prints[1]
    assert approval.AFTER == ("evaluate", "abilities", "export")
