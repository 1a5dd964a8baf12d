"""Waiting for votes: the trigger's decisions by the clock, the operator that defers, and what follows a round."""

import asyncio
import datetime
import logging
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.triggers.base import TriggerEvent

from contract import feedback as contract_feedback
from contract.conversation import Turn
from contract.errors import RecipeError, StoreError
from contract.feedback import Item, Reply, Vote, item_id
from contract.manifest import Attempt
from contract.plan import open_run
from contract.results import result_of
from evals import kept
from evals.judging import Judge
from gristmill_airflow import feedback
from gristmill_airflow.feedback import Due, Votes, VotesTrigger
from gristmill_airflow.note import OURS
from gristmill_airflow.result import SUMMARY
from reports import rounds

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
ITEM = Item(item_id((Turn("user", "q"),), (Reply("a", "ppo/b", 1.0), Reply("b", "ppo/b", 1.0))), 1, (Turn("user", "q"),), (Reply("a", "ppo/b", 1.0), Reply("b", "ppo/b", 1.0)))  # fmt: skip


@pytest.fixture
def run(tmp_path, resolve_run, monkeypatch):
    """A run whose round is sampled, of one item that one person shall rate within an hour from NOW."""
    (tmp_path / "crawl").mkdir(exist_ok=True)
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    made = resolve_run(tmp_path / "crawl", {"feedback.rating.people": 1, "feedback.hours": 1})
    attempt = Attempt(made, made.task("sample"))
    file = contract_feedback.write_items(made.store, attempt.path("items.parquet"), [ITEM])
    attempt.commit([file], result=result_of("sample").model_construct(round=1, prompts=1, items=1, replies=2))
    monkeypatch.setattr(feedback, "now", lambda: NOW)
    monkeypatch.setattr(Votes, "log", logging.getLogger("task"))
    return made


def execute(run):
    pushed = {}
    context = {"dag": SimpleNamespace(dag_id="feedback"), "ti": SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))}  # fmt: skip
    operator = Votes(recipe=run.uri)
    return operator, context, pushed


def defer(run):
    operator, context, _ = execute(run)
    with pytest.raises(TaskDeferred) as raised:
        Votes.execute.__wrapped__(operator, context)
    return raised.value


def vote(run):
    [made] = contract_feedback.rounds(run.store)[0]
    contract_feedback.cast(run.store, made, Vote(round=made.name, item=ITEM.id, annotator="ann", showing=0, shown=(0, 1), ranks=(1, 2), when=NOW))  # fmt: skip


async def first(trigger):
    async for event in trigger.run():
        return event


def test_a_round_that_lacks_votes_is_deferred_and_holds_nothing(run):
    deferred = defer(run)
    path, given = deferred.trigger.serialize()
    assert path == "gristmill_airflow.feedback.VotesTrigger"
    [made] = contract_feedback.rounds(run.store)[0]
    assert given == {"store": run.store.uri, "round_name": made.name, "until": "2026-03-01T13:00:00+00:00"}
    assert deferred.method_name == "execute_complete"
    assert deferred.kwargs == {"name": made.name}
    assert made.dag == "feedback"


def test_a_round_with_all_votes_is_not_deferred(run):
    made = rounds.open_round(run, "feedback", NOW)
    vote(run)
    operator, context, _ = execute(run)
    assert Votes.execute.__wrapped__(operator, context) == made.name


def test_the_trigger_waits_for_the_last_vote(run, monkeypatch):
    """In a real event loop: it looks, sleeps, and fires once the vote is there."""
    trigger, naps = defer(run).trigger, []

    async def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            vote(run)

    monkeypatch.setattr(feedback.asyncio, "sleep", nap)
    event = asyncio.run(first(trigger))
    assert event == TriggerEvent({"state": "complete", "said": "1 of 1 items have their votes, of 1 people"})
    assert naps == [feedback.POLL_S] * 3


def test_the_trigger_fires_when_the_time_is_over(run, monkeypatch):
    trigger, clock = defer(run).trigger, [NOW]

    async def nap(seconds):
        clock[0] += datetime.timedelta(minutes=20)

    monkeypatch.setattr(feedback.asyncio, "sleep", nap)
    monkeypatch.setattr(feedback, "now", lambda: clock[0])
    event = asyncio.run(first(trigger))
    assert event == TriggerEvent({"state": "over", "said": "0 of 1 items have their votes, of 0 people"})
    assert clock[0] == NOW + datetime.timedelta(hours=1)


def test_a_store_that_fails_is_asked_again_and_a_lost_round_is_told(run, monkeypatch):
    trigger, naps, real = defer(run).trigger, [], rounds.votes

    def flaky(store, name):
        if not naps:
            raise StoreError("s3: timed out")
        return real(store, name)

    async def nap(seconds):
        naps.append(seconds)
        vote(run)

    monkeypatch.setattr(rounds, "votes", flaky)
    monkeypatch.setattr(feedback.asyncio, "sleep", nap)
    assert asyncio.run(first(trigger)).payload["state"] == "complete"
    lost = VotesTrigger(run.store.uri, "nobody", NOW.isoformat())
    found = asyncio.run(first(lost)).payload
    assert found["state"] == "failed"
    assert "there is no such round" in found["said"]


