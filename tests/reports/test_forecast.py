"""What would run and how long: from manifests of a real store, and ranges that say no more than earlier times can tell."""

import datetime

import pytest

from contract.errors import InputError, RecipeError
from contract.manifest import Attempt, Rows
from contract.plan import WHOLE, draft
from contract.recipe import load
from contract.results import Gate, Mix, Pack
from contract.stages import stages_of
from reports import forecast as forecasts
from reports.forecast import Sample, Seen, duration, forecast, look, samples, seconds, tasks_in
from reports.workload import place

SPARK = ("local[2]",)


def sample(work, took, stage="filter", kept=None):
    return Sample(stage, SPARK, work, took, kept)


@pytest.mark.parametrize(
    ("work", "found", "expected"),
    [
        (100, [(100, 8)], (8, 8)),
        (400, [(100, 8)], (8, 32)),  # all start-up, or none of it
        (50, [(100, 8)], (4, 8)),
        (100, [(100, 8), (100, 12)], (8, 12)),
        (1000, [(1, 5), (900, 90), (1000, 80), (1100, 110)], (80, 110)),  # the nearest three; the far one is left out
        (0, [(0, 3)], (3, 3)),
        (None, [(100, 8)], None),
        (100, [], None),
    ],
)
def test_a_range_from_the_nearest_earlier_tasks(work, found, expected):
    got = seconds(work, [sample(*one) for one in found])
    assert got == (pytest.approx(expected) if expected else None)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.4, "under 1 s"), (5.4, 5.4, "about 5 s"), (60, 70, "about 70 s"), (60, 90, "60 to 90 s"),
     (40, 10_800, "40 s to 3 h"), (7200, 36_000, "2 to 10 h"), (200_000, 900_000, "2 to 10 days"), (115, 125, "about 2 min")],
)  # fmt: skip
def test_a_range_in_words(low, high, said):
    assert duration(low, high) == said


@pytest.fixture
def crawl(tmp_path):
    folder = tmp_path / "crawl"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.warc.gz").write_bytes(b"W" * 1600 * (index + 1))
    return folder


@pytest.fixture
def make(resolve_run, crawl):
    """A run of three segments of 1,600, 3,200 and 4,800 bytes."""
    return lambda name="one", **over: resolve_run(crawl, {"crawl.files_per_segment": 1, **over}, name)


def commit(run, stage, partition=WHOLE, read=0, kept=0, took=10.0, result=None):
    attempt = Attempt(run, run.task(stage, partition))
    attempt.started = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=took)
    reasons = {"reason": read - kept} if read > kept else {}
    return attempt.commit([], Rows(read=read, kept=kept, dropped=read - kept, reasons=reasons), result)


