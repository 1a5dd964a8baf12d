"""A run that a person asks for on the page `New run`: what is wrong with it, what it would do, how it is started.

Only offered recipes and runs that the visitor may see can be named, never a path. A text is limited before it is read,
and reading it takes time linear in its length.
"""

import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from contract.errors import GristmillError, InputError, RecipeError
from contract.mistakes import Mistake
from contract.offered import offered, recipe_uri
from contract.plan import Run, draft
from contract.recipe import Recipe, find_mistakes
from contract.settings.corpus import Crawl
from contract.sources import list_outside, list_segments, newest_crawl, snapshot_date
from contract.store import Store
from reports.forecast import Forecast, forecast, look, samples, tasks_in

_ALIGNED = ("evaluate", "feedback")  # what an aligned model starts
FOLLOWERS = {
    "corpus": ("pretrain", "align", *_ALIGNED),
    "pretrain": ("align", *_ALIGNED),
    "align": _ALIGNED,
    "feedback": _ALIGNED,
}
"""The DAGs that the result of one starts, unless they are paused."""
MOST_LINES, MOST_CHARS = 200, 20_000  # of all overrides
TOLD_CHARS = 600  # of one mistake's message
PATIENCE_S = 4.0  # for a crawl's server that does not answer
KEPT_S = 60.0  # for which an answer about a crawl's files holds


@dataclass(frozen=True)
class Asked:
    """What a person asks for: a DAG, and an offered recipe or an earlier run, changed by lines of overrides.

    Empty lines stay, so that a mistake's line is the one that the person sees. `crawl` goes with a recipe only.
    """

    dag: str
    recipe: str
    lines: tuple[str, ...] = ()
    crawl: str = ""
    run: Run | None = None

    @property
    def overrides(self) -> tuple[str, ...]:
        return tuple(line.strip() for line in self.lines if line.strip())

    @property
    def uri(self) -> str:
        """Where the recipe lies."""
        return self.run.uri if self.run else recipe_uri(self.recipe)


def read_lines(text: str) -> tuple[str, ...]:
    """The lines of a text field. Raises RecipeError for one that is too long to be overrides."""
    if len(text) > MOST_CHARS:
        raise RecipeError(f"overrides: {len(text):,} characters; at most {MOST_CHARS:,} are read here")
    lines = tuple(text.split("\n"))
    if len(lines) > MOST_LINES:
        raise RecipeError(f"overrides: {len(lines):,} lines; at most {MOST_LINES} are read here")
    return lines


def examine(asked: Asked) -> tuple[Recipe | None, list[Mistake]]:
    """The recipe that is asked for, or None and every mistake; lines are counted from 0 as the person sees them.

    A mistake in the crawl's name has the key `crawl`. Reads the recipe and nothing that it names.
    """
    if asked.run is None and asked.recipe not in offered():
        return None, [Mistake("recipe", f"{asked.recipe[:80]!r} is not one of {', '.join(offered())}")]
    seen = [number for number, line in enumerate(asked.lines) if line.strip()]
    try:
        recipe, found = find_mistakes(asked.uri, asked.overrides)
    except GristmillError as error:
        return None, [Mistake("recipe", _short(str(error)))]
    shown = [Mistake(one.key, _short(one.message), None if one.line is None else seen[one.line]) for one in found]
    if why := _refuses_crawl(asked, recipe):
        shown.append(Mistake("crawl", why))
    shown.sort(key=lambda one: -1 if one.line is None else one.line)
    return (None, shown) if shown else (recipe, [])


def _short(message: str) -> str:
    return message if len(message) <= TOLD_CHARS else f"{message[:TOLD_CHARS]} ..."