@pytest.fixture
def in_airflow(monkeypatch):
    """What the tasks leave in Airflow: `summary`, and the event's `extra`."""
    event = SimpleNamespace(extra=None, add_partitions=lambda key: None)
    left = {"event": event, "compare": 0}
    context = {
        "dag": SimpleNamespace(dag_id="feedback"),
        "run_id": "manual__1",
        "ti": SimpleNamespace(
            xcom_push=lambda key, value: left.update({key: value}), xcom_pull=lambda task_ids: left.get(task_ids)
        ),
        "outlet_events": {feedback.RESOLVED: event},
    }
    monkeypatch.setattr(feedback, "get_current_context", lambda: context)
    return left


def test_a_collected_round_is_the_run_that_the_pages_show(run, in_airflow, caplog):
    made = rounds.open_round(run, "feedback", NOW)
    vote(run)
    gate = result_of("gate").model_construct(open=False, accuracy=0.5, low=0.4, high=0.6, threshold=0.55)
    Attempt(run, run.task("gate")).commit([], result=gate)
    Attempt(run, run.task("preferences")).commit([], result=result_of("preferences").model_construct())
    with caplog.at_level("INFO"):
        uri = feedback.collect.function(run.uri, made.name)
    assert "/runs/feedback.manual__1.collected/recipe.yaml" in uri
    assert in_airflow["event"].extra["recipe"] == uri
    assert OURS.match(in_airflow["event"].extra["uses"])
    assert in_airflow[SUMMARY] == "round 1: 1 of 1 items have their votes, of 1 people"
    assert f"run: {uri}" in caplog.messages
    assert open_run(uri).recipe.sample.round == 2
    assert feedback.collect.function(run.uri, made.name) == uri
    del in_airflow["compare"]
    assert feedback.collect.function(run.uri, made.name) == uri
    assert in_airflow[SUMMARY] == "round 1: 1 of 1 items have their votes, of 1 people; the judge failed"


def test_nobody_but_people_compares_unless_the_recipe_names_a_model(run, in_airflow):
    assert feedback.compare.function(run.uri) == 0
    assert contract_feedback.rounds(run.store)[0] == []


def test_a_reward_model_of_the_store_votes_by_the_rewards_that_were_sampled(
    tmp_path, resolve_run, in_airflow, monkeypatch, caplog
):
    monkeypatch.setattr(feedback, "now", lambda: NOW)
    (tmp_path / "crawl").mkdir(exist_ok=True)
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    judge = f"reward/{'d' * 40}"
    run = resolve_run(tmp_path / "crawl", {"sample.judge": judge, "feedback.rating.people": 1})
    attempt = Attempt(run, run.task("sample"))
    replies = tuple(replace(reply, reward=reward) for reply, reward in zip(ITEM.replies, (0.25, 1.5), strict=True))
    file = contract_feedback.write_items(run.store, attempt.path("items.parquet"), [replace(ITEM, replies=replies)])
    attempt.commit([file], result=result_of("sample").model_construct(round=1, prompts=1, items=1, replies=2))
    with caplog.at_level("INFO"):
        assert feedback.compare.function(run.uri) == 1
        assert feedback.compare.function(run.uri) == 0, "votes are kept once"
    [made] = contract_feedback.rounds(run.store)[0]
    assert f"round {made.name}: 1 new votes of judge:{judge}" in caplog.messages
    [one] = contract_feedback.ballots(run.store, made).counting
    assert (one.annotator, one.ranks, one.comment) == (f"judge:{judge}", (2, 1), "rewards 0.25, 1.5")
    assert rounds.votes(run.store, made.name).complete


