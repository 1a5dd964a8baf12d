"""A round is opened once, is complete when each item has its votes, and ends in a run that learns from all rounds."""

import datetime
import gzip
import hashlib
import io
import json
import os
import re
import time
from collections import Counter
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract import feedback
from contract.conversation import Turn
from contract.errors import InputError
from contract.feedback import Item, Reply, Vote, item_id
from contract.kinds import Kind
from contract.manifest import Attempt, File
from contract.plan import open_run, vary
from contract.results import result_of
from contract.schema import PAIRS
from contract.settings.examples import Preferences
from contract.settings.feedback import Feedback, Trust
from evals import annotators
from pipelines.examples.reading import of_shape, read_pairs
from pipelines.examples.shapes import PROMPTS as SHAPES
from pipelines.examples.votes import read_votes
from reports import rounds
from reports.__main__ import main
from reports.rating import closed, rounds_of, sheet, strengths

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
PROMPTS = ("one", "two", "three")


def an_item(text, models=("ppo/b", "ppo/b")):
    prompt, replies = (Turn("user", text),), (Reply("good", models[0], 0.7), Reply("bad", models[1], 1.0))
    return Item(item_id(prompt, replies), 1, prompt, replies)


def pair(text, task=""):
    return {"prompt": [{"role": "user", "text": text}], "task": task, "chosen": "a", "rejected": "b", "weight": 1.0}


def commit(run, stage, files=(), **metrics):
    return Attempt(run, run.task(stage)).commit(files, result=result_of(stage).model_construct(**metrics))


@pytest.fixture
def sampled(tmp_path, resolve_run):
    """`sampled(overrides)`: a run whose gate is open, whose model is aligned, and whose round is sampled."""
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")

    def make(overrides=(), **given):
        run = resolve_run(tmp_path / "crawl", {"feedback.rating.people": 2, **dict(overrides)})
        return finish(run, **given)

    return make


def finish(run, models=("ppo/b", "ppo/b")):
    attempt, sink = Attempt(run, run.task("preferences")), io.BytesIO()
    pairs = [pair(f"{text}?") for text in (*PROMPTS, *PROMPTS)] + [pair("public", "apart")]
    pq.write_table(pa.Table.from_pylist(pairs, PAIRS), sink, write_page_checksum=True)
    data, path = sink.getvalue(), attempt.path("pairs.parquet")
    run.store.write_bytes(path, data)
    file = File(path=path, kind=Kind.PAIRS, bytes=len(data), rows=7, sha256=hashlib.sha256(data).hexdigest())
    attempt.commit([file], result=result_of("preferences").model_construct())
    commit(run, "gate", open=True, accuracy=0.7, low=0.6, high=0.8, threshold=0.55)
    commit(run, "ppo", reward_first=0.0, reward_last=1.0)
    attempt = Attempt(run, run.task("sample"))
    file = feedback.write_items(run.store, attempt.path("items.parquet"), [an_item(text, models) for text in PROMPTS])
    attempt.commit([file], result=result_of("sample").model_construct(round=1, prompts=3, items=3, replies=6))
    return run


def cast(run, made, text, person, ranks=(1, 2)):
    vote = Vote(
        round=made.name, item=an_item(text).id, annotator=person, showing=0, shown=(0, 1), ranks=ranks, when=NOW
    )
    feedback.cast(run.store, made, vote)


def everybody(run, made, people=("ann", "bob")):
    for text in PROMPTS:
        for person in people:
            cast(run, made, text, person)


def test_a_round_is_opened_once_with_the_recipes_rating(sampled):
    run = sampled()
    made = rounds.open_round(run, "feedback", NOW)
    assert (made.number, made.dag, made.rating.people, made.opened) == (1, "feedback", 2, NOW)
    assert re.fullmatch("r001-[0-9a-f]{12}", made.name)
    assert made.made_by == f"{run.task('sample').prefix}/manifest.json"
    assert [item.prompt[0].text for item in feedback.items(run.store, made).values()] == [*PROMPTS]
    assert rounds.open_round(run, "another", NOW + datetime.timedelta(days=1)) == made
    assert rounds_of(run) == [made]


