"""Why a page is not in the corpus, or what was cut from it: `python -m pipelines.why --recipe URI URL_OR_ID`.

It reads what the stages committed, and needs no Spark. Without an id it looks through the drops of the whole run.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.errors import GristmillError
from contract.manifest import Manifest, find
from contract.plan import Run, open_run
from contract.stages import STAGES
from contract.store import Store


def explain(run: Run, asked: str) -> Iterator[str]:
    """One line for each thing that happened to the captures of an address, or to the document of an id, in pipeline order."""
    column = "id" if re.fullmatch("[0-9a-f]{32}", asked) else "url"
    ids: dict[str, str] = {}  # id -> the last stage that wrote it
    gone: set[str] = set()
    for done in committed(run):
        for row in rows(run.store, done, "documents", column, asked, ["id"]):
            ids[row["id"]] = done.stage
        for row in rows(run.store, done, "drops", column, asked):
            gone.add(row["id"])
            yield f"{row['id']}  {done.stage}: dropped, {row['reason']} {row['value'] or ''}".rstrip()
            yield from twins(run, done, row)
        for row in rows(run.store, done, "matches", column, asked):
            if row["action"] != "dropped":
                yield f"{row['id']}  {done.stage}: {row['action']}, {row['benchmark']}: {row['ngram']}"
        for row in rows(run.store, done, "heldout", column, asked, ["id"]):
            ids[row["id"]] = done.stage
            yield f"{row['id']}  {done.stage}: held out of training"
        for key in sorted(ids):
            cuts = list(rows(run.store, done, "cuts", "id", key))
            if cuts:
                size = sum(cut["end"] - cut["start"] for cut in cuts)
                yield f"{key}  {done.stage}: {size} bytes cut, at " + ", ".join(
                    f"{cut['start']}-{cut['end']}" for cut in cuts
                )
    for key in sorted(ids.keys() - gone):
        yield f"{key}  kept; {ids[key]} was the last to write it"


def twins(run: Run, done: Manifest, row: dict[str, Any]) -> Iterator[str]:
    """The document that stays for a dropped duplicate, and the size of its cluster."""
    if not row["duplicate_of"]:
        return
    url = next(
        (
            found["url"]
            for one in committed(run)
            for found in rows(run.store, one, "documents", "id", row["duplicate_of"])
        ),
        None,
    )
    yield f"{' ' * 32}  it stays: {row['duplicate_of']} {url or ''}".rstrip()
    cluster = 1 + sum(1 for _ in rows(run.store, done, "drops", "value", row["value"], ["id"]))
    yield f"{' ' * 32}  documents in the cluster: {cluster}"


def committed(run: Run) -> Iterator[Manifest]:
    """What the stages before the mixture have committed."""
    for task in run.tasks().values():
        if STAGES[task.stage].plane == "spark" and (done := find(run.store, task)):
            yield done


def rows(
    store: Store, done: Manifest, kind: str, column: str, value: str, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of one kind of a manifest's files where a column has a value."""
    for file in done.of(kind):
        with store.open_input(file.path) as source:
            if column in pq.read_schema(source).names:
                source.seek(0)
                yield from pq.read_table(source, columns=columns, filters=pc.field(column) == value).to_pylist()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.why", description=__doc__)
    parser.add_argument("--recipe", required=True, help="URI of a resolved run's recipe.yaml")
    parser.add_argument("page", metavar="URL_OR_ID")
    given = parser.parse_args(arguments)
    try:
        lines = list(explain(open_run(given.recipe), given.page))
    except GristmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(lines) or f"no stage of this run has seen {given.page}")
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main())
