"""The stage abilities: what it commits of real records, what closes the export, and items that stand in the corpus."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract import results
from contract.headline import headline
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, need
from contract.plan import Run
from evals.ability_report import parsed
from evals.grading import grade
from evals.records import Output, write_records
from evals.tasks.prompts import prompt
from evals.tasks.published import read_items
from evals.tasks.table import task_named
from training import abilities
from training.engine.job import Job

COUNT = 60
EVALUATE = results.Evaluate(
    heldout_sequences=1, heldout_tokens=1, prompts=32, reward_sft=0.0, worse_sft=False,
    win_rate=0.75, win_rate_low=0.6, win_rate_high=0.85,
)  # fmt: skip


@pytest.fixture
def sets(tmp_path: Path) -> Mapping[str, Path]:
    """Items of two benchmarks in their published shape."""
    sums = [
        {"question": f"Anna has {at} blue stones and finds one more near the old river mill. How many?",
         "answer": f"{at} + 1\n#### {at + 1}"}
        for at in range(COUNT)
    ]  # fmt: skip
    words = [
        {"question": f"Which word of this long and winding row is number {at}?", "choices": ["one", "two"], "answer": 0,
         "subject": f"row {at % 4}"}
        for at in range(COUNT)
    ]  # fmt: skip
    made = {}
    for name, rows in (("gsm8k", sums), ("mmlu", words)):
        made[name] = tmp_path / f"{name}.jsonl"
        made[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def answered(run: Run, model: str, benchmark: str, items: Path, right: Callable[[int], bool]) -> Manifest:
    """Commit a model's answers as the stage benchmark does."""
    task = task_named(benchmark)
    read = read_items(task, items)
    if benchmark == "gsm8k":
        outputs = {one.id: [Output(f"#### {one.answers[0] if right(at) else 999}")] for at, one in enumerate(read)}
    else:
        likely = {True: (-1.0, -2.0), False: (-2.0, -1.0)}
        outputs = {one.id: [Output(logprobs=likely[right(at)])] for at, one in enumerate(read)}
    records = grade(task, read, outputs, lambda item: prompt(task, item))
    attempt = Attempt(run, run.task("benchmark", f"{model}.{benchmark}"))
    path = run.store.local(attempt.path("records.parquet"))
    path.parent.mkdir(parents=True)
    write_records(path, records)
    file = File(path=attempt.path("records.parquet"), kind=Kind.RECORDS, bytes=path.stat().st_size, rows=len(records))
    made = results.Benchmark(
        task=benchmark, ability=task.ability, model=model, made_by="x", n=len(read), shots=int(benchmark == "mmlu")
    )
    return attempt.commit([file], result=made)


def decontaminated(run: Run, leaked: int) -> None:
    """Commit what `decontaminate` would say of the set `ours`: so many items leaked, one overlaps."""
    attempt = Attempt(run, run.task("decontaminate"))
    rows = [
        {"benchmark": "ours", "item": at, "where": f"gsm8k.jsonl:{at + 1}", "sought": True,
         "leaking": int(at < leaked), "ngrams": 5, "ngrams_found": int(at <= leaked)}
        for at in range(COUNT)
    ]  # fmt: skip
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    run.store.write_bytes(attempt.path("items.parquet"), sink.getvalue())
    file = File(path=attempt.path("items.parquet"), kind=Kind.ITEMS, bytes=len(sink.getvalue()), rows=len(rows))
    attempt.commit([file], result=results.Decontaminate(benchmark_ngrams=1))


@pytest.fixture
def executed(make_job: Callable[..., Job], sets: Mapping[str, Path]) -> Callable[..., tuple[Run, Manifest]]:
    """`executed("abilities.max_drop=0.1")`: the run and what the stage commits; alignment spoils every third sum."""

    def execute(*overrides: str) -> tuple[Run, Manifest]:
        tasks = ", ".join(f"{name}: {{items: {path}}}" for name, path in sets.items())
        searched = f"decontaminate.benchmarks={{ours: {sets['gsm8k']}}}"
        job = make_job("abilities", f"benchmark.tasks={{{tasks}}}", searched, *overrides)
        run: Run = vars(job._run)["whole"]
        for model in ("pretrain", "sft", "aligned"):
            spoilt = 3 if model == "aligned" else COUNT + 1
            answered(run, model, "gsm8k", sets["gsm8k"], lambda at, spoilt=spoilt: at % spoilt != spoilt - 1)  # type: ignore[misc]
            answered(run, model, "mmlu", sets["mmlu"], lambda at: at % 2 == 0)
        decontaminated(run, leaked=20)
        Attempt(run, run.task("evaluate")).commit([], result=EVALUATE)
        abilities.run(job)
        return run, need(run.store, run.task("abilities"))

    return execute