def finish(run, took=10.0):
    """The stages of a corpus, of which `crawl` keeps a page of 10 bytes and each later one half of what it gets."""
    size = dict(zip([one.partition for one in run.segments], (160, 320, 480), strict=True))
    for stage in ("crawl", "extract", "langid", "score", "filter"):
        for partition, pages in size.items():
            commit(run, stage, partition, pages, pages // (1 if stage == "crawl" else 2), took)
            size[partition] = pages // (1 if stage == "crawl" else 2)


def steps_of(run, dag, earlier=()):
    pairs = tasks_in(run, dag)
    made = forecast(pairs, dag, look(pairs), samples(earlier, {task.stage for _, task in pairs}))
    return made, {step.stage: step for step in made.steps}


def test_a_first_run_has_nothing_to_compare_with(make):
    run = make()
    made, steps = steps_of(run, "corpus")
    assert list(steps) == list(stages_of("corpus"))
    assert (made.crawls, made.files, made.needs) == (run.recipe.snapshots, 3, ())
    assert {(one.stage, one.note) for one in made.steps} == {(name, "no earlier run to compare with") for name in steps}
    assert [steps[name].to_run for name in ("crawl", "filter", "mix")] == [3, 3, 1]
    assert (made.low_s, made.high_s, made.unknown) == (0, 0, tuple(steps))


def test_done_tasks_are_skipped_and_the_others_take_as_long_as_earlier_ones(make):
    run = make()
    finish(run)
    _, steps = steps_of(run, "corpus", [run])
    assert {name: (one.done, one.to_run) for name, one in steps.items() if one.done} == dict.fromkeys(
        ("crawl", "extract", "langid", "score", "filter"), (3, 0)
    )
    changed = make("two", **{"filter.min_words": 7})
    _, steps = steps_of(changed, "corpus", [run])
    one = steps["filter"]
    assert (one.tasks, one.done, one.to_run, one.compared) == (3, 0, 3, 3)
    # Samples of 10 s for 20, 40 and 60 documents: each task lies between 10 s and what it has more or less than these.
    assert (one.low_s, one.high_s) == pytest.approx((10 / 3 + 20 / 3 + 10, 10 + 20 + 30), rel=0.02)
    assert steps["dedup_url"].note == "no earlier run to compare with"


def test_documents_are_followed_through_stages_that_have_not_run(make):
    run = make()
    finish(run)
    commit(run, "dedup_url", read=60, kept=30, took=20)
    other = make("two", **{"crawl.max_payload_bytes": 5000})
    made, steps = steps_of(other, "corpus", [run])
    assert [steps[name].to_run for name in ("crawl", "filter", "dedup_url")] == [3, 3, 1]
    assert (steps["dedup_url"].low_s, steps["dedup_url"].high_s) == pytest.approx((20, 20), rel=0.01)
    assert steps["dedup_url"].compared == 1
    assert "dedup_fuzzy" in made.unknown
    assert "dedup_url" not in made.unknown


def test_another_dags_missing_results_are_named(make):
    run = make()
    made, steps = steps_of(run, "pretrain")
    assert made.needs == ("pack", "tokenizer")
    commit(run, "tokenizer")
    assert steps_of(run, "pretrain")[0].needs == ("pack",)
    assert steps["pretrain"].to_run == 1


def test_ppo_is_left_out_behind_a_closed_gate(make):
    run = make()
    assert steps_of(run, "align")[1]["ppo"].note == "if the gate opens; no earlier run to compare with"
    gate = {"accuracy": 0.4, "low": 0.3, "high": 0.5, "threshold": 0.6}
    commit(run, "gate", result=Gate(open=False, **gate))
    ppo = steps_of(run, "align")[1]["ppo"]
    assert (ppo.note, ppo.to_run, ppo.left_out) == ("left out: the gate is closed", 0, True)


def test_ppo_runs_behind_an_open_gate(make):
    run = make()
    commit(run, "gate", result=Gate(open=True, accuracy=0.9, low=0.8, high=0.95, threshold=0.6))
    assert steps_of(run, "align")[1]["ppo"].to_run == 1


def test_a_damaged_manifest_is_told(make):
    run = make()
    made = commit(run, "mix", result=Mix(training_documents=1, heldout_documents=0))
    (run.store.local(made.path)).write_text("{")
    assert "is not a manifest; delete it" in steps_of(run, "corpus")[1]["mix"].note


def test_of_very_many_tasks_only_the_existence_is_asked(make, monkeypatch):
    run = make()
    finish(run)
    monkeypatch.setattr(forecasts, "READ", 1)
    found = look(tasks_in(run, "corpus"))
    crawled = [found[task.prefix] for (stage, _), task in run.tasks().items() if stage == "crawl"]
    assert crawled == [Seen(160.0), Seen(), Seen()]


def test_samples_are_few_and_count_once(make):
    run = make()
    finish(run, took=7)
    again = make("again")  # the same results under another name count once
    found = samples([run, again], ["crawl", "mix"])
    assert [(one.stage, one.place, one.work, one.kept) for one in found] == [
        ("crawl", SPARK, 1600, 0.1), ("crawl", SPARK, 3200, 0.1), ("crawl", SPARK, 4800, 0.1),
    ]  # fmt: skip
    assert all(one.seconds == pytest.approx(7, abs=2) for one in found)


def test_samples_leave_out_what_cannot_be_read(make):
    run = make()
    finish(run)
    run.store.local(f"{run.task('crawl', run.segments[0].partition).prefix}/manifest.json").write_text("{")
    assert [one.work for one in samples([run], ["crawl"])] == [3200, 4800]


def test_a_manifest_that_was_deleted_is_not_remembered(make):
    run = make()
    made = commit(run, "mix", result=Mix(training_documents=1, heldout_documents=0))
    assert steps_of(run, "corpus")[1]["mix"].done == 1
    run.store.delete(made.path)
    assert steps_of(run, "corpus")[1]["mix"].done == 0


def test_pack_counts_the_documents_that_it_held_out(make):
    run = make()
    figures = {"tokens": 1, "sequences": 1, "heldout_tokens": 0, "heldout_sequences": 0, "bytes": 1, "padding": 0.0}
    commit(run, "pack", result=Pack(documents=8, heldout_documents=2, bytes_per_token=1, token_bytes=2, **figures))
    [found] = samples([run], ["pack"])
    assert found.work == 10


def test_only_as_many_runs_are_looked_at_as_are_worth_it(make, monkeypatch):
    run = make()
    monkeypatch.setattr(forecasts, "RUNS", 2)
    asked = []

    def runs():
        for number in range(9):
            asked.append(number)
            yield run

    assert samples(runs(), ["crawl"]) == []
    assert asked == [0, 1, 2]


def test_what_ran_elsewhere_says_nothing(make):
    run = make()
    finish(run)
    other = make("two", **{"spark.master": "local[4]", "filter.min_words": 7})
    assert place(other.recipe, "filter") != SPARK
    assert steps_of(other, "corpus", [run])[1]["filter"].note == "no earlier run to compare with"


def test_an_ablation_is_forecast_without_writing_its_runs(make, tmp_path, crawl):
    run = make(
        "base",
        **{"ablate.variants": {"a": [], "b": ["filter.min_words=9"]}, "pretrain.tokens": 8, "ablate.seeds": [0, 1]},
    )
    before = run.store.folders("runs")
    made, steps = steps_of(run, "ablate")
    assert run.store.folders("runs") == before
    assert [steps[name].tasks for name in ("crawl", "filter", "pretrain", "probe", "ablate")] == [3, 6, 4, 4, 1]
    assert made.needs == ()


def test_too_much_to_forecast_is_refused(make, monkeypatch):
    run = make("base", **{"ablate.variants": {"a": [], "b": ["filter.min_words=9"]}, "pretrain.tokens": 8})
    monkeypatch.setattr(forecasts, "MOST_MODELS", 5)
    with pytest.raises(RecipeError, match="more than 5 models are not forecast"):
        tasks_in(run, "ablate")
    monkeypatch.setattr(forecasts, "MOST_SEGMENTS", 2)
    with pytest.raises(InputError, match=r"3 segments are more than the 2 .* raise crawl\.files_per_segment"):
        tasks_in(run, "corpus")


def test_a_draft_is_forecast_like_a_run(make, tmp_path):
    run = make()
    finish(run)
    recipe = load(run.uri)
    drafted = draft(recipe)
    assert steps_of(drafted, "corpus", [run]) == steps_of(run, "corpus", [run])


def test_each_dag_runs_the_benchmarks_of_the_models_that_it_makes(make, crawl):
    (crawl.parent / "items.jsonl").write_text("{}")
    run = make("one", **{"benchmark.tasks": {"mmlu": {"items": f"{crawl.parent}/items.jsonl"}}})
    asked = {
        dag: [task.partition for _, task in tasks_in(run, dag) if task.stage == "benchmark"]
        for dag in ("corpus", "pretrain", "align", "evaluate")
    }
    own = ["pretrain.mmlu", "sft.mmlu", "aligned.mmlu"]
    assert asked == {"corpus": [], "pretrain": own[:1], "align": own[1:], "evaluate": own}
    found = forecast(tasks_in(run, "pretrain"), "pretrain", {}, [])
    assert [(step.stage, step.tasks, step.to_run) for step in found.steps] == [("pretrain", 1, 1), ("benchmark", 1, 1)]
    plain = make("two")
    assert [step.stage for step in forecast(tasks_in(plain, "pretrain"), "pretrain", {}, []).steps] == ["pretrain"]
