"""filter: judges each document by its scores (line corrections, length, repetition, quality).

A dropped document counts under the first rule that it breaks.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import groupby

import pyarrow as pa

from contract.documents import Part, read_part, stored_columns
from contract.errors import RecipeError
from contract.kinds import Kind
from contract.manifest import File
from contract.recipe import StageSettings
from contract.schema import STEPS
from contract.settings.filter import Filter
from contract.store import Store
from pipelines.rules.steps import counted, judge
from pipelines.spark.documents import PART_ROWS, IndexSink, Output
from pipelines.spark.job import Job
from pipelines.spark.places import ids_of
from pipelines.spark.tables import TableWriter, group_rows
from pipelines.text.stopwords import STOP_WORDS

STEP_ROWS = 1 << 18  # documents that one task judges and one table of steps counts, at about 150 bytes of memory each
READ_ROWS = 1 << 14


def check(settings: StageSettings) -> None:
    """Raise RecipeError if a language of the recipe has no stop words."""
    check_stop_words("langid.languages", settings.of("langid.languages"), "filter", settings.own)


def check_stop_words(key: str, codes: Iterable[str], section: str, rules: Filter) -> None:
    """Raise RecipeError if a language has no stop words, and the rule asks for some: it would pass or drop all of it.

    key: the setting that names the languages. section: the one that holds the rules.
    """
    asked = any(rule.score == "stop_words" for rule in rules.rules())
    missing = [code for code in codes if code not in STOP_WORDS]
    if asked and missing:
        raise RecipeError(
            f"{key}: there are no stop words for {', '.join(missing)}; "
            f"set {section}.gopher_quality.min_stop_words=0, "
            f"or add them to pipelines/text/stopwords.py (there are {', '.join(sorted(STOP_WORDS))})"
        )


def _work(store: Store, prefix: str, settings: Filter, parts: list[Part], name: str) -> Output:
    """Judge the documents of some parts, and write what every step of every threshold would move of them."""
    sink = IndexSink(store, prefix, "filter", name)
    rules = settings.rules()
    scores = stored_columns(store, parts[0], ["kept_words"])
    scores = sorted({*scores, *(rule.score for rule in rules)})  # a score that no rule judges may be missing
    judged = []
    for part in parts:
        for batch in read_part(store, part, ["id", "language", "bytes", *scores], READ_ROWS):
            found = judge(batch.set_column(batch.schema.get_field_index("id"), "id", ids_of(batch["id"])), rules)
            judged.append(found)
            rows, sizes = (batch[column].to_numpy() for column in ("row", "bytes"))
            sink.keep_all(rows[~found.dropped].tolist(), int(sizes[~found.dropped].sum()))
            drops = (each[found.dropped].tolist() for each in (rows, found.first, found.value, sizes))
            for row, first, value, size in zip(*drops, strict=True):
                sink.drop({"row": row}, rules[first].reason, value, size)
        sink.finish(part)
    output = sink.close()
    return replace(output, files=[*output.files, *_write_steps(store, prefix, counted(judged, rules), name)])


def _write_steps(store: Store, prefix: str, table: pa.Table, name: str) -> list[File]:
    writer = TableWriter(store, f"{prefix}/{Kind.STEPS}-{name}.parquet", Kind.STEPS, STEPS)
    at = 0
    for _, rows in groupby(table["setting"].to_pylist()):
        length = sum(1 for _ in rows)
        writer.write_table(table.slice(at, length))  # a row group for each threshold: a page reads one
        at += length
    return writer.close()


def run(job: Job) -> None:
    check(job.declared)
    parts = job.parts()
    each = sum(part.rows for part in parts) // job.context.defaultParallelism if parts else 0
    groups = group_rows(parts, min(max(each, PART_ROWS), STEP_ROWS))
    job.commit(job.map_files(groups, partial(_work, job.store, job.prefix, job.settings), "groups"))
