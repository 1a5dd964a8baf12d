"""The trigger form, with the same few fields on every DAG, and the steps from a filled form to a resolved recipe."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Param

from contract import recipe as recipes
from contract.errors import RecipeError
from contract.masking import masked
from contract.offered import DEFAULT_RECIPE, offered, recipe_uri
from contract.plan import Run, open_run, resolve
from contract.printable import printable
from contract.recipe import Recipe
from contract.sources import newest_crawl, snapshot_date
from gristmill_airflow.known import SOURCE, kept
from gristmill_airflow.note import USES

FORM, KEPT, HANDED_ON = "as the form says", "as crawl_refresh keeps it", "as the DAG before it"
RECIPE = "A file in the folder of recipes; without a deployment file also any recipe's path or URI."


def poll_params(about: str = RECIPE) -> dict[str, Param]:
    """The form of `crawl_refresh`. `about` explains its first field."""
    return {
        "recipe": Param(
            DEFAULT_RECIPE,
            type="string",
            minLength=1,
            title="Recipe",
            examples=offered(),
            description_md=about,
        ),
        "overrides": Param(
            [],
            type=["array", "null"],
            items={"type": "string"},
            title="Overrides",
            description_md="One on each line, for example `filter.min_words=40` or `crawl.source=/data/warc`.",
        ),
    }


def stage_params() -> dict[str, Param]:
    """The form of the DAGs that run stages."""
    form = poll_params(f"{RECIPE} A backfill takes what `crawl_refresh` used, unless *Override parameters* is ticked.")
    return {
        "recipe": form["recipe"],
        "crawl": Param(
            None,
            type=["null", "string"],
            title="Crawl",
            description_md="For example `CC-MAIN-2024-10`. Empty: the newest crawl of the recipe's source.",
        ),
        "overrides": form["overrides"],
        "run": Param(
            None,
            type=["null", "string"],
            title="Resolved run",
            description_md=(
                "Instead of a recipe: the URI of an earlier run's `recipe.yaml`. Continues that run; "
                "with overrides, starts a new run of the same crawl with that run's recipe and the overrides."
            ),
        ),
    }


@dataclass(frozen=True)
class Request:
    """A DAG run's request: a resolved run or a recipe, changed by overrides, for one crawl or the newest.

    origin: where the request comes from, in words for the log.
    """

    run: str | None
    recipe: str
    overrides: tuple[str, ...]
    crawl: str | None
    origin: str = FORM


def read_request(
    params: Mapping[str, Any],
    partition_key: str | None,
    events: Sequence[Mapping[str, Any] | None],
    said: Mapping[str, Any] | None = None,
    seen: Mapping[str, Mapping[str, Any]] | None = None,
) -> Request:
    """Combine the form, the partition key, the triggering asset events' extras (oldest first) and the polls' records.

    An event of a finished stage carries the `recipe` URI of its run; an event of a new crawl carries `recipe_name` and
    `overrides`. A run started by hand or as a backfill has no event. `said` holds the fields that a person sent: all of
    them from the web UI's trigger form, none from a backfill unless its parameters were ticked. If `said` names no
    recipe, the recipe that a poll kept for the crawl in `seen` is used, and overrides come on top of the kept ones.

    Raises RecipeError if form and key name different crawls, if the form names both a resolved run and a crawl, and if
    several sources offer the crawl.
    """
    said = params if said is None else said
    extra = next((dict(event) for event in reversed(events) if event), {})
    crawl = params.get("crawl") or None
    if crawl and partition_key and crawl != partition_key:
        raise RecipeError(f"crawl {crawl}: the run's partition key is {partition_key}; leave one of the two empty")
    crawl = crawl or partition_key
    if extra.get("recipe"):
        return Request(extra["recipe"], "", (), crawl, HANDED_ON)
    if extra.get("recipe_name"):
        return Request(None, extra["recipe_name"], _lines(extra["overrides"]), crawl, KEPT)
    if params.get("run"):
        if params.get("crawl"):
            raise RecipeError(
                f"crawl {crawl}: the resolved run {params['run']} has its own; leave crawl empty, or leave run empty"
            )
        return Request(params["run"], "", _lines(params["overrides"]), crawl)
    known = kept(seen or {}, crawl) if crawl and not said.get("recipe") else None
    if known:
        return Request(None, known.recipe, (*known.overrides, *_lines(said.get("overrides"))), crawl, KEPT)
    return Request(None, params["recipe"], _lines(params["overrides"]), crawl)


@dataclass(frozen=True)
class Told:
    """The recipe and overrides of `crawl_refresh`, and the run in which a person set them; None if nobody has."""

    run: str | None
    recipe_name: str
    overrides: tuple[str, ...]


def told(
    params: Mapping[str, Any], said: Mapping[str, Any] | None, last: Mapping[str, Any] | None, run_id: str
) -> tuple[Told, str]:
    """A poll's recipe and overrides, and their origin in words.

    The schedule sends no form: it uses what a person last sent, or the form's default if nobody has sent anything.
    """
    if not said and last:
        return Told(last["run"], last["recipe_name"], _lines(last["overrides"])), f"as set in {last['run']}"
    origin = FORM if said else "the form's default, because nobody has triggered this DAG by hand"
    return Told(run_id if said else None, params["recipe"], _lines(params["overrides"])), origin


def _lines(overrides: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(line.strip() for line in overrides or () if line.strip())


def uses(request: Request, recipe: Recipe, crawls: str = "") -> str:
    """One line for a run's log and note: its recipe or resolved run, crawl, source, origin and overrides.

    `crawls`: the words for a run that is not of a single crawl.
    """
    what = f"run {request.run}" if request.run else f"recipe {request.recipe}"
    named = ", ".join(recipe.snapshots) or request.crawl
    crawls = crawls or (f"crawl {named}" if named else "the newest crawl")
    overrides = " ".join(line for line in request.overrides if not line.startswith(SOURCE))
    changed = f"; with {textwrap.shorten(overrides, 400, placeholder=' ...')}" if overrides else ""
    return printable(masked(f"{USES}{what}, {crawls} of {recipe.crawl.source}, {request.origin}{changed}"))


def wanted(request: Request) -> Recipe:
    """The recipe of a request, before its crawl is listed. Raises GristmillError."""
    return recipes.load(_uri(request), request.overrides)


def fulfil(request: Request, recipe: Recipe, name: str) -> Run:
    """The run of a request: the resolved one unchanged, or a new one named after `name`. Raises GristmillError.

    recipe: the result of `wanted` for the request. Results are published under the newest crawl of the recipe's list,
    so a key or form that names another crawl is refused.
    """
    named = _agrees(request, recipe)
    if request.run and not request.overrides:
        return open_run(request.run)
    return resolve(
        _uri(request), run_name(name), request.overrides, [request.crawl] if request.crawl and not named else []
    )


def _uri(request: Request) -> str:
    return request.run or recipe_uri(request.recipe)


def _agrees(request: Request, recipe: Recipe) -> bool:
    """Whether the recipe names its crawls. Raises RecipeError if the request's crawl is not the newest of them."""
    if request.crawl:
        snapshot_date(request.crawl)
    if request.crawl and recipe.snapshots and request.crawl != newest_crawl(recipe):
        raise RecipeError(
            f"crawl {request.crawl}: the recipe {request.run or request.recipe} names "
            f"{', '.join(recipe.snapshots)} and runs as {newest_crawl(recipe)}; "
            "leave `snapshots` empty to take any crawl"
        )
    return bool(recipe.snapshots)


def run_name(name: str) -> str:
    """The folder name for an Airflow run's name.

    Example: `corpus.manual__2026-11-20T14:00:00+00:00` -> `corpus.manual__2026-11-20T14-00-00-00-00`.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def crawl_of(run: Run) -> str:
    """The partition key under which a run's results are published: its newest crawl."""
    return newest_crawl(run.recipe)
