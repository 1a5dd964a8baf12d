"""What the models of a run can do, as the stage `abilities` found it:
`python -m reports.benchmarks --recipe RUN [--output FILE]`.

With `--output FILE.md` the scores are drawn in a picture (SVG) in the same folder.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from contract.benchmarks import Measured
from contract.errors import DamagedError, NotReadyError, exit_code_of
from contract.kinds import Kind
from contract.manifest import File, Manifest, find, need
from contract.plan import Run, open_run
from contract.results import Benchmark
from evals.ability_report import Report, markdown, parsed
from reports import charts
from reports.report import deliver

MOST_BYTES = 16 << 20  # of a report; one of 100 models and 25 benchmarks has 2 MB


@dataclass(frozen=True)
class Part:
    """One model and one benchmark of a run. made: what was committed; None before. problem: why it has no figures."""

    model: str
    benchmark: str
    manifest: Manifest | None
    made: Benchmark | None
    problem: str

    @property
    def records(self) -> list[File]:
        return self.manifest.of(Kind.RECORDS) if self.manifest else []


def parts(run: Run) -> list[Part]:
    """Every model and benchmark that the recipe asks for, model by model; manifests that are damaged are a problem."""
    found: list[Part] = []
    for (stage, partition), task in run.tasks().items():
        if stage != "benchmark":
            continue
        of = Measured.of(partition)
        try:
            manifest = find(run.store, task)
            made = Benchmark.of(manifest) if manifest else None
            problem = made.left_out if made else "not done yet"
            found.append(Part(of.model, of.benchmark, manifest, made, problem))
        except DamagedError as error:
            found.append(Part(of.model, of.benchmark, None, None, str(error)))
    return found


def waiting(asked: Sequence[Part]) -> str:
    """A sentence that says how many answers are there while the report waits for the rest; empty if all are there."""
    there = sum(one.made is not None for one in asked)
    return f"{there} of {len(asked)} answers are there; the report comes when all are." if there < len(asked) else ""


def files(run: Run) -> list[File]:
    """The files of the report. Raises NotReadyError if `abilities` is not done, or had nothing to report."""
    made = need(run.store, run.task("abilities"))
    found = made.of(Kind.REPORT)
    if not found:
        raise NotReadyError(f"{run.uri}: no model has answered a benchmark; name some in benchmark.tasks of the recipe")
    return found


def report(run: Run) -> Report:
    """The report. Raises NotReadyError if there is none, and DamagedError if it cannot be read."""
    (file,) = [one for one in files(run) if one.path.endswith(".json")]
    if file.bytes > MOST_BYTES:
        raise DamagedError(f"{run.store.full(file.path)}: has {file.bytes:,} bytes, no report has so many")
    with file.open(run.store) as source:
        content: bytes = source.read()
    return parsed(content, run.store.full(file.path))


def page(run: Run, figures: str = "") -> tuple[str, dict[str, str]]:
    """The report as Markdown, and its pictures by file name. figures: how their names begin; none are drawn without."""
    found = report(run)
    name = f"{figures}-abilities.svg"
    drawn = {name: picture(found)} if figures else {}
    return markdown(found, run.recipe.name, [("scores with their intervals", name)] if drawn else []), drawn


def picture(found: Report) -> str:
    """Every ability's scores with their intervals, model by model, as SVG."""
    rows = [
        (row.ability, [(model, one.mean, one.low, one.high) for model, one in row.scores.items() if one])
        for row in found.rows
        if row.benchmark is None
    ]
    return charts.intervals(rows, f"Scores with {found.confidence:.0%} intervals")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.benchmarks", description=__doc__)
    parser.add_argument("--recipe", required=True, help="URI of a resolved run's recipe.yaml")
    parser.add_argument("--output", help="Markdown file for the report. Default: standard output")
    given = parser.parse_args(arguments)
    return exit_code_of(lambda: deliver(given.output, lambda stem: page(open_run(given.recipe), stem)))


if __name__ == "__main__":
    sys.exit(main())
