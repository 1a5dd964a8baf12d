"""What decides results besides settings and inputs: values in the code, and what follows from several settings.

A stage names the facts that it uses in the stage table, and they become part of its fingerprint: a change here makes
stale what was made with the old value.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from contract.chat import CHAT_FORMAT, SPECIAL_TOKENS
from contract.recipe import Recipe
from contract.scores import ESTABLISHED, SCORES
from contract.settings.corpus import LANGUAGE_MODEL


def new_scores(recipe: Recipe) -> list[str]:
    """The scores that a recipe uses and that not every result of the present version of `score` has."""
    used = {rule.score for rule in recipe.filter.rules()} | ({recipe.minhash_sign.quality_column} & {*SCORES})
    return sorted(used.difference(ESTABLISHED))


FACTS: dict[str, Callable[[Recipe], Any]] = {
    "language_model": lambda _: LANGUAGE_MODEL,
    "special_tokens": lambda _: dict(SPECIAL_TOKENS),
    "chat_format": lambda _: {role: asdict(frame) for role, frame in CHAT_FORMAT.items()},
    "new_scores": new_scores,
}
