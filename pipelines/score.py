"""score: corrects and masks texts, and measures the scores for `filter`. Drops only documents that take too long."""

import tempfile
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from contract.documents import Part, read_documents
from contract.errors import RecipeError
from contract.recipe import StageSettings
from contract.schema import DOCUMENTS, SCORED, Drop
from contract.scores import SCORES
from contract.settings.corpus import Score
from contract.store import Store, split_uri
from pipelines.rules import badwords
from pipelines.rules.measure import Tools, check_names, clean_and_score
from pipelines.spark.documents import DocumentSink, Output
from pipelines.spark.job import Job
from pipelines.spark.tables import group_rows
from pipelines.text.clock import TooSlow, limited

GROUP_ROWS = 4096  # documents of one Spark task, half a millisecond each, and of a part that later stages judge
SECONDS_PER_DOCUMENT = 10.0  # of processor time; the longest text takes two


@lru_cache(maxsize=1)
def tools_for(settings: Score) -> Tools:
    """This worker's lists and model, loaded once.

    Raises InputError if the folder has no lists, RecipeError if a model is set and kenlm is not installed.
    """
    lists = badwords.load_lists(settings.bad_words) if settings.bad_words else {}
    return Tools(lists, _model(settings.perplexity_model) if settings.perplexity_model else None)


def check(settings: StageSettings) -> None:
    """Raise the errors of `tools_for` without loading the model, which can have gigabytes."""
    if settings.own.bad_words:
        badwords.load_lists(settings.own.bad_words)
    if settings.own.perplexity_model:
        _kenlm()


def _kenlm() -> Any:
    try:
        import kenlm  # optional: compiled, and only recipes with a model need it
    except ImportError:
        raise RecipeError("score.perplexity_model: the package kenlm is not installed; pip install kenlm") from None
    return kenlm


def _model(uri: str) -> Any:
    kenlm, (store, name) = _kenlm(), split_uri(uri)
    with tempfile.TemporaryDirectory(prefix="gristmill-kenlm-") as folder:
        return kenlm.Model(str(store.download(name, Path(folder) / name)))


def _work(store: Store, prefix: str, settings: Score, parts: list[Part], name: str) -> Output:
    sink = DocumentSink(store, prefix, "score", name, SCORED)
    tools = tools_for(settings)
    clean_and_score("", None, settings, tools)  # compiles, if not cached, outside the time limit of a document
    for part in parts:
        for row in read_documents(store, part, DOCUMENTS.names):
            read_size = len(row["text"].encode())
            try:
                with limited(SECONDS_PER_DOCUMENT):
                    text, scores = clean_and_score(row["text"], row["language"], settings, tools)
            except TooSlow as error:
                sink.drop(row, Drop.SCORE_TIMEOUT, error, read_size)
                continue
            size = len(text.encode())
            sink.keep({**row, **dict.fromkeys(SCORES), **scores, "text": text, "bytes": size}, size, read_size)
    return sink.close()


def run(job: Job) -> None:
    settings: Score = job.settings
    _, scores = clean_and_score("", None, settings, tools_for(settings))  # fails and compiles here, before any worker
    check_names(scores)
    groups = group_rows(job.parts(), GROUP_ROWS)
    job.commit(job.map_files(groups, partial(_work, job.store, job.prefix, settings), "groups"))