def test_another_run_with_the_same_sample_has_a_round_of_its_own(sampled):
    run = sampled()
    other = vary(run, "other", ["feedback.rating.people=5"])
    assert other.task("sample").fingerprint == run.task("sample").fingerprint
    one, two = (rounds.open_round(each, "feedback", NOW) for each in (run, other))
    assert [made.rating.people for made in (one, two)] == [2, 5]
    assert (rounds_of(run), rounds_of(other)) == ([one], [two])


def test_a_comparison_of_two_models_is_a_round_of_its_own_from_which_nothing_is_learned(sampled, capsys):
    run = sampled(models=("ppo/b", "sft/a"))
    learned = rounds.open_round(run, "feedback", NOW)
    assert main(["compare", "--recipe", run.uri]) == 0
    [name] = {one.name for one in rounds_of(run)} - {learned.name}
    assert name.startswith("c001-")
    made, said = feedback.read_round(run.store, name), capsys.readouterr().out.splitlines()
    assert said[0] == f"{name}: 0 of 3 items have their votes, of 0 people"
    assert said[2] == (
        f"without Airflow: python -m reports serve --store {run.store.uri}, then http://127.0.0.1:8090/rate/runs/{made.run}"
    )
    assert said[3].startswith("in Airflow: the tab Rate of a DAG run of this recipe")
    assert (made.purpose, made.run, made.files) == ("comparison", learned.run, learned.files)
    assert {one.name for one in rounds_of(run)} == {learned.name, name}
    for item in feedback.items(run.store, made):
        for person in ("ann", "bob"):
            vote = Vote(round=name, item=item, annotator=person, showing=0, shown=(0, 1), ranks=(1, 2), when=NOW)
            feedback.cast(run.store, made, vote)
    assert main(["compare", "--recipe", run.uri]) == 0
    assert "3 of 3 items have their votes, of 2 people" in capsys.readouterr().out
    table, count, _ = strengths(run.store, made, Trust())
    assert (count, table.why) == (
        6,
        "ppo/b was never beaten by the other 1, or never compared with them, so that the scores have no bound. More votes may change that.",
    )
    frozen = feedback.freeze(run.store, made, feedback.ballots(run.store, made).counting)
    settings = Preferences(rounds={"a": {"votes": run.store.full(frozen)}})
    with pytest.raises(InputError, match="compares models for evaluation"):
        list(read_votes(settings, Counter()))


def test_a_comparison_of_one_model_is_refused(sampled, capsys):
    run = sampled()
    assert main(["compare", "--recipe", run.uri]) == 65
    assert "all replies are of ppo/b; name two in sample.models" in capsys.readouterr().err
    assert feedback.rounds(run.store) == ([], [])


def test_gold_items_of_the_recipe_are_among_the_items_and_leave_out_who_votes_against_them(sampled, tmp_path):
    pairs = [{"prompt": f"known {at}", "chosen": f"right {at}", "rejected": f"wrong {at}"} for at in range(30)]
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pairs))
    run = sampled({"sample.gold": str(tmp_path / "gold.jsonl"), "sample.gold_items": 12})
    assert "sample.gold" in run.outside, "its content is part of the fingerprint"
    made = rounds.open_round(run, "feedback", NOW)
    items = feedback.items(run.store, made)
    known = [item for item in items.values() if item.gold]
    assert (len(items), len(known)) == (15, 12)
    assert rounds.open_round(run, "another", NOW) == made
    everybody(run, made, ("ann", "eve"))
    for item in known:
        turned = tuple(3 - rank for rank in item.gold)
        for person, ranks in (("ann", item.gold), ("eve", turned)):
            values = {"round": made.name, "item": item.id, "annotator": person, "ranks": ranks}
            feedback.cast(run.store, made, Vote(**values, showing=0, shown=(0, 1), when=NOW))
    assert set(rounds.collect(run, made, "next").left_out) == {"eve"}


