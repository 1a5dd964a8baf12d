"""filter: judges each document by its scores (line corrections, length, repetition, quality).

A dropped document counts under the first rule that it breaks.
"""

from collections.abc import Iterable
from functools import lru_cache, partial

from contract.documents import Part, read_documents
from contract.errors import RecipeError
from contract.recipe import StageSettings
from contract.settings.filter import Filter, Rule
from contract.store import Store
from pipelines.rules.decide import decide, rules_for
from pipelines.spark.documents import IndexSink, Output
from pipelines.spark.job import Job
from pipelines.text.stopwords import STOP_WORDS


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


def run(job: Job) -> None:
    check(job.declared)
    job.commit(job.map_files(job.parts(), partial(_work, job.store, job.prefix, job.settings)))
