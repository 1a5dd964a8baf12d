"""filter: corrects the lines of each document, then judges it by length, repetition and quality. The first broken rule counts."""

from functools import partial

from contract.errors import RecipeError
from contract.manifest import File
from contract.recipe import Recipe
from contract.settings import Filter
from contract.store import Store
from pipelines.job import Job, Output, Sorter, read_rows
from pipelines.schema import Drop
from pipelines.text import lines, quality, repetition
from pipelines.text.stopwords import STOP_WORDS
from pipelines.text.words import Text

Verdict = tuple[Drop, object] | None


def judge(text: str, language: str | None, settings: Filter) -> tuple[str, Verdict]:
    """(the text as corrected, why it goes or None)."""
    if settings.lines.enabled:
        corrected = lines.correct(text, settings.lines)
        if verdict := lines.judge(corrected, settings.lines):
            return text, verdict
        text = corrected.text
    document = Text(text)
    verdict = quality.judge_length(document, settings.min_words, settings.max_words)
    if verdict is None and settings.gopher_repetition.enabled:
        verdict = repetition.judge(document, settings.gopher_repetition)
    if verdict is None and settings.gopher_quality.enabled:
        verdict = quality.judge_gopher(document, language, settings.gopher_quality)
    if verdict is None and settings.c4.enabled:
        verdict = quality.judge_c4_page(text)
        if verdict is None:
            document = Text(quality.c4_lines(text, settings.c4))
            verdict = quality.judge_c4_sentences(document.text, settings.c4)
    if verdict is None and settings.fineweb.enabled:
        verdict = quality.judge_fineweb(document, settings.fineweb)
    return document.text, verdict


def check_stop_words(recipe: Recipe) -> None:
    """Raises RecipeError when a language that the recipe names has no stop words: the rule would pass all or drop all of it."""
    rule = recipe.filter.gopher_quality
    missing = [code for code in recipe.langid.languages if code not in STOP_WORDS]
    if rule.enabled and rule.min_stop_words and missing:
        raise RecipeError(
            f"langid.languages: there are no stop words for {', '.join(missing)}; set filter.gopher_quality.min_stop_words=0, "
            f"or add them to pipelines/text/stopwords.py (there are {', '.join(sorted(STOP_WORDS))})"
        )


def _work(store: Store, prefix: str, settings: Filter, file: File, name: str) -> Output:
    sorter = Sorter(store, prefix, "filter", name)
    for row in read_rows(store, file.path):
        text, verdict = judge(row["text"], row["language"], settings)
        before = len(row["text"].encode())
        if verdict:
            sorter.drop(row, *verdict, before)
        else:
            sorter.keep({**row, "text": text}, len(text.encode()), before)
    return sorter.close()


def run(job: Job) -> None:
    check_stop_words(job.run.recipe)
    files = job.inputs("langid", "documents")
    job.commit(job.map_files(files, partial(_work, job.store, job.prefix, job.settings)))
