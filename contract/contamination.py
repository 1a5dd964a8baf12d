"""What decontamination found, by benchmark: items that leaked into the corpus apart from text that merely shares some words with them."""

from pydantic import BaseModel, ConfigDict

from contract.manifest import find
from contract.plan import Run
from contract.printable import printable

KIND = "contamination"  # of the file that holds a report
STAGES = {"decontaminate": "the crawl", "mix": "the curated sources"}
COMMON = 3  # n-grams that a table shows


class Benchmark(BaseModel):
    """One evaluation set. An item leaks where one document holds 80 % of it, or of a text that makes up its better part."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    items: int
    sought: int
    """Items long enough to be looked for."""
    leaked: int
    overlapping: int
    """Items that did not leak, but share an n-gram with a document."""
    documents_leaking: int
    documents_overlapping: int
    ngrams: int
    ngrams_found: int
    common: tuple[tuple[str, int], ...]
    """The n-grams that stand in most documents, each with their number."""


class Report(BaseModel):
    """What one stage found. A document that shares text with two benchmarks counts for both."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    benchmarks: tuple[Benchmark, ...]


def reports(run: Run) -> dict[str, Report]:
    """The reports that a run has, by what was searched."""
    found: dict[str, Report] = {}
    for stage, what in STAGES.items():
        manifest = find(run.store, run.task(stage))
        for file in manifest.of(KIND) if manifest else ():
            found[what] = Report.model_validate_json(run.store.read_bytes(file.path))
    return found


def tables(run: Run) -> list[str]:
    """The lines of every report that a run has, each after an empty one."""
    return [line for what, report in reports(run).items() for line in ("", *render(what, report))]


def render(what: str, report: Report) -> list[str]:
    """A report as a table for the terminal."""
    head = f"{'items':>9}{'sought':>9}{'leaked':>9}{'overlap':>9}{'documents leaking':>20}{'overlapping':>13}{'n-grams found':>18}"
    lines = [f"{'benchmarks in ' + what:<36}{head}"]
    for one in report.benchmarks:
        ngrams = f"{one.ngrams_found:,} of {one.ngrams:,}"
        lines.append(
            f"{one.name:<36}{one.items:>9,}{one.sought:>9,}{one.leaked:>9,}{one.overlapping:>9,}"
            f"{one.documents_leaking:>20,}{one.documents_overlapping:>13,}{ngrams:>18}"
        )
        lines += [f"    in {count:,} documents: {ngram}" for ngram, count in one.common[:COMMON] if count > 1]
    return list(map(printable, lines))
