"""Reports of decontamination by benchmark: which items leaked into the corpus, and which only share n-grams with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from contract.kinds import Kind
from contract.manifest import Manifest, find
from contract.plan import Run
from contract.printable import printable
from contract.store import Store
from contract.tables import read_batches

STAGES = {"decontaminate": "the corpus"}
COMMON = 3  # so many of the most common n-grams are shown per benchmark
ROWS = 65536  # of findings in memory at a time
Found = Literal["leaked", "overlapping", "clean", "too short"]
"""What the search for an item found: a document that holds most of it, documents that only share words with it, or
nothing. An item of few words is not searched for."""


@dataclass(frozen=True)
class Searched:
    """What was found of one item. stays: whether a document into which it leaked is still in the corpus."""

    found: Found
    stays: bool


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


KEY = "decontaminate.benchmarks."


def searched(store: Store, manifest: Manifest) -> dict[str, dict[str, Searched]]:
    """What `decontaminate` found of every item: digest of a benchmark's files -> where the item stands -> Searched.

    The digest is that of the outside file in identities, so another stage knows what it reads by content, not by name.
    """
    digests = {key.removeprefix(KEY): one for key, one in manifest.identity.outside.items() if key.startswith(KEY)}
    stay = {
        (row["benchmark"], item)
        for row in _rows(store, manifest, Kind.MATCHES, ["benchmark", "action", "leaked"])
        if row["action"] == "kept"
        for item in row["leaked"]
    }
    found: dict[str, dict[str, Searched]] = {}
    for row in _rows(store, manifest, Kind.ITEMS, ["benchmark", "item", "where", "sought", "leaking", "ngrams_found"]):
        if digest := digests.get(row["benchmark"]):
            one = Searched(_found(row), (row["benchmark"], row["item"]) in stay)
            found.setdefault(digest, {})[row["where"]] = one
    return found


def _rows(store: Store, manifest: Manifest, kind: Kind, columns: list[str]) -> Iterator[dict[str, Any]]:
    for file in manifest.of(kind):
        for batch in read_batches(store, file, ROWS, columns):
            yield from batch.to_pylist()


def _found(row: dict[str, Any]) -> Found:
    if not row["sought"]:
        return "too short"
    if row["leaking"]:
        return "leaked"
    return "overlapping" if row["ngrams_found"] else "clean"