@pytest.mark.parametrize(("judge", "done"), [("sft", 15), (None, 3)])
def test_a_judge_who_votes_on_no_gold_item_leaves_none_open(sampled, tmp_path, judge, done):
    pairs = [{"prompt": f"known {number}", "chosen": "right", "rejected": "wrong"} for number in range(20)]
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pairs))
    run = sampled(
        {"sample.gold": str(tmp_path / "gold.jsonl"), "sample.gold_items": 12, "sample.judge": judge},
        models=("ppo/b", "sft/a"),
    )
    made = rounds.open_round(run, "feedback", NOW)
    everybody(run, made, ["judge:sft", "ann"])
    known = [item for item in feedback.items(run.store, made).values() if item.gold]
    for item in known:
        vote = Vote(round=made.name, item=item.id, annotator="ann", showing=0, shown=(0, 1), ranks=(1, 2), when=NOW)
        feedback.cast(run.store, made, vote)
    found = rounds.votes(run.store, made.name)
    assert (found.done, found.items, found.complete) == (done, 15, done == 15)
    progress = sheet(run.store, made, "bob", NOW).desk.progress()
    assert (progress.done, progress.needed) == (18, 18 if judge else 30)
    assert rounds.open_round(run, "", NOW, "comparison").beside_gold == 0, "no judge votes in a comparison"


def test_a_gold_file_that_changed_since_the_run_was_resolved_is_refused(sampled, tmp_path):
    gold = tmp_path / "gold.jsonl"
    gold.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}))
    run = sampled({"sample.gold": str(gold)})
    gold.write_text(json.dumps({"prompt": "a", "chosen": "c", "rejected": "b"}))
    with pytest.raises(InputError, match=r"sample\.gold"):
        rounds.open_round(run, "feedback", NOW)


def test_a_round_is_complete_when_each_item_has_all_of_its_votes(sampled):
    run = sampled()
    made = rounds.open_round(run, "feedback", NOW)
    for text in PROMPTS[:2]:
        cast(run, made, text, "ann")
        cast(run, made, text, "bob")
    cast(run, made, "three", "ann")
    found = rounds.votes(run.store, made.name)
    assert (found.done, found.items, found.people, found.complete) == (2, 3, 2, False)
    assert str(found) == "2 of 3 items have their votes, of 2 people"
    cast(run, made, "three", "bob")
    assert rounds.votes(run.store, made.name).complete


def test_the_next_run_learns_from_the_votes_and_samples_the_next_round(sampled):
    run = sampled()
    made = rounds.open_round(run, "feedback", NOW)
    everybody(run, made)
    found = rounds.collect(run, made, "next")
    recipe = found.run.recipe
    [one] = recipe.preferences.rounds.values()
    assert (one.votes, one.weight) == (*found.frozen, 1.0)
    assert len(feedback.read_frozen(one.votes)[2]) == 6
    assert recipe.sample.round == 2
    assert recipe.sample.last == recipe.evaluate.last == recipe.ppo.last == f"ppo/{run.task('ppo').fingerprint}"
    for same in ("instructions", "sft", "pretrain"):
        assert found.run.task(same).fingerprint == run.task(same).fingerprint
    for other in ("preferences", "reward", "gate", "ppo", "evaluate", "sample"):
        assert found.run.task(other).fingerprint != run.task(other).fingerprint
    assert [one.fingerprint for one in found.run.task("evaluate").elsewhere] == [run.task("ppo").fingerprint]
    assert rounds_of(found.run) == [made], "a run shows the rounds that it learns from"


def test_a_round_is_closed_once_a_run_has_collected_it(sampled):
    run = sampled()
    made = rounds.open_round(run, "feedback", NOW)
    with pytest.raises(InputError, match="no vote counts"):
        rounds.collect(run, made, "next")
    everybody(run, made)
    assert closed(run, made) == "", "nothing was collected yet"
    found = rounds.collect(run, made, "next").run
    run.store.delete(f"{made.folder}/collected.json")
    assert (bool(closed(found, made)), closed(run, made)) == (True, ""), "the recipe names the votes"
    rounds.collect(run, made, "next")
    assert closed(run, made).startswith("This round was collected"), "a killed task closes it when it runs again"


@pytest.mark.parametrize("given", [{"feedback.goes_on": False}, {"ppo.lora.enabled": True}])
def test_the_next_policy_may_begin_as_the_sft_model_again(sampled, given):
    run = sampled(given)
    made = rounds.open_round(run, "feedback", NOW)
    everybody(run, made)
    recipe = rounds.collect(run, made, "next").run.recipe
    assert recipe.ppo.last is None
    assert recipe.sample.last == f"ppo/{run.task('ppo').fingerprint}"


