"""Explain why a page is not in the corpus, or what was cut from it: `python -m reports.why --recipe URI URL_OR_ID`.

It searches the files that the stages committed and does not need Spark. Where the stages have committed indexes
(`reports.indexes`), it reads only the row groups with the page's rows; else it reads the tables' columns as a whole.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.cuts import Ranges
from contract.documents import parts_of, read_part
from contract.errors import GristmillError
from contract.kinds import Kind
from contract.manifest import File, Manifest, find
from contract.plan import Run, open_run
from contract.printable import printable
from contract.schema import DROPS, Drop
from contract.settings.filter import Rule
from contract.stages import STAGES
from contract.store import Store
from contract.tables import reading
from pipelines.text.surt import surt
from pipelines.urls.canonical import canonical
from reports import indexes
from reports.indexes import Place
from reports.spans import similarity

INDENT = " " * 34
SHOWN = 10  # most cuts of a document that are printed
CHARS = 60  # characters of each
MOST = 1000  # captures of one URL that are told


def explain(run: Run, asked: str) -> Iterator[str]:
    """Yield a line for each event of the captures of a URL, or of the document with an id, in pipeline order.

    asked: a URL, or an id of 32 hexadecimal digits.
    """
    is_id = re.fullmatch("[0-9a-f]{32}", asked) is not None
    column, named = ("id", [asked]) if is_id else ("url", spellings(asked))
    places = located(run, is_id, named)
    ids: dict[str, str] = {}  # id -> the last stage that kept it
    gone: set[str] = set()
    cut: dict[str, Ranges] = {}  # id -> all that the stages so far cut from it
    for done in committed(run):
        for key in kept(run.store, done, column, named, places):
            ids[key] = done.stage
        for row in dropped(run.store, done, column, named, places):
            gone.add(row["id"])
            yield f"{row['id']}  {done.stage}: dropped, {row['reason']} {row['value'] or ''}".rstrip()
            yield from cluster_members(run, done, row)
            if done.stage == "filter":
                yield from broken(run.recipe.filter.rules(), row)
        for row in rows(run.store, done.of(Kind.MATCHES), column, named):
            if row["action"] != "dropped":
                yield f"{row['id']}  {done.stage}: {row['action']}, {row['benchmark']}: {row['ngram']}"
        for row in rows(run.store, done.of(Kind.HELDOUT), column, named, ["id"]):
            ids[row["id"]] = done.stage
            yield f"{row['id']}  {done.stage}: held out of training"
        for key in sorted(ids):
            found = cuts_of(run.store, done, key)
            new = [one for one in found if one not in cut.get(key, [])]
            cut[key] = found or cut.get(key, [])
            yield from passages(run, done.stage, key, new)
    for key in sorted(ids.keys() - gone):
        yield f"{key}  kept; {ids[key]} was the last to keep it"


def broken(rules: Sequence[Rule], row: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each rule that can have dropped a row: its score, its threshold and the setting to change.

    Several n of a table of thresholds share a reason, and a drop says only the value that broke one of them.
    """
    for rule in rules:
        if rule.reason == row["reason"] and rule.drops(float(row["value"])):
            yield f"{INDENT}{rule.score} {rule.comparison} {rule.limit:g}: filter.{rule.setting}, {rule.source}"


def located(run: Run, is_id: bool, named: Sequence[str]) -> list[Place] | None:
    """Where the documents with an id, or with a URL in one of some spellings, stand; None without indexes."""
    tasks = indexes.usable(run)
    if not tasks:
        return None
    if is_id:
        return [place for places in indexes.find(run.store, tasks, named).values() for place in places]
    return indexes.at_address(run.store, tasks, map(surt, named), MOST)


def dropped(
    store: Store, done: Manifest, column: str, values: Sequence[str], places: Sequence[Place] | None
) -> Iterator[dict[str, Any]]:
    """The rows of what a stage dropped in which `column` has one of `values`. places: where alone they can stand."""
    if places is None:
        yield from rows(store, done.of(Kind.DROPS), column, values)
        return
    mine = [place for place in places if place.task.prefix == done.prefix and place.reason is not None]
    yield from (row for row in indexes.rows_at(store, mine, DROPS.names) if row[column] in values)


def kept(
    store: Store, done: Manifest, column: str, values: Sequence[str], places: Sequence[Place] | None = None
) -> Iterator[str]:
    """The ids of the documents that a stage kept and in which `column` has one of `values`.

    places: where alone they can stand, in the files of the stages that first have scores.
    """
    wanted = pa.array(values, pa.string())
    for part in parts_of(done):
        only = None
        if places is not None:
            only = np.array([place.row for place in places if place.file.path == part.documents.path], np.int64)
            if not len(only):
                continue
        for batch in read_part(store, part, list(dict.fromkeys(["id", column])), 1 << 16, only):
            yield from batch["id"].filter(pc.is_in(batch[column], value_set=wanted)).to_pylist()
    whole = [file for file in done.of(Kind.DOCUMENTS) if file.part is None]
    yield from (row["id"] for row in rows(store, whole, column, values, ["id"]))


