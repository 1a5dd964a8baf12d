"""A run's page in figures: those of its manifests."""

import datetime
import json
import time
from dataclasses import replace

import pytest

from contract.funnel import levels
from contract.live import points_name
from contract.manifest import Attempt, Rows
from contract.recipe import Recipe
from contract.results import Gate
from contract.stages import ALIGNING, STAGES
from reports.done import Done, Unreadable
from reports.run import LIVE, compare, overview, settings, stage_row, variants

AT = datetime.datetime(2026, 3, 4, tzinfo=datetime.UTC)


def finished(stage="crawl", partition="a", seconds=4.0, run="one", figures=None, peak=None, warnings=(), **rows):
    end = AT + datetime.timedelta(seconds=seconds)
    return Done(stage, partition, AT, end, Rows(**rows), figures or {}, f"{stage} said", warnings, 10, peak, run, "v1")


def test_the_funnel_is_that_of_the_command_line(judged):
    found = overview(judged)
    assert [*found.levels] == levels(judged)
    assert [(level.stage, found.share(level)) for level in found.levels] == [("crawl", 0.7), ("extract", 0.5)]
    assert [(step.name, step.kept) for step in found.steps] == [("URL filter", 7), ("extraction", 5)]
    assert found.examples == ()


def test_a_stage_sums_up_its_tasks():
    row = stage_row(
        "crawl",
        [
            finished(read=30, kept=20, dropped=10, seconds=4, peak=7, warnings=("odd",)),
            finished(read=10, kept=10, seconds=6, peak=9, run="earlier", warnings=("odd",)),
        ],
        "one",
        "",
    )
    assert (row.state, row.tasks, row.done, row.earlier) == ("done", 2, 2, 1)
    assert (row.seconds, row.amount, row.unit, row.rate) == (10.0, 40.0, "documents", 4.0)
    assert (row.bytes, row.peak_bytes, row.said, row.warnings) == (20, 9, "30 of 40 documents kept", ("odd",))


@pytest.mark.parametrize(
    ("found", "why", "state", "said"),
    [
        ([None, None], "", "not run", ""),
        ([finished(), None], "", "1 of 2 done", ""),
        ([None], "the gate is closed", "left out", "the gate is closed"),
        ([finished()], "the gate is closed", "done", ""),
        ([], "the recipe names no benchmarks", "left out", "the recipe names no benchmarks"),
        ([finished(), Unreadable("it is cut")], "", "damaged", "it is cut"),
    ],
)
def test_the_state_of_a_stage(found, why, state, said):
    row = stage_row("ppo", found, "one", why)
    assert (row.state, row.why) == (state, said)


def test_training_is_counted_in_tokens_and_without_work_there_is_no_rate():
    trained = stage_row("pretrain", [finished("pretrain", figures={"tokens": 800})], "one", "")
    assert (trained.unit, trained.rate) == ("tokens", 200.0)
    assert stage_row("gate", [finished("gate")], "one", "").rate is None
    assert stage_row("gate", [None], "one", "").seconds is None


def test_a_closed_gate_leaves_ppo_out(judged):
    ppo = {row.stage: row for row in overview(judged).stages}["ppo"]
    assert (ppo.state, ppo.why) == ("not run", "")
    for stage in ("filter", "minhash_sign", "curate", "dedup_url", "dedup_fuzzy", "dedup_substring", "decontaminate",
                  "mix", "instructions", "preferences", "tokenizer", "pack", "pretrain", "sft", "reward"):  # fmt: skip
        for (name, _), task in judged.tasks().items():
            if name == stage:
                Attempt(judged, task).commit([])
    closed = Gate(open=False, accuracy=0.5, low=0.4, high=0.6, threshold=0.55)
    Attempt(judged, judged.task("gate")).commit([], result=closed)
    ppo = {row.stage: row for row in overview(judged).stages}["ppo"]
    assert (ppo.state, ppo.why) == ("left out", "the gate is closed")


def test_the_overview_has_the_changed_settings_alone(judged):
    assert [one.key for one in overview(judged).changed] == [one.key for one in settings(judged.recipe) if one.changed]


def test_settings_stand_beside_their_defaults_with_secrets_masked():
    recipe = Recipe.model_validate({"filter": {"min_words": 7}, "crawl": {"source": "s3://key:secret@bucket/crawl"}})
    found = {one.key: one for one in settings(recipe)}
    usual = {one.key: one for one in settings(Recipe())}
    assert found.keys() == usual.keys()
    words = found["filter.min_words"]
    assert (words.value, words.default, words.changed) == ("7", json.dumps(Recipe().filter.min_words), True)
    assert "secret" not in found["crawl.source"].value
    assert [key for key, one in found.items() if one.changed] == ["crawl.source", "filter.min_words"]
    assert not any(one.changed for one in usual.values())


def test_two_runs_differ_in_recipe_funnel_and_results(judged, resolve_run, tmp_path):
    other = resolve_run(tmp_path / "crawl", {"extract.min_chars": 99}, "two")
    compared = compare(overview(other), overview(judged))
    assert compared.settings == (("extract.min_chars", "99", "25"),)
    assert [(stage, one and one.kept, before and before.kept) for stage, one, before in compared.funnel] == [
        ("crawl", 7, 7),
        ("extract", None, 5),
    ]
    assert compared.results == ()


def test_a_result_that_both_runs_share_is_told_apart(judged):
    here = overview(judged)
    rows = {name: stage_row(name, [finished(name)], "one", "") for name in ("tokenizer", "pretrain", "sft")}
    there = replace(
        here,
        stages=tuple(rows.get(row.stage, row) for row in here.stages),
        results={**here.results, "pretrain": ("pretrain/other/all",)},
    )
    found = [(stage, one.state, other.said, same) for stage, one, other, same in compare(here, there).results]
    assert found == [
        ("tokenizer", "not run", "tokenizer said", True),
        ("pretrain", "not run", "pretrain said", False),
        ("sft", "not run", "sft said", True),
    ]


def test_the_variants_of_an_ablation_have_names(judged, resolve_run, tmp_path):
    assert variants(judged) == {}
    given = {"ablate.variants": {"base": [], "long": ["filter.min_words=99"]}, "ablate.seeds": [0, 4]}
    base = resolve_run(tmp_path / "crawl", given, "two")
    assert variants(base) == {
        "base, seed 0": "runs/two.base.0/recipe.yaml",
        "base, seed 4": "runs/two.base.4/recipe.yaml",
        "long, seed 0": "runs/two.long.0/recipe.yaml",
        "long, seed 4": "runs/two.long.4/recipe.yaml",
        "comparison": "runs/two.comparison/recipe.yaml",
    }


@pytest.mark.parametrize("stage", LIVE)
def test_a_stage_that_shows_its_curves_runs_until_it_is_silent(judged, resolve_run, stage, monkeypatch):
    if stage in ALIGNING:
        judged = resolve_run(judged.recipe.crawl.source, {"align": stage}, "two")
    judged.store.write_bytes(f"{judged.task(stage).prefix}/attempt-aa/{points_name(0)}", b"")
    assert overview(judged).of(stage).state == "not run", "its inputs are not done"
    before = [one for one in STAGES if one not in ("crawl", "extract", "gate")]
    for task in judged.tasks().values():
        if task.stage in before[: before.index(stage)]:
            Attempt(judged, task).commit([])
    row = overview(judged).of(stage)
    assert (row.state, row.why) == ("running", "")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1200)
    row = overview(judged).of(stage)
    assert (row.state, row.why) == ("interrupted", "its last figures are 20 minutes old")
