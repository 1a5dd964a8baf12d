"""One document of a run: its text with what was cut and masked, its scores and limits, its way, its duplicates.

The document is found by the indexes of the stages (`reports.indexes`), and of every file only the row group with its
row is read. All texts come from web pages, so whoever shows them must escape them.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.cuts import Ranges
from contract.kinds import Kind
from contract.manifest import File, find
from contract.plan import Run
from contract.schema import DOCUMENTS, Drop
from contract.scores import SCORES
from contract.settings.corpus import CRAWL
from contract.settings.filter import Rule
from contract.store import Store
from contract.tables import open_table, reading
from pipelines.rules.decide import asked_in
from reports import indexes
from reports.edits import Edit, TooDifferentError, edits_of
from reports.indexes import Indexed, Place
from reports.search import Hit, hits
from reports.spans import Span, shingled, shortened, similarity, spans_of

TEXT_CHARS = 20_000  # of a text that a page shows
ALIKE_CHARS = 400_000  # of two texts whose similarity is computed, which takes a second for a million
SCANNED_ROWS = 200_000  # of a table without an index that may be looked through for one document
COPIES, COPIES_S = 10, 0.1
UNTOLD = (
    "What score removed and masked is not marked: the text before it is too long, or differs from this one in too many "
    "places, to be compared for a page."
)
TOLD = ("id", "url", "value", "duplicate_of", "snippet")
CUTTING = ("dedup_substring", "decontaminate")
CRAWLED = (
    *("crawl", "extract", "langid", "score", "filter"),
    *("dedup_url", "dedup_fuzzy", "dedup_substring", "decontaminate"),
)
CURATED = ("curate", "dedup_fuzzy", "dedup_substring", "decontaminate")


@dataclass(frozen=True)
class Limit:
    """A rule on a score, and whether the document crosses it. asked: whether it is asked in the document's language."""

    rule: Rule
    crosses: bool
    asked: bool


@dataclass(frozen=True)
class Scored:
    """A score of a document, None if it was not measured, with the rules of the recipe that judge it."""

    name: str
    value: float | None
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class Step:
    """What a stage did with a document. what: kept, dropped, cut, held out, shares text, or waits."""

    stage: str
    what: str
    detail: str = ""


@dataclass(frozen=True)
class Twin:
    """The document that stayed instead of a duplicate, with both texts; kind `shared` marks the shingles of both.

    similarity: None for texts that are too long to compute it for a page.
    """

    id: str
    url: str
    own: tuple[Span, ...]
    other: tuple[Span, ...]
    similarity: float | None
    ngram: int


@dataclass(frozen=True)
class Document:
    """All that a page says of a document. written: the stage whose text it is; empty if only a snippet is left.

    facts: columns of the document that are set, such as title, snapshot and file. chars: of the whole text.
    """

    id: str
    url: str
    language: str
    stage: str
    reason: str | None
    value: str
    written: str
    text: tuple[Span, ...]
    chars: int
    facts: dict[str, Any]
    scores: tuple[Scored, ...]
    way: tuple[Step, ...]
    twin: Twin | None
    copies: tuple[Hit, ...]
    notes: tuple[str, ...]


def document(run: Run, key: str) -> Document | None:
    """The document with an id, or None if no index of the run's stages has it. key: 32 hexadecimal digits."""
    tasks, notes = indexes.indexed(run)
    notes += indexes.lacking(tasks)
    places = indexes.find(run.store, tasks, [key]).get(key, [])
    if not places:
        return None
    dropped = next((place for place in places if place.reason is not None), None)
    kept = next((place for place in places if place.reason is None), None)
    row = indexes.rows_at(run.store, [kept], [*DOCUMENTS.names, *SCORES])[0] if kept else {}
    drop = indexes.rows_at(run.store, [dropped], TOLD)[0] if dropped else {}
    text, written, more = _text(run, key, dropped, kept, row, drop)
    cuts = cuts_by_stage(run.store, tasks, kept, key) if kept else {}
    last = dropped or kept
    assert last is not None
    edits, lost = _edits(_original(run, kept, row), text)
    spans = spans_of(text, cuts, edits) if kept else [Span(text)]
    return Document(
        id=key,
        url=drop.get("url") or row.get("url") or "",
        language=last.language or "",
        stage=last.task.stage,
        reason=last.reason,
        value=drop.get("value") or "",
        written=written,
        text=tuple(shortened(spans, TEXT_CHARS)),
        chars=len(text),
        facts={name: row[name] for name in DOCUMENTS.names if row.get(name) is not None and name not in HIDDEN},
        scores=tuple(scores_of(run, row)) if kept else (),
        way=tuple(way(run, tasks, key, places, cuts)),
        twin=_twin(run, tasks, drop, text) if drop.get("duplicate_of") and written else None,
        copies=tuple(_copies(run.store, tasks, key)) if not dropped else (),
        notes=(*notes, *more, *lost),
    )


