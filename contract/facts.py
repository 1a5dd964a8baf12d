"""What decides results besides settings and inputs: values in the code, and what follows from several settings.

A stage names the facts that it uses in the stage table, and they become part of its fingerprint: a change here makes
stale what was made with the old value.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from contract.chat import CHAT_FORMAT, SPECIAL_TOKENS
from contract.recipe import Recipe
from contract.scores import ESTABLISHED, SCORES
from contract.settings.corpus import LANGUAGE_MODEL
from contract.settings.filter import Filter


def new_scores(recipe: Recipe) -> list[str]:
    """The scores that a recipe uses and that not every result of the present version of `score` has."""
    return _new(recipe, (recipe.filter,))


def new_curated_scores(recipe: Recipe) -> list[str]:
    """The same of `curate`."""
    return _new(recipe, (source.rules for source in recipe.curate.sources.values() if source.rules))


def _new(recipe: Recipe, asked: Iterable[Filter]) -> list[str]:
    used = {rule.score for rules in asked for rule in rules.rules()}
    return sorted((used | ({recipe.minhash_sign.quality_column} & {*SCORES})).difference(ESTABLISHED))


FACTS: dict[str, Callable[[Recipe], Any]] = {
    "language_model": lambda _: LANGUAGE_MODEL,
    "special_tokens": lambda _: dict(SPECIAL_TOKENS),
    "chat_format": lambda _: {role: asdict(frame) for role, frame in CHAT_FORMAT.items()},
    "new_scores": new_scores,
    "new_curated_scores": new_curated_scores,
}
