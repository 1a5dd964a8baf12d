"""filter: judges each document by its scores (line corrections, length, repetition, quality).

A dropped document counts under the first rule that it breaks.
"""

from collections.abc import Iterable
from functools import lru_cache, partial
from itertools import groupby

import pyarrow as pa

from contract.documents import Part, read_documents, read_part, stored_columns
from contract.errors import RecipeError
from contract.kinds import Kind
from contract.recipe import StageSettings
from contract.schema import STEPS
from contract.settings.filter import Filter, Rule
from contract.store import Store
from pipelines.rules.decide import decide, rules_for
from pipelines.rules.steps import count_steps
from pipelines.spark.documents import IndexSink, Output
from pipelines.spark.job import Job
from pipelines.spark.places import ids_of
from pipelines.spark.tables import TableWriter, group_rows
from pipelines.text.stopwords import STOP_WORDS

STEP_ROWS = 1 << 18  # documents that one table of steps counts: 40 scores of each are in memory
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


def _work(store: Store, prefix: str, settings: Filter, part: Part, name: str) -> Output:
    sink = IndexSink(store, prefix, "filter", name)
    rules = lru_cache(maxsize=None)(partial(rules_for, settings))
    judged = sorted({rule.score for rule in settings.rules()})  # a score that no rule judges may be missing
    for row in read_documents(store, part, ["language", "bytes", *judged]):
        applicable: list[Rule] = rules(row["language"])
        verdict = decide(row, applicable)
        if verdict:
            sink.drop(row, *verdict, row["bytes"])
        else:
            sink.keep(row["row"], row["bytes"])
    sink.finish(part)
    return sink.close()


def _steps(store: Store, prefix: str, settings: Filter, parts: list[Part], name: str) -> Output:
    """Write what every step of every threshold would move, of the documents of some parts."""
    judged = sorted({*stored_columns(store, parts[0], ["kept_words"]), *(rule.score for rule in settings.rules())})
    batches = [batch for part in parts for batch in read_part(store, part, ["id", "language", *judged], READ_ROWS)]
    table = pa.Table.from_batches(batches)
    ids = pa.chunked_array([ids_of(chunk) for chunk in table["id"].chunks], pa.binary(16))
    counted = count_steps(table.set_column(table.column_names.index("id"), "id", ids), settings)
    writer = TableWriter(store, f"{prefix}/{Kind.STEPS}-{name}.parquet", Kind.STEPS, STEPS)
    at = 0
    for _, rows in groupby(counted["setting"].to_pylist()):
        length = sum(1 for _ in rows)
        writer.write_table(counted.slice(at, length))  # a row group for each threshold: a page reads one
        at += length
    return Output(writer.close())


def run(job: Job) -> None:
    check(job.declared)
    parts = job.parts()
    output = job.map_files(parts, partial(_work, job.store, job.prefix, job.settings))
    counting = partial(_steps, job.store, job.prefix, job.settings)
    output.files += job.map_files(group_rows(parts, STEP_ROWS), counting, "steps").files
    job.commit(output)