HIDDEN = ("id", "url", "text", "language", "languages", "language_probabilities")  # shown elsewhere, or long


def _text(
    run: Run, key: str, dropped: Place | None, kept: Place | None, row: dict[str, Any], drop: dict[str, Any]
) -> tuple[str, str, list[str]]:
    """The text of the last stage that has it, that stage, and what is to be said; the snippet if no stage has it."""
    if kept:
        return row["text"], kept.task.stage, []
    if dropped and dropped.task.stage in ("langid", "score"):
        files = _documents(run, dropped.task.partition)
        if sum(file.rows for file in files) <= SCANNED_ROWS:
            for found in matching(run.store, files, pc.field("id") == key, ["text"]):
                return found["text"], "extract", []
        return (
            drop["snippet"] or "",
            "",
            ["This segment has too many documents to look for the whole text. This is its beginning."],
        )
    return drop["snippet"] or "", "", ["No stage has kept the text of this document. This is its beginning."]


def _documents(run: Run, partition: str) -> list[File]:
    """The files of texts that `extract` wrote of a segment."""
    tasks = [task for task in indexes.indexed(run, ["extract"])[0] if task.partition == partition]
    return [file for task in tasks for file in task.files.values() if file.kind == Kind.DOCUMENTS]


def matching(store: Store, files: Sequence[File], wanted: Any, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of files for which an expression is true. Row groups are left out by their statistics."""
    for file in files:
        with indexes.opened(store, file) as source, reading(store, file):
            found = pq.read_table(source, columns=list(columns), filters=wanted, page_checksum_verification=True)
        yield from found.to_pylist()


def _original(run: Run, kept: Place | None, row: dict[str, Any]) -> str | None:
    """A crawled document's text before `score`, or None. It is found by its place in the crawl, which sorts texts."""
    if not kept or kept.task.stage != "score" or row.get("file") is None:
        return None
    place = (pc.field("file") == row["file"]) & (pc.field("offset") == row["offset"])
    files = _documents(run, kept.task.partition)
    found = (one["text"] for one in matching(run.store, files, place, ["id", "text"]) if one["id"] == row["id"])
    return next(found, None)


def _edits(original: str | None, text: str) -> tuple[list[Edit], list[str]]:
    """What `score` changed in a text, and what is to be said if that cannot be told."""
    try:
        return edits_of(original, text) if original is not None else [], []
    except TooDifferentError:
        return [], [UNTOLD]


def cuts_by_stage(store: Store, tasks: Sequence[Indexed], kept: Place, key: str) -> dict[str, Ranges]:
    """Stage -> the byte ranges that it cut out of a document's text as written, of the stages that cut any."""
    found: dict[str, Ranges] = {}
    for task in tasks:
        if task.stage in CUTTING and kept.file.path in task.cuts:
            rows = matching(store, [task.cuts[kept.file.path]], pc.field("row") == kept.row, ["id", "start", "end"])
            before = {one for ranges in found.values() for one in ranges}
            new = [(one["start"], one["end"]) for one in rows if one["id"] == key]
            found[task.stage] = [one for one in new if one not in before]
    return {stage: ranges for stage, ranges in found.items() if ranges}


def scores_of(run: Run, row: dict[str, Any]) -> Iterator[Scored]:
    """Every score of a document that is measured or judged, with the rules of the recipe on it."""
    source = row.get("source") or CRAWL
    judging = run.recipe.filter if source == CRAWL else run.recipe.curate.sources[source].rules
    rules = judging.rules() if judging else []
    for name in SCORES:
        value = row.get(name)
        own = [rule for rule in rules if rule.score == name]
        if value is not None or own:
            asked = asked_in(row.get("language") or "en", name)
            yield Scored(name, value, tuple(Limit(rule, asked and rule.drops(value), asked) for rule in own))


def way(
    run: Run, tasks: Sequence[Indexed], key: str, places: Sequence[Place], cuts: dict[str, Ranges]
) -> Iterator[Step]:
    """What each stage did with a document, in order, until one dropped it. places: all of the document."""
    last = next((place for place in places if place.reason is not None), places[0])
    partition = last.task.partition
    done = {task.stage for task in tasks if task.partition == partition or task.partition == "all"}
    stages = CURATED if any(place.task.stage == "curate" for place in places) else CRAWLED
    for stage in stages:
        if stage == last.task.stage and last.reason is not None:
            yield Step(stage, "dropped", last.reason)
            return
        if stage not in done and stage not in upstream_of(last.task.stage, stages):
            yield Step(stage, "waits")
            return
        yield Step(stage, "kept")
        if stage in cuts:
            yield Step(stage, "cut", f"{sum(end - start for start, end in cuts[stage]):,} bytes")
        if stage == "decontaminate":
            yield from _shares(run.store, tasks, stage, key)
    yield from _held_out(run, key)


def upstream_of(stage: str, stages: Sequence[str]) -> Sequence[str]:
    return stages[: stages.index(stage)] if stage in stages else ()


def _shares(store: Store, tasks: Sequence[Indexed], stage: str, key: str) -> Iterator[Step]:
    files = [file for task in tasks if task.stage == stage for file in task.matches]
    if sum(file.rows for file in files) <= SCANNED_ROWS:
        for row in matching(store, files, pc.field("id") == key, ["action", "benchmark", "ngram"]):
            yield Step(stage, "shares text", f"{row['action']}, {row['benchmark']}: {row['ngram']}")


def _held_out(run: Run, key: str) -> Iterator[Step]:
    done = find(run.store, run.task("mix"))
    if done is None:
        yield Step("mix", "waits")
        return
    files = done.of(Kind.HELDOUT)
    known = sum(file.rows for file in files) <= SCANNED_ROWS
    held = known and any(True for _ in matching(run.store, files, pc.field("id") == key, ["id"]))
    yield Step("mix", "held out" if held else "kept", "" if known else "for training, or held out")


def _twin(run: Run, tasks: Sequence[Indexed], drop: dict[str, Any], text: str) -> Twin | None:
    """The document that stays instead of a dropped duplicate, beside it."""
    key = drop["duplicate_of"]
    place = next((one for one in indexes.find(run.store, tasks, [key]).get(key, []) if one.reason is None), None)
    if place is None:
        return None
    row = indexes.rows_at(run.store, [place], ["url", "text"])[0]
    ngram = run.recipe.minhash_sign.ngram
    own, other = shingled(text[:TEXT_CHARS], row["text"][:TEXT_CHARS], ngram)
    short = len(text) + len(row["text"]) <= ALIKE_CHARS
    alike = similarity(text, row["text"], ngram) if short else None
    return Twin(key, row["url"] or "", tuple(own), tuple(other), alike, ngram)


def _copies(store: Store, tasks: Sequence[Indexed], key: str) -> list[Hit]:
    """Dropped duplicates of a kept document, those that COPIES_S seconds find: their table is not sorted by it."""
    begun, found = time.monotonic(), list[Place]()
    for task in tasks:
        if not {Drop.DUPLICATE_URL, Drop.NEAR_DUPLICATE} & task.rows.reasons.keys():
            continue
        for file in (one for one in task.files.values() if one.kind == Kind.DROPS):
            row = 0
            with open_table(store, file) as table, reading(store, file):
                for batch in table.iter_batches(1 << 14, columns=["duplicate_of", "reason", "language"]):
                    same = pc.indices_nonzero(pc.fill_null(pc.equal(batch["duplicate_of"], key), False))
                    for at in same.to_pylist():
                        said = batch.slice(at, 1).to_pylist()[0]
                        found.append(Place(task, file, row + at, said["reason"], said["language"]))
                    row += batch.num_rows
                    if len(found) >= COPIES or time.monotonic() - begun > COPIES_S:
                        return hits(store, found[:COPIES])
    return hits(store, found)
