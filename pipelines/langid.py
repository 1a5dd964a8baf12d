"""langid: identifies the language of each document with fastText's lid.176, and drops unwanted languages."""

from collections.abc import Iterable
from functools import partial

from contract.documents import Part, read_documents
from contract.errors import RecipeError
from contract.recipe import StageSettings
from contract.schema import LANGUAGES, Drop
from contract.settings.corpus import Langid
from contract.store import Store
from pipelines.spark.documents import IndexSink, Output
from pipelines.spark.job import Job
from pipelines.spark.tables import group_rows
from pipelines.text.fasttext_model import LABEL, model

GROUP_ROWS = 512  # documents of one Spark task: a millisecond each
TOP = 3  # languages kept of each document, likeliest first
UNKNOWN = ("und", 0.0)  # ISO 639: undetermined


def rank(text: str) -> list[tuple[str, float]]:
    """The TOP likeliest (ISO 639 code, probability) of a text, or only UNKNOWN if it has no letter.

    Newlines become spaces, because fastText judges only one line.
    """
    line = " ".join(text.encode("utf-8", "ignore").decode().split())
    if not any(character.isalpha() for character in line):
        return [UNKNOWN]
    # Calls the binding `f`, because its arguments are the same in every package that provides this module.
    labels = model().f.predict(line + "\n", TOP, 0.0, "strict")
    return [(label.removeprefix(LABEL), min(1.0, float(probability))) for probability, label in labels] or [UNKNOWN]


def identify(text: str) -> tuple[str, float]:
    """The likeliest (ISO 639 code, probability) of a text."""
    return rank(text)[0]


def language_verdict(language: str, probability: float, settings: Langid) -> tuple[Drop, object] | None:
    """The reason to drop a document for its language and what was identified, or None to keep it."""
    if settings.languages and language not in settings.languages:
        return Drop.LANGUAGE, f"{language} {probability:.2f}"
    if probability < settings.min_probability:
        return Drop.LANGUAGE_UNSURE, f"{language} {probability:.2f}"
    return None


def check(settings: StageSettings) -> None:
    """Raise RecipeError for a code that lid.176 does not know."""
    check_languages("langid.languages", settings.own.languages)


def check_languages(key: str, codes: Iterable[str]) -> None:
    """Raise RecipeError for a code that lid.176 does not know: such a language would match no document."""
    answers = model().f.predict("a\n", 1000, -1.0, "strict")  # below every probability: returns all labels
    known = {label.removeprefix(LABEL) for _, label in answers}
    unknown = [code for code in codes if code not in known]
    if unknown:
        raise RecipeError(
            f"{key}: lid.176 does not know {', '.join(unknown)}; use its ISO 639 codes, for example en, de, zh"
        )


def _work(store: Store, prefix: str, settings: Langid, parts: list[Part], name: str) -> Output:
    sink = IndexSink(store, prefix, "langid", name, LANGUAGES)
    for part in parts:
        for row in read_documents(store, part, ["id", "url", "text"]):
            languages, probabilities = zip(*rank(row["text"][: settings.sample_chars]), strict=True)
            size = len(row["text"].encode())
            verdict = language_verdict(languages[0], probabilities[0], settings)
            if verdict:
                sink.drop({**row, "language": languages[0]}, *verdict, size)
            else:
                first = {"language": languages[0], "language_probability": probabilities[0]}
                ranked = {"languages": list(languages), "language_probabilities": list(probabilities)}
                sink.keep(row["row"], size, columns=first | ranked)
        sink.finish(part)
    return sink.close()


def run(job: Job) -> None:
    settings: Langid = job.settings
    check(job.declared)
    groups = group_rows(job.parts(), GROUP_ROWS)
    job.commit(job.map_files(groups, partial(_work, job.store, job.prefix, settings), "groups"))