def test_a_chat_model_of_the_store_votes_by_what_it_answered_when_it_sampled(
    tmp_path, resolve_run, in_airflow, monkeypatch, caplog
):
    """It prefers the second reply, and its revision to the first; of one order of the choices nothing can be read."""
    monkeypatch.setattr(feedback, "now", lambda: NOW)
    (tmp_path / "crawl").mkdir(exist_ok=True)
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    rules = tmp_path / "rules.txt"
    rules.write_text("Be kind.\n")
    model = f"ppo/{'d' * 40}"
    run = resolve_run(tmp_path / "crawl", {"sample.judge": model, "sample.principles": str(rules)})

    def said(prompt):
        system, user = (turn.text for turn in prompt)
        if "Rank the replies" not in system:
            return "c"
        shown = re.findall(r"\[reply [AB] \w+\]\n(\w)", user)
        if shown == ["c", "a"]:
            return "I cannot say."
        return "A > B" if shown[0] > shown[1] else "B > A"

    judge = Judge(model, lambda prompts: ((at, said(prompt)) for at, prompt in enumerate(prompts)))
    attempt = Attempt(run, run.task("sample"))
    files = [contract_feedback.write_items(run.store, attempt.path("items.parquet"), [ITEM])]
    rows = kept.ask_everything(judge, [ITEM], ["Be kind."])
    files.append(kept.write(run.store, attempt.path("judged.parquet"), model, rows))
    attempt.commit(files, result=result_of("sample").model_construct(round=1, prompts=1, items=1, replies=2))
    rules.unlink()  # the rows say by which principle
    with caplog.at_level("INFO"):
        assert feedback.compare.function(run.uri) == 4
        assert feedback.compare.function(run.uri) == 0, "votes are kept once"
    beside, made = sorted(contract_feedback.rounds(run.store)[0], key=lambda one: one.name, reverse=True)
    assert f"round {made.name}: 2 new votes of judge:{model}, of which 0 rank nothing" in caplog.messages
    assert f"revised: {beside.name}; 0 revisions change nothing; 2 new votes of judge:{model}, of which 1 rank nothing" in caplog.messages  # fmt: skip
    votes = contract_feedback.ballots(run.store, made).counting
    assert [(vote.annotator, vote.ranks) for vote in votes] == [(f"judge:{model}", (2, 1))] * 2
    chosen = contract_feedback.ballots(run.store, beside).counting
    assert sorted((vote.ranks, vote.skipped) for vote in chosen) == [((), True), ((2, 1), False)]
    steps = run.store.read_bytes(f"feedback/{beside.name}/steps/{ITEM.id}.json").decode()
    assert '"principle": "Be kind."' in steps


def test_a_judge_without_an_address_is_refused_at_once(tmp_path, resolve_run, in_airflow, monkeypatch):
    monkeypatch.delenv("GRISTMILL_JUDGE_URL", raising=False)
    (tmp_path / "crawl").mkdir(exist_ok=True)
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    run = resolve_run(tmp_path / "crawl", {"feedback.judge.model": "m"})
    with pytest.raises(AirflowFailException, match="GRISTMILL_JUDGE_URL names no address"):
        feedback.compare.function(run.uri)


def test_a_round_goes_on_with_what_is_there_when_the_time_is_over(run):
    operator, context, pushed = execute(run)
    assert operator.execute_complete(context, {"state": "over", "said": "0 of 1"}, "r001") == "r001"
    assert pushed == {SUMMARY: "the time is over; 0 of 1"}
    with pytest.raises(AirflowFailException, match="no such round"):
        operator.execute_complete(context, {"state": "failed", "said": "no such round"}, "r001")


@pytest.mark.parametrize(
    ("schedule", "after", "moment"),
    [
        ("0 9 * * 1", "2026-03-01T12:00", "2026-03-02T09:00"),  # Sunday noon to Monday
        ("0 9 * * 1", "2026-03-02T09:00", "2026-03-02T09:00"),
        ("0 9 * * MON", "2026-03-02T09:01", "2026-03-09T09:00"),
        ("*/15 * * * *", "2026-03-01T23:50", "2026-03-02T00:00"),
    ],
)
def test_the_next_time_of_a_schedule_is_in_utc(schedule, after, moment):
    given = datetime.datetime.fromisoformat(f"{after}+00:00")
    assert feedback.next_time(schedule, given) == datetime.datetime.fromisoformat(f"{moment}+00:00")


@pytest.mark.parametrize("schedule", ["0 99 * * *", "a b c d e", "0 0 31 2 *"])
def test_what_is_no_schedule_is_refused(schedule):
    with pytest.raises(RecipeError, match=r"feedback\.schedule: .* is no schedule of cron"):
        feedback.next_time(schedule, NOW)


@pytest.fixture
def scheduled(tmp_path, resolve_run, monkeypatch):
    """A run whose rounds begin on Mondays at 9; it is Sunday."""
    monkeypatch.setattr(feedback, "now", lambda: NOW)
    monkeypatch.setattr(Due, "log", logging.getLogger("task"))
    (tmp_path / "crawl").mkdir(exist_ok=True)
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    return resolve_run(tmp_path / "crawl", {"feedback.schedule": "0 9 * * 1"})


def test_a_round_that_a_model_starts_waits_for_its_time(scheduled):
    operator = Due(recipe=scheduled.uri)
    with pytest.raises(TaskDeferred) as raised:
        Due.execute.__wrapped__(operator, {"triggering_asset_events": {"aligned": ["an event"]}})
    path, given = raised.value.trigger.serialize()
    assert path == "airflow.providers.standard.triggers.temporal.DateTimeTrigger"
    assert given["moment"] == datetime.datetime(2026, 3, 2, 9, tzinfo=datetime.UTC)
    assert raised.value.method_name == "execute_complete"
    assert operator.execute_complete({}, None) is None


def test_a_round_that_a_person_starts_begins_at_once(scheduled):
    Due.execute.__wrapped__(Due(recipe=scheduled.uri), {"triggering_asset_events": {}})


def test_a_round_without_a_schedule_begins_at_once(run):
    Due.execute.__wrapped__(Due(recipe=run.uri), {"triggering_asset_events": {"aligned": ["an event"]}})
