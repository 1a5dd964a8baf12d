"""What each model of a run can do, ability by ability, what it lost against those before, and what it had read."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields

from contract import results
from contract.benchmarks import OWN, Measured, step_of
from contract.contamination import Searched, searched
from contract.kinds import Kind
from contract.manifest import Manifest, need
from contract.printable import printable_lines
from contract.settings.training import Abilities
from contract.store import Store
from contract.tables import read_rows
from evals.ability_report import Report, dumped, markdown, put_together
from evals.records import Record
from training.engine.job import Job

NEEDED = tuple(one.name for one in fields(Record) if one.name not in ("prompt", "output"))
"""The columns that are read: texts would take gigabytes."""


def records_of(store: Store, manifest: Manifest) -> list[Record]:
    """The records that `benchmark` committed, without their texts."""
    return [
        Record(**row, prompt="", output="")
        for file in manifest.of(Kind.RECORDS)
        for row in read_rows(store, file, NEEDED)
    ]


def in_corpus(
    records: Sequence[Record], found: Mapping[str, Mapping[str, Searched]], digest: str
) -> dict[str, Searched] | None:
    """What was found in the corpus of each item of a benchmark, by item id; None unless all were searched for.

    found: what `contract.contamination.searched` returned. digest: that of the files that hold the items.
    """
    places = found.get(digest, {})
    known = {one.id: places.get(one.where) for one in records}
    whole = {name: one for name, one in known.items() if one is not None}
    return whole if len(whole) == len(known) else None


def figures_of(report: Report, asked: int) -> results.Abilities:
    """What the stage commits of its report. asked: the number of models that were."""
    scores: dict[str, dict[str, float | int | None]] = {
        row.benchmark: {model: one.mean for model, one in row.scores.items() if one}
        for row in report.rows
        if row.benchmark is not None
    }
    worse: dict[str, dict[str, float | int | None]] = defaultdict(dict)
    for change in report.changes:
        if change.why == "before" and change.verdict == "worse":
            worse[change.model][change.ability] = change.drop
    return results.Abilities(
        models=asked,
        benchmarks=len(scores),
        scores=scores,
        worse=dict(worse),
        closed="; ".join(report.closing),
        untold="; ".join(report.untold),
    )


def judged(measured: results.Evaluate) -> tuple[str, ...]:
    """The aligned model's win rates over the SFT model, as sentences; none without an aligned model."""
    rates = (
        ("the reward model that alignment optimised", measured.win_rate, measured.win_rate_low, measured.win_rate_high),
        (
            "the judge, which alignment never saw",
            measured.judge_win_rate, measured.judge_win_rate_low, measured.judge_win_rate_high,
        ),
    )  # fmt: skip
    return tuple(
        f"Win rate of the aligned model over the SFT model, by {whose}: {100 * rate:.1f} % "
        f"({100 * low:.1f} to {100 * high:.1f}), {measured.prompts:,} prompts."
        for whose, rate, low, high in rates
        if rate is not None and low is not None and high is not None
    )


def run(job: Job) -> None:
    settings: Abilities = job.settings
    made = [(Measured.of(task.partition), need(job.store, task)) for task in job.task.of("benchmark")]
    answers: dict[str, dict[str, list[Record]]] = {}
    digests: dict[str, str] = {}
    shots: dict[str, int] = {}
    for of, manifest in made:
        if records := records_of(job.store, manifest):  # there is no aligned model behind a closed gate
            answers.setdefault(of.model, {})[of.benchmark] = records
            shots[of.benchmark] = results.Benchmark.of(manifest).shots
            digests[of.benchmark] = manifest.identity.outside[f"benchmark.tasks.{of.benchmark}.items"]
    if not answers:
        job.attempt.commit([], result=results.Abilities())
        return
    found = searched(job.store, job.manifest("decontaminate"))
    known = {
        name: in_corpus([one for asked in answers.values() for one in asked.get(name, [])], found, digest)
        for name, digest in digests.items()
    }
    report = put_together(
        answers,
        [model for model in answers if model in OWN or step_of(model) is not None],
        {name: items for name, items in known.items() if items is not None},
        settings.max_drop,
        {str(ability): least for ability, least in settings.at_least.items()},
        judged(results.Evaluate.of(job.manifest("evaluate"))),
        settings.confidence,
        shots,
    )
    text = markdown(report, "the run")
    print(printable_lines(text), end="", flush=True)
    folder = job.scratch.fresh("result")
    (folder / "report.md").write_text(text)
    (folder / "report.json").write_text(dumped(report))
    job.commit(folder, figures_of(report, len(answers)), dict.fromkeys(("report.md", "report.json"), Kind.REPORT))
