"""Checks before a run what would otherwise make a stage fail hours into it: `python -m pipelines check --recipe URI`.

Checks Spark's Java, memory and master; the settings of each stage and the packages they need; the block lists,
evaluation sets and tokenizer that they name; and that no named file has changed since the run was resolved. Takes
seconds and reads no page.
"""

from collections.abc import Callable

from contract.manifest import find
from contract.plan import Run
from contract.recipe import Recipe
from contract.stages import STAGES
from pipelines.decontaminate import describe, load
from pipelines.dedup.tokens import load_tokenizer
from pipelines.filter import check_stop_words
from pipelines.langid import check_languages
from pipelines.score import check_tools
from pipelines.spark.session import check_setup
from pipelines.urls.listfile import read_lists


def crawl(recipe: Recipe) -> None:
    for folder in recipe.crawl.blocklists:
        read_lists(folder)


def dedup_substring(recipe: Recipe) -> None:
    if recipe.dedup_substring.tokenizer:
        load_tokenizer(recipe.dedup_substring.tokenizer)


def decontaminate(recipe: Recipe) -> None:
    if recipe.decontaminate.benchmarks:
        print(*describe(load(recipe.decontaminate)), sep="\n", flush=True)


CHECKS: dict[str, Callable[[Recipe], None]] = {
    "crawl": crawl,
    "langid": lambda recipe: check_languages(recipe.langid),
    "score": lambda recipe: check_tools(recipe.score),
    "filter": check_stop_words,
    "dedup_substring": dedup_substring,
    "decontaminate": decontaminate,
}
"""The check of each stage. It raises the RecipeError or InputError that the stage itself would raise."""


def _needs_spark(run: Run) -> bool:
    """Whether a Spark task is left to do. Looks only at corpus stages: each is committed after everything it reads."""
    corpus = [stage.name for stage in STAGES.values() if stage.plane == "spark" and stage.scope == "corpus"]
    return any(find(run.store, run.task(name)) is None for name in corpus)


def check(run: Run) -> None:
    """Check the settings of every stage with tasks left, and Spark's setup if one of them runs on Spark.

    Skips stages that are done, because they have accepted their settings.
    """
    if _needs_spark(run):
        check_setup(run.recipe.spark)
    first = {stage: task for (stage, _), task in reversed(run.tasks().items())}
    for stage, task in reversed(first.items()):
        if not find(run.store, task):
            run.check_outside(stage)
            if stage in CHECKS:
                CHECKS[stage](run.recipe)