def test_the_prompts_of_the_first_run_are_kept_for_all_rounds(sampled):
    run = sampled({"reward.pretrain_tasks": ["apart"]})
    for number in (1, 2):
        made = rounds.open_round(run, "feedback", NOW)
        everybody(run, made)
        run = rounds.collect(run, made, f"after-{number}").run
        if number == 1:
            first = run.recipe.prompts.data
            finish(run)
    assert run.recipe.prompts.data == first, "a file that the recipe names stays"
    kept = [json.loads(line) for line in run.store.read_bytes(first.removeprefix(f"{run.store.uri}/")).splitlines()]
    assert kept == [{"prompt": [{"role": "user", "content": f"{text}?"}]} for text in PROMPTS]
    assert of_shape(SHAPES, kept[0])[1] == [(Turn("user", "one?"),)], "the stage prompts reads it"


def test_votes_that_come_later_change_nothing(sampled):
    run = sampled()
    made = rounds.open_round(run, "feedback", NOW)
    everybody(run, made)
    first = rounds.collect(run, made, "next").run
    cast(run, made, "one", "eve", (2, 1))
    again = rounds.collect(run, made, "next").run
    assert again.uri == first.uri
    assert open_run(again.uri).recipe == first.recipe


def test_every_round_before_is_merged_with_its_weight(sampled):
    run = sampled({"feedback.earlier": 0.5})
    for number in (1, 2, 3):
        made = rounds.open_round(run, "feedback", NOW)
        everybody(run, made)
        run = rounds.collect(run, made, f"after-{number}").run
        if number < 3:
            finish(run)
    weights = {name: one.weight for name, one in run.recipe.preferences.rounds.items()}
    assert weights == {"r001": 0.25, "r002": 0.5, "r003": 1.0}


def test_who_votes_against_all_others_is_left_out(sampled, monkeypatch):
    monkeypatch.setattr(annotators, "LEAST_COMMON", 3)  # the round has three items
    run = sampled({"feedback.trust.min_agreement": 0.9, "feedback.rating.people": 4})
    made = rounds.open_round(run, "feedback", NOW)
    everybody(run, made, ("ann", "bob", "cat"))
    for text in PROMPTS:
        cast(run, made, text, "eve", (2, 1))
    found = rounds.collect(run, made, "next")
    assert set(found.left_out) == {"eve"}
    assert {vote.annotator for vote in feedback.read_frozen(*found.frozen)[2]} == {"ann", "bob", "cat"}


def test_a_refused_gate_leaves_the_sft_model_as_the_last_one(tmp_path, resolve_run):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    run = resolve_run(tmp_path / "crawl")
    commit(run, "gate", open=False, accuracy=0.5, low=0.4, high=0.6, threshold=0.55)
    assert rounds.last_model(run) == f"sft/{run.task('sft').fingerprint}"


def test_a_round_without_a_vote_is_refused(sampled):
    run = sampled()
    made = rounds.open_round(run, "feedback", NOW)
    with pytest.raises(InputError, match="no vote counts, and no file was dropped, so there is nothing to learn"):
        rounds.collect(run, made, "next")


def drop(store, name, data, age=120):
    """A file that somebody put into the folder so many seconds ago."""
    path = f"{rounds.DROPPED}/{name}"
    store.write_bytes(path, data)
    os.utime(store.local(path), (time.time() - age,) * 2)


def test_dropped_files_are_copied_and_learned_from_once(sampled):
    run = sampled()
    made = rounds.open_round(run, "feedback", NOW)
    row = {"question": "q", "accepted": "yes", "rejected": "no"}
    drop(run.store, "log.jsonl", json.dumps(row).encode())
    drop(run.store, "readme.txt", b"not pairs")
    found = rounds.collect(run, made, "next")
    assert (found.frozen, len(found.dropped)) == ((), 1)
    [source] = found.run.recipe.preferences.sources.values()
    assert source.data == found.dropped[0]
    drop(run.store, "log.jsonl", b"changed")
    assert json.loads(run.store.read_bytes(source.data.removeprefix(f"{run.store.uri}/"))) == row
    drop(run.store, "log.jsonl", json.dumps(row).encode())
    finish(found.run)
    second = rounds.open_round(found.run, "feedback", NOW)
    with pytest.raises(InputError, match="no vote counts"):
        rounds.collect(found.run, second, "third")


