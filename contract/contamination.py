"""Reports of decontamination by benchmark: which items leaked into the corpus, and which only share n-grams with it."""

from pydantic import BaseModel, ConfigDict

from contract.kinds import Kind
from contract.manifest import find
from contract.plan import Run
from contract.printable import printable

STAGES = {"decontaminate": "the corpus"}
COMMON = 3  # so many of the most common n-grams are shown per benchmark


class Benchmark(BaseModel):
    """One evaluation set. An item leaks if a document holds 80 % of it, or of one text that is half of it or more."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    items: int
    sought: int
    """Items that are long enough to be searched for."""
    leaked: int
    overlapping: int
    """Items that did not leak but share an n-gram with a document."""
    documents_leaking: int
    documents_overlapping: int
    ngrams: int
    ngrams_found: int
    common: tuple[tuple[str, int], ...]
    """The n-grams found in the most documents, each with the number of documents."""


class Report(BaseModel):
    """The report of one stage. A document that shares text with two benchmarks counts for both."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    benchmarks: tuple[Benchmark, ...]


def reports(run: Run) -> dict[str, Report]:
    """The reports of a run: the text that was searched, a value of STAGES -> report."""
    found: dict[str, Report] = {}
    for stage, what in STAGES.items():
        manifest = find(run.store, run.task(stage))
        for file in manifest.of(Kind.CONTAMINATION) if manifest else ():
            with file.open(run.store) as source:
                found[what] = Report.model_validate_json(source.read())
    return found


def tables(run: Run) -> list[str]:
    """The lines of all reports of a run, with an empty line before each report."""
    return [line for what, report in reports(run).items() for line in ("", *render(what, report))]


def render(what: str, report: Report) -> list[str]:
    """A report as a table for the terminal."""
    head = (
        f"{'items':>9}{'sought':>9}{'leaked':>9}{'overlap':>9}"
        f"{'documents leaking':>20}{'overlapping':>13}{'n-grams found':>18}"
    )
    lines = [f"{'benchmarks in ' + what:<36}{head}"]
    for one in report.benchmarks:
        ngrams = f"{one.ngrams_found:,} of {one.ngrams:,}"
        lines.append(
            f"{one.name:<36}{one.items:>9,}{one.sought:>9,}{one.leaked:>9,}{one.overlapping:>9,}"
            f"{one.documents_leaking:>20,}{one.documents_overlapping:>13,}{ngrams:>18}"
        )
        lines += [f"    in {count:,} documents: {ngram}" for ngram, count in one.common[:COMMON] if count > 1]
    return list(map(printable, lines))
