"""The trigger form, the same few fields on every DAG, and how a run turns what they say into a resolved recipe."""

import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.sdk import Param

from contract import deployment
from contract import recipe as recipes
from contract.errors import RecipeError
from contract.masking import masked
from contract.plan import Run, open_run, resolve
from contract.printable import printable
from contract.recipe import Recipe
from contract.sources import snapshot_date
from gristmill_airflow.known import SOURCE, kept
from gristmill_airflow.note import USES

FORM, KEPT, HANDED_ON = "as the form says", "as crawl_refresh keeps it", "as the DAG before it"
RECIPE = "A file in the folder of recipes, or where no deployment is set, any other recipe's path or URI."
RECIPES = Path(os.environ.get("GRISTMILL_RECIPES") or Path(__file__).resolve().parents[2] / "recipes")
DEFAULT_RECIPE = os.environ.get("GRISTMILL_RECIPE", "sample")


def recipes_folder() -> Path:
    """Where named recipes lie: the deployment says so, or GRISTMILL_RECIPES."""
    fixed = deployment.current()
    return Path(fixed.recipes) if fixed else RECIPES


def recipe_names() -> list[str]:
    """The recipes that the form offers: files in the recipes folder, without `.yaml`."""
    return sorted(file.stem for file in recipes_folder().glob("*.yaml"))


def recipe_uri(name: str) -> str:
    """A name from the recipes folder as its path; a path or URI as it is."""
    named = "/" not in name and not name.endswith(".yaml")
    file = recipes_folder() / f"{name}.yaml"
    if named and not file.exists():
        raise RecipeError(
            f"recipe {name!r}: no such file in {file.parent}; there are {', '.join(recipe_names())}; or give a path or URI that ends in .yaml"
        )
    return str(file) if named else name


def poll_params(about: str = RECIPE) -> dict[str, Param]:
    """The form of `crawl_refresh`. `about` explains its first field."""
    return {
        "recipe": Param(
            DEFAULT_RECIPE,
            type="string",
            minLength=1,
            title="Recipe",
            examples=sorted({DEFAULT_RECIPE, *recipe_names()}),
            description_md=about,
        ),
        "overrides": Param(
            [],
            type=["array", "null"],
            items={"type": "string"},
            title="Overrides",
            description_md="One a line, for example `filter.min_words=40` or `crawl.source=/data/warc`.",
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
            description_md="For example `CC-MAIN-2024-10`. Empty: the newest that the recipe's source has.",
        ),
        "overrides": form["overrides"],
        "run": Param(
            None,
            type=["null", "string"],
            title="Resolved run",
            description_md=(
                "Instead of a recipe: the URI of an earlier run's `recipe.yaml`. Goes on with that run; with overrides, makes a new run "
                "of the same crawl from its recipe and them."
            ),
        ),
    }


@dataclass(frozen=True)
class Request:
    """What a DAG run asks for, whoever started it: a resolved run or a recipe, changed by overrides, over one crawl or the newest.

    origin: who says so, in words for the log.
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
    """Combine the form, the partition key, the extras of the triggering asset events (oldest first) and what polls kept of crawls.

    An event of a finished stage carries the `recipe` URI of its run. An event of a new crawl carries `recipe_name` and `overrides`. A run
    started by hand or as a backfill has no event. `said` is what of the form a person sent: all of it from the web UI's trigger form,
    nothing from a backfill unless its parameters were ticked. Where it names no recipe, the one that a poll kept beside the crawl
    counts, and overrides come on top of the kept ones. Raises RecipeError where form and key name different crawls, where the form
    names a resolved run together with a crawl, and where several sources offer the crawl.
    """
    said = params if said is None else said
    extra = next((dict(one) for one in reversed(events) if one), {})
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
    """What `crawl_refresh` goes by: a recipe and overrides, and the run by which a person said so; None where nobody has."""

    run: str | None
    recipe_name: str
    overrides: tuple[str, ...]


def told(
    params: Mapping[str, Any], said: Mapping[str, Any] | None, last: Mapping[str, Any] | None, run_id: str
) -> tuple[Told, str]:
    """What a poll goes by, and who says so. The schedule sends no form: it does what a person last said, and only else the default."""
    if not said and last:
        return Told(last["run"], last["recipe_name"], _lines(last["overrides"])), f"as {last['run']} was told"
    origin = FORM if said else "the form's default, because nobody has triggered this DAG by hand"
    return Told(run_id if said else None, params["recipe"], _lines(params["overrides"])), origin


def _lines(overrides: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(line.strip() for line in overrides or () if line.strip())


def uses(request: Request, recipe: Recipe, crawls: str = "") -> str:
    """What a run uses, in one line for its log and its note: recipe or run, crawl, source, who says so, and overrides.

    `crawls`: what to call them where the run is of no single one.
    """
    what = f"run {request.run}" if request.run else f"recipe {request.recipe}"
    named = ", ".join(recipe.snapshots) or request.crawl
    crawls = crawls or (f"crawl {named}" if named else "the newest crawl")
    overrides = " ".join(line for line in request.overrides if not line.startswith(SOURCE))
    changed = f"; with {textwrap.shorten(overrides, 400, placeholder=' ...')}" if overrides else ""
    return printable(masked(f"{USES}{what}, {crawls} of {recipe.crawl.source}, {request.origin}{changed}"))


def wanted(request: Request) -> Recipe:
    """The recipe that a request asks for, before its crawl is listed. Raises GristmillError."""
    return recipes.load(_uri(request), request.overrides)


def fulfil(request: Request, recipe: Recipe, name: str) -> Run:
    """The run that a request asks for: the resolved one as it is, or a new one named after `name`. Raises GristmillError.

    recipe: what `wanted` has read for the request.

    Results are published under the newest crawl of the recipe's list, so a key or form that names another is refused.
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
    """Does the recipe name its crawls itself? Raises RecipeError where the request's crawl is not the newest of them."""
    if request.crawl:
        snapshot_date(request.crawl)
    if request.crawl and recipe.snapshots and request.crawl != newest_crawl(recipe):
        raise RecipeError(
            f"crawl {request.crawl}: the recipe {request.run or request.recipe} names {', '.join(recipe.snapshots)} and runs as "
            f"{newest_crawl(recipe)}; leave `snapshots` empty to take any crawl"
        )
    return bool(recipe.snapshots)


def run_name(name: str) -> str:
    """An Airflow run's name as a folder's: `corpus.manual__2026-11-20T14:00:00+00:00` -> `corpus.manual__2026-11-20T14-00-00-00-00`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def crawl_of(run: Run) -> str:
    """The partition key under which a run's results are published: its newest crawl."""
    return newest_crawl(run.recipe)


def newest_crawl(recipe: Recipe) -> str:
    """The newest of the crawls that a recipe names."""
    return max(recipe.snapshots, key=lambda key: (snapshot_date(key), key))