def _refuses_crawl(asked: Asked, recipe: Recipe | None) -> str:
    """Why the crawl's name cannot be taken; empty if it can."""
    if not asked.crawl:
        return ""
    if asked.run:
        return "an earlier run has its own crawl; leave this empty"
    try:
        snapshot_date(asked.crawl)
    except InputError as error:
        return _short(str(error))
    if recipe and recipe.snapshots and asked.crawl != newest_crawl(recipe):
        return f"the recipe names {', '.join(recipe.snapshots)[:200]}; leave this empty, or leave its snapshots empty"
    return ""


def find_unlisted(asked: Asked, recipe: Recipe, outside: bool = True) -> Mistake | None:
    """The first source of the run that cannot be listed from here; `recipe` is that of `examine`.

    Without `outside`, only the crawl is listed: this is asked while a person types. Its answer is kept for a minute.
    """
    why = ""
    if not asked.run or recipe.crawl != asked.run.recipe.crawl:
        why = _why_unlisted(recipe.crawl, _crawls(asked, recipe), int(time.monotonic() / KEPT_S))
    if outside and not why:
        try:
            list_outside(recipe)
        except GristmillError as error:
            why = str(error)
    return _about(asked, _short(why)) if why else None


@lru_cache(maxsize=64)
def _why_unlisted(crawl: Crawl, crawls: tuple[str, ...], minute: int) -> str:
    """Why the crawl files cannot be listed, or an empty string. `minute` makes a kept answer expire."""
    try:
        list_segments(Recipe.model_construct(crawl=crawl, snapshots=crawls), PATIENCE_S)
    except GristmillError as error:
        return str(error)
    return ""


def _crawls(asked: Asked, recipe: Recipe) -> tuple[str, ...]:
    return recipe.snapshots or ((asked.crawl,) if asked.crawl else ())


def _about(asked: Asked, why: str) -> Mistake:
    """A message that begins with the key of a setting, as a mistake at the last line that sets it."""
    key, _, rest = why.partition(" ")
    key = key.removesuffix(":")
    lines = [number for number, line in enumerate(asked.lines) if line.partition("=")[0].strip() == key]
    return Mistake(key, rest, lines[-1]) if lines else Mistake("", why)


def expect(asked: Asked, recipe: Recipe, earlier: Iterable[Run]) -> Forecast:
    """What the run would do. `recipe` is that of `examine`; `earlier` are runs to compare with, the newest first.

    Lists the crawl, as the run's first task does, and writes nothing. Raises GristmillError.
    """
    continued = asked.run if asked.run and not asked.overrides else None
    pairs = tasks_in(continued or draft(recipe, _crawls(asked, recipe), PATIENCE_S), asked.dag)
    found = samples((run for run in earlier if run.store == Store(recipe.store)), {task.stage for _, task in pairs})
    return forecast(pairs, asked.dag, look(pairs), found)


def conf(asked: Asked) -> dict[str, Any]:
    """The fields of the trigger form for this run, with the keys that its DAG expects."""
    made: dict[str, Any] = {"run": asked.run.uri} if asked.run else {"recipe": asked.recipe}
    if asked.crawl and not asked.run:
        made["crawl"] = asked.crawl
    return made | {"overrides": [*asked.overrides]}


def partition_key(asked: Asked, recipe: Recipe) -> str | None:
    """The crawl under whose name the run stands in Airflow; None for the newest, whose name the run itself finds."""
    if asked.crawl:
        return asked.crawl
    return newest_crawl(recipe) if recipe.snapshots else None


def commands(asked: Asked) -> list[str]:
    """What to type instead, where there is no Airflow: the command lines."""
    if asked.run and not asked.overrides:
        return [shlex.join(["python", "-m", "contract", "commands", "--recipe", asked.run.uri])]
    words = ["python", "-m", "contract", "resolve", "--recipe", asked.uri]
    words += ["--snapshot", asked.crawl] if asked.crawl else []
    words += [word for line in asked.overrides for word in ("--set", line)]
    return [f"RUN=$({shlex.join(words)})", 'python -m contract commands --recipe "$RUN"']
