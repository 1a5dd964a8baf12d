"""Checks before a run what would otherwise make a stage fail hours into it: `python -m pipelines check --recipe URI`.

Checks Spark's Java, memory and master; the settings of each stage and the packages they need; the block lists,
evaluation sets, tokenizer and chat template that they name; and that no named file has changed since the run was
resolved. Takes seconds and reads no page.
"""

import importlib

from contract.chat import OWN_FORMAT
from contract.chat_template import read_template
from contract.manifest import find
from contract.plan import Run
from contract.recipe import StageSettings
from contract.stages import STAGES
from pipelines.examples.gold import read_gold
from pipelines.spark.session import check_setup


def _needs_spark(run: Run) -> bool:
    """Whether a Spark task is left to do. Looks only at corpus stages: each is committed after everything it reads."""
    corpus = [stage.name for stage in STAGES.values() if stage.plane == "spark" and stage.scope == "corpus"]
    return any(find(run.store, run.task(name)) is None for name in corpus)


def check(run: Run) -> None:
    """Check the settings of every stage with tasks left, and Spark's setup if one of them runs on Spark.

    The `check` of a stage raises the RecipeError or InputError that the stage itself would raise.

    Skips stages that are done, because they have accepted their settings.
    """
    if _needs_spark(run):
        check_setup(run.recipe.spark)
    first = {stage: task for (stage, _), task in reversed(run.tasks().items())}
    for stage, task in reversed(first.items()):
        if not find(run.store, task):
            run.check_outside(stage)
            if stage == "sft" and run.recipe.sft.chat_template != OWN_FORMAT:
                read_template(run.recipe.sft.chat_template)
            if stage == "sample":
                read_gold(run.recipe.sample)
            if STAGES[stage].checks:
                importlib.import_module(f"pipelines.{stage}").check(StageSettings(run.recipe, stage))