def cuts_of(store: Store, done: Manifest, key: str) -> Ranges:
    """All that is cut from a document since its text was written, if this stage wrote a file of cuts that has it."""
    own = [file for file in done.of(Kind.CUTS) if file.path.startswith(f"{done.prefix}/")]
    return [(row["start"], row["end"]) for row in rows(store, own, "id", [key])]


def spellings(url: str) -> list[str]:
    """The forms in which a crawl may have a URL: as given, and canonical with either scheme."""
    form = canonical(url if "://" in url else f"https://{url}")
    return sorted({url, form, form.replace("https://", "http://", 1)})


def passages(run: Run, stage: str, key: str, cuts: Ranges) -> Iterator[str]:
    """Yield lines on what a stage cut from a document: byte ranges of its text as written, with first words."""
    if cuts:
        yield f"{key}  {stage}: {sum(end - start for start, end in cuts)} bytes cut"
        data = (text_of(run, key) or "").encode()
        for start, end in cuts[:SHOWN]:
            text = " ".join(data[start:end].decode().split())
            yield f"{INDENT}{start}-{end}: {text[:CHARS]}{'...' if len(text) > CHARS else ''}"
        if len(cuts) > SHOWN:
            yield f"{INDENT}and {len(cuts) - SHOWN} more passages"


def text_of(run: Run, key: str) -> str | None:
    """A document's text as `score` or `curate` wrote it, or None."""
    if tasks := indexes.usable(run):
        found = [place for place in indexes.find(run.store, tasks, [key]).get(key, []) if place.reason is None]
        return str(indexes.rows_at(run.store, found[:1], ["text"])[0]["text"]) if found else None
    written = (done for done in committed(run) if done.stage in ("filter", "curate"))
    files = (part.documents for done in written for part in parts_of(done))
    return next((row["text"] for row in rows(run.store, files, "id", [key], ["text"])), None)


def url_of(run: Run, key: str) -> str | None:
    """A document's URL, or None if no stage has kept such a document, or it has no URL."""
    if tasks := indexes.usable(run):
        found = [place for place in indexes.find(run.store, tasks, [key]).get(key, []) if place.reason is None]
        if found:
            return str(indexes.rows_at(run.store, found[:1], ["url"])[0]["url"] or "")
    files = (file for each in committed(run) for file in each.of(Kind.DOCUMENTS))
    return next((found["url"] for found in rows(run.store, files, "id", [key], ["url"])), None)


def cluster_members(run: Run, done: Manifest, row: dict[str, Any]) -> Iterator[str]:
    """Yield lines on the document that is kept instead of a dropped duplicate, and on the size of their cluster."""
    if not row["duplicate_of"]:
        return
    url = url_of(run, row["duplicate_of"])
    yield f"{INDENT}it stays: {row['duplicate_of']} {url or ''}".rstrip()
    if STAGES[done.stage].counts == "examples":
        return
    cluster = 1 + sum(1 for _ in rows(run.store, done.of(Kind.DROPS), "value", [row["value"]], ["id"]))
    one, other = (text_of(run, key) for key in (row["id"], row["duplicate_of"]))
    if row["reason"] == Drop.NEAR_DUPLICATE and one is not None and other is not None:
        ngram = run.recipe.minhash_sign.ngram
        yield f"{INDENT}similarity of the two: {similarity(one, other, ngram):.2f} (shared {ngram}-word shingles)"
    yield f"{INDENT}documents in the cluster: {cluster}"


def committed(run: Run) -> Iterator[Manifest]:
    """Manifests that the Spark stages, those before the mixture, have committed."""
    for task in run.tasks().values():
        if STAGES[task.stage].plane == "spark" and (done := find(run.store, task)):
            yield done


def rows(
    store: Store, files: Iterable[File], column: str, values: Sequence[str], columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of committed files in which `column` has one of `values`. Files without it are skipped."""
    for file in files:
        with file.open(store) as source:
            with reading(store, file):
                if column not in pq.read_schema(source).names:
                    continue
                source.seek(0)
                wanted = pc.field(column).isin(values)
                found = pq.read_table(source, columns=columns, filters=wanted, page_checksum_verification=True)
            yield from found.to_pylist()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.why", description=__doc__)
    parser.add_argument("--recipe", required=True, help="URI of a resolved run's recipe.yaml")
    parser.add_argument("page", metavar="URL_OR_ID")
    given = parser.parse_args(arguments)
    try:
        lines = list(explain(open_run(given.recipe), given.page))
    except GristmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(
        *map(printable, lines or [f"no stage of this run has seen a document with the URL or the id {given.page}"]),
        sep="\n",
    )
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main())
