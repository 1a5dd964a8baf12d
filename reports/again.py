"""A run's recipe as a person would ask for it again: the name of a recipe, and overrides that make the same run."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from contract import recipe as recipes
from contract.errors import GristmillError
from contract.offered import offered, recipe_uri
from contract.recipe import Recipe
from contract.settings.base import Settings
from contract.sources import newest_crawl
from contract.store import Store


@dataclass(frozen=True)
class Again:
    """What to fill into a form: an offered recipe, overrides that turn it into the run's, and the run's crawl."""

    recipe: str
    overrides: tuple[str, ...]
    crawl: str


def again(recipe: Recipe) -> Again | None:
    """How to ask for a run with this resolved recipe: by the offered recipe that differs least from it.

    None if no offered recipe can be read. A file of recipes that has changed since the run makes other overrides, and
    with them the same recipe.
    """
    found: list[Again] = []
    for name in offered():
        try:
            base = recipes.load(recipe_uri(name))
        except GristmillError:
            continue
        base = base.model_copy(update={"store": Store(base.store).uri})
        single = not base.snapshots and len(recipe.snapshots) == 1
        asked = recipe.model_copy(update={"store": Store(recipe.store).uri} | ({"snapshots": ()} if single else {}))
        found.append(Again(name, tuple(differences(asked, base)), newest_crawl(recipe) if single else ""))
    return min(found, key=lambda one: (len(one.overrides), one.recipe != recipe.name), default=None)


def differences(recipe: Settings, base: Settings, above: str = "") -> Iterator[str]:
    """Overrides, as `key.path=value`, that turn the settings `base` into `recipe`."""
    for name in type(recipe).model_fields:
        value, usual = getattr(recipe, name), getattr(base, name)
        if isinstance(value, Settings) and type(value) is type(usual):
            yield from differences(value, usual, f"{above}{name}.")
        elif value != usual:
            plain = recipe.model_dump(mode="json", include={name})[name]
            yield f"{above}{name}={in_one_line(plain)}"


def in_one_line(value: object) -> str:
    """A value as YAML, in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False)
    text = text.removesuffix("...\n").strip()
    return json.dumps(value, ensure_ascii=False) if "\n" in text else text