def test_dropped_files_that_cannot_be_learned_from_do_not_end_the_round(sampled, caplog, monkeypatch):
    run = sampled()
    made = rounds.open_round(run, "feedback", NOW)
    pairs = [{"question": f"q{number}", "accepted": "yes", "rejected": "no"} for number in range(50)]
    lines, sink = "".join(json.dumps(one) + "\n" for one in pairs).encode(), io.BytesIO()
    pq.write_table(pa.Table.from_pylist(pairs), sink)
    drop(run.store, "cut.parquet", sink.getvalue()[:-30])
    drop(run.store, "cut.jsonl.gz", gzip.compress(lines)[:-20])
    drop(run.store, "empty.jsonl", b"")
    drop(run.store, "other.json", b'[{"title": "no pairs"}]')
    drop(run.store, "growing.jsonl", lines[:-10], age=5)
    drop(run.store, "_hidden.jsonl", lines)
    drop(run.store, "large.jsonl", lines * 2)
    monkeypatch.setattr(rounds, "MOST_BYTES", len(lines) + 1)
    good = {"whole.parquet": sink.getvalue(), "packed.jsonl.gz": gzip.compress(lines), "PLAIN.JSONL": lines}
    for name, data in good.items():
        drop(run.store, name, data)
    with caplog.at_level("INFO"):
        found = rounds.collect(run, made, "next")
    assert {run.store.read_bytes(uri.removeprefix(f"{run.store.uri}/")) for uri in found.dropped} == {*good.values()}
    endings = sorted("".join(PurePosixPath(uri).suffixes) for uri in found.dropped)
    assert endings == [".jsonl", ".jsonl.gz", ".parquet"]
    told = {line.split(": ")[1].rpartition("/")[2]: line for line in caplog.messages if line.startswith("left out")}
    assert {*told} == {"cut.parquet", "cut.jsonl.gz", "empty.jsonl", "other.json", "growing.jsonl", "large.jsonl"}
    place = run.store.full(rounds.DROPPED)
    assert told["cut.parquet"].startswith(f"left out: {place}/cut.parquet: damaged at row")
    assert told["empty.jsonl"].startswith(f"left out: {place}/empty.jsonl: it holds no usable row (it is empty)")
    assert told["other.json"].startswith(f"left out: {place}/other.json: it holds no usable row (row 1: unknown shape")
    assert "changed in the last 60 seconds" in told["growing.jsonl"]
    assert any("whole.parquet: 50 usable rows" in line for line in caplog.messages)
    shapes = Counter()
    read = list(read_pairs(found.run.recipe.preferences, shapes))
    assert (len(read), shapes) == (150, {"log of accepted and rejected": 150}), "`preferences` reads all of them"


def test_the_round_of_revised_replies_is_learned_from_beside_its_round(sampled):
    run = sampled()
    made = rounds.open_round(run, "feedback", NOW)
    beside = feedback.open_round(run.store, made.model_copy(update={"name": f"{made.name}-revised"}))
    everybody(run, made)
    everybody(run, beside, ["judge:m"])
    found = rounds.collect(run, made, "next")
    assert [*found.run.recipe.preferences.rounds] == ["r001", "r001-revised"]
    assert [len(feedback.read_frozen(uri)[2]) for uri in found.frozen] == [6, 3]


def test_pairs_of_a_file_stay_beside_dropped_ones():
    now = Preferences(data="/pairs.jsonl")
    made = rounds.changes(now, Feedback(), 3, {}, {"dropped-a": "/b.jsonl"})
    assert made["preferences.sources"] == {"data": {"data": "/pairs.jsonl"}, "dropped-a": {"data": "/b.jsonl"}}
    assert (made["preferences.data"], made["sample.round"], made["preferences.rounds"]) == ("synthetic", 4, {})
