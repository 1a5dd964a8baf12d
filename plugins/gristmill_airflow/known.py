"""The crawls that `crawl_refresh` knows, each with the recipe, overrides and source of the poll that saw it.

Airflow gives a backfill no form unless a person asks for it, so its runs take their recipe from here. The records lie
in CRAWL's state store under SEEN:
{source: {"run": the last poll's, "offered": [crawl], "fresh": [crawl], "recipe_name": "", "overrides": []}}.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from contract.errors import RecipeError
from contract.masking import masked
from contract.printable import printable

SOURCE = "crawl.source="


@dataclass(frozen=True)
class Kept:
    """The recipe of a poll, and its overrides, which name the source even if the recipe has changed since."""

    recipe: str
    overrides: tuple[str, ...]


def kept(seen: Mapping[str, Mapping[str, Any]], crawl: str) -> Kept | None:
    """The recipe and overrides of the poll that saw a crawl, or None if no poll has seen it.

    Raises RecipeError if several sources offer a crawl of that name.
    """
    seen = _complete(seen)
    sources = [source for source, poll in seen.items() if crawl in poll["offered"]]
    if len(sources) > 1:
        raise RecipeError(
            f"crawl {crawl}: {' and '.join(sources)} both offer it; name the source to read in the form: tick "
            f'"Override parameters" in a backfill, give the recipe, and {SOURCE}... as an override'
        )
    if not sources:
        return None
    poll = seen[sources[0]]
    return Kept(poll["recipe_name"], tuple(at_source(poll["overrides"], sources[0])))


def _complete(seen: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The complete records. A record of an earlier version is ignored until its source is polled again."""
    return {source: poll for source, poll in seen.items() if {"offered", "recipe_name", "overrides"} <= poll.keys()}


def at_source(overrides: Sequence[str], source: str) -> list[str]:
    """The overrides with the source that offered a crawl, in case the recipe names another source by now."""
    plain = re.fullmatch(r"(/|\w+://)[\w./:-]*\w/?", source)  # needs no quotes in YAML
    others = [line for line in overrides if not line.startswith(SOURCE)]
    return [*others, SOURCE + (source if plain else yaml.safe_dump(source, default_style='"', width=math.inf).strip())]


def report(seen: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """One line for each source: the crawls that a backfill can run now, with their recipe and overrides."""
    seen = _complete(seen)
    for source, poll in seen.items():
        overrides = [line for line in poll["overrides"] if not line.startswith(SOURCE)]
        changed = f" with {' '.join(overrides)}" if overrides else ""
        crawls = f"{', '.join(poll['offered'])} ({len(poll['offered'])})"
        yield printable(masked(f"known at {source}, to be run with recipe {poll['recipe_name']}{changed}: {crawls}"))
    names = [crawl for poll in seen.values() for crawl in poll["offered"]]
    for crawl in sorted({name for name in names if names.count(name) > 1}):
        yield f"crawl {crawl} is offered by several sources: a backfill of it needs the form's recipe and {SOURCE}..."
