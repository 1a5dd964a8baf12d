"""filter: judges each document by its scores (line corrections, length, repetition, quality).

A dropped document counts under the first rule that it breaks.
"""

from functools import lru_cache, partial

from contract.errors import RecipeError
from contract.kinds import Kind
from contract.manifest import File
from contract.recipe import StageSettings
from contract.schema import DOCUMENTS
from contract.settings.filter import Filter, Rule
from contract.store import Store
from contract.tables import read_rows
from pipelines.rules.decide import decide, rules_for
from pipelines.spark.job import DocumentSink, Job, Output, group_rows
from pipelines.text.stopwords import STOP_WORDS

GROUP_ROWS = 4096  # documents of one Spark task: microseconds each


def check(settings: StageSettings) -> None:
    """Raise RecipeError if a language of the recipe has no stop words: the rule would pass or drop all of it."""
    asked = any(rule.score == "stop_words" for rule in settings.own.rules())
    missing = [code for code in settings.of("langid.languages") if code not in STOP_WORDS]
    if asked and missing:
        raise RecipeError(
            f"langid.languages: there are no stop words for {', '.join(missing)}; "
            "set filter.gopher_quality.min_stop_words=0, "
            f"or add them to pipelines/text/stopwords.py (there are {', '.join(sorted(STOP_WORDS))})"
        )


def _work(store: Store, prefix: str, settings: Filter, files: list[File], name: str) -> Output:
    sink = DocumentSink(store, prefix, "filter", name)
    rules = lru_cache(maxsize=None)(partial(rules_for, settings))
    for file in files:
        for row in read_rows(store, file):
            size = len(row["text"].encode())
            applicable: list[Rule] = rules(row["language"])
            verdict = decide(row, applicable)
            if verdict:
                sink.drop(row, *verdict, size)
            else:
                sink.keep({column: row[column] for column in DOCUMENTS.names}, size)
    return sink.close()


def groups(job: Job) -> list[list[File]]:
    """The files of `score` in the groups that `run` maps, in the same order, which numbers the output files."""
    return group_rows(job.inputs("score", Kind.DOCUMENTS), GROUP_ROWS)


def run(job: Job) -> None:
    check(job.declared)
    job.commit(job.map_files(groups(job), partial(_work, job.store, job.prefix, job.settings), "groups"))