def test_what_was_lost_is_told_and_kept_back(executed: Callable[..., tuple[Run, Manifest]]) -> None:
    run, made = executed("abilities.max_drop=0.1", "abilities.at_least={knowledge en: 0.6, maths: 0.5}")
    figures = results.Abilities.of(made)
    assert (figures.models, figures.benchmarks) == (3, 2)
    assert figures.scores == {
        "gsm8k": {"pretrain": 1.0, "sft": 1.0, "aligned": pytest.approx(2 / 3)},
        "mmlu": dict.fromkeys(("pretrain", "sft", "aligned"), 0.5),
    }
    assert figures.worse == {"aligned": {"maths": pytest.approx(1 / 3)}}
    drop, floor = figures.closed.split("; ")
    assert drop.startswith("maths 66.7 % after 100.0 %: -33.3 points (")
    assert drop.endswith(", against sft")
    assert floor == "knowledge en: mmlu 50.0 % is under 60 %"
    assert figures.untold == "knowledge en (60 items of 4 sources)"
    assert headline(made).endswith(f"too few sources for max_drop: {figures.untold}")
    assert "aligned lost maths" in headline(made)
    files = {file.path.rpartition("/")[2]: run.store.read_bytes(file.path) for file in made.of(Kind.REPORT)}
    assert {*files} == {"report.md", "report.json"}
    report = parsed(files["report.json"], "x")
    assert report.models == ("pretrain", "sft", "aligned")
    assert [(one.model, one.ability) for one in report.changes if one.verdict == "worse"] == [("aligned", "maths")]
    page = files["report.md"].decode()
    assert "| mmlu, 1-shot | 50.0 (" in page
    assert "Alignment tax, sft to aligned: maths 66.7 % after 100.0 %" in page
    assert (
        "Win rate of the aligned model over the SFT model, by the reward model that alignment optimised: 75.0 %" in page
    )


def test_items_are_known_in_the_corpus_by_the_content_of_their_file(
    executed: Callable[..., tuple[Run, Manifest]],
) -> None:
    run, made = executed()
    (file,) = [one for one in made.of(Kind.REPORT) if one.path.endswith(".json")]
    sums, words = parsed(run.store.read_bytes(file.path), "x").contamination
    assert sums.items == {"clean": COUNT - 21, "overlapping": 1, "leaked": 20, "too short": 0}
    assert {name: one.n for name, one in sums.models["aligned"].scores.items()} == {
        "clean": COUNT - 21, "overlapping": 1, "leaked": 20,
    }  # fmt: skip
    right = [at for at in range(20) if at % 3 != 2]
    assert sums.models["aligned"].scores["leaked"].mean == len(right) / 20
    assert (words.items, words.models) == ({}, {}), "nobody searched for it"
    assert results.Abilities.of(made).closed == ""


def test_without_benchmarks_nothing_is_read(make_job: Callable[..., Job]) -> None:
    job = make_job("abilities")
    abilities.run(job)
    made = need(job.store, job.task)
    assert (results.Abilities.of(made), made.files) == (results.Abilities(), ())


def test_a_benchmark_of_which_an_item_was_not_searched_for_counts_as_not_searched() -> None:
    from contract.contamination import Searched
    from evals.records import Record

    records = [Record("gsm8k", "maths", str(at), "s", 0, "", "", "", "x", 1.0, where=f"a:{at}") for at in (1, 2)]
    both = {"a:1": Searched("clean", False), "a:2": Searched("leaked", True)}
    assert abilities.in_corpus(records, {"d": both}, "d") == {"1": both["a:1"], "2": both["a:2"]}
    assert abilities.in_corpus(records, {"d": {"a:1": both["a:1"]}}, "d") is None
    assert abilities.in_corpus(records, {"d": both}, "e") is None
