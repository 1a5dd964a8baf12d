"""The trigger form, the same few fields on every DAG, and how a run turns what they say into a resolved recipe."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.sdk import Param

from contract import recipe as recipes
from contract.errors import RecipeError
from contract.plan import Run, open_run, resolve
from contract.recipe import Recipe
from contract.sources import snapshot_date

RECIPES = Path(os.environ.get("GRISTMILL_RECIPES") or Path(__file__).resolve().parents[2] / "recipes")
DEFAULT_RECIPE = os.environ.get("GRISTMILL_RECIPE", "tiny")


def recipe_names() -> list[str]:
    """The recipes that the form offers: files in the recipes folder, without `.yaml`."""
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def recipe_uri(name: str) -> str:
    """A name from the recipes folder as its path; a path or URI as it is."""
    named = "/" not in name and not name.endswith(".yaml")
    if named and not (RECIPES / f"{name}.yaml").exists():
        raise RecipeError(
            f"recipe {name!r}: no such file in {RECIPES}; there are {', '.join(recipe_names())}; or give a path or URI that ends in .yaml"
        )
    return str(RECIPES / f"{name}.yaml") if named else name


def poll_params() -> dict[str, Param]:
    """The form of `crawl_refresh`."""
    return {
        "recipe": Param(
            DEFAULT_RECIPE,
            type="string",
            minLength=1,
            title="Recipe",
            examples=recipe_names(),
            description_md="A file in `recipes/`, or any other recipe's path or URI.",
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
    form = poll_params()
    return {
        "recipe": form["recipe"],
        "snapshot": Param(
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
            description_md="To go on with an earlier run instead: the URI of its `recipe.yaml`.",
        ),
    }


@dataclass(frozen=True)
class Request:
    """What a DAG run asks for, whoever started it: a resolved run, or a recipe to resolve."""

    run: str | None
    recipe: str
    overrides: tuple[str, ...]
    snapshot: str | None


def read_request(
    params: Mapping[str, Any], partition_key: str | None, events: Sequence[Mapping[str, Any] | None]
) -> Request:
    """Combine the form, the partition key and the extras of the triggering asset events (oldest first).

    An event of a finished stage carries the `recipe` URI of its run. An event of a new crawl carries `recipe_name` and `overrides`. A run
    started by hand or as a backfill has no event. Raises RecipeError where the form and the key name different crawls, and where the form
    names a resolved run together with what can no longer change in it.
    """
    extra = next((dict(one) for one in reversed(events) if one), {})
    overrides = tuple(line.strip() for line in extra.get("overrides", params["overrides"]) or () if line.strip())
    snapshot = params.get("snapshot") or None
    if snapshot and partition_key and snapshot != partition_key:
        raise RecipeError(
            f"snapshot {snapshot}: the run's partition key is {partition_key}; leave one of the two empty"
        )
    given = [name for name, value in (("snapshot", snapshot), ("overrides", overrides)) if value]
    if params.get("run") and given and not extra:
        raise RecipeError(
            f"{' and '.join(given)}: the resolved run {params['run']} is as it is; leave {' and '.join(given)} empty, or leave run empty"
        )
    return Request(
        run=extra.get("recipe") or params.get("run") or None,
        recipe=extra.get("recipe_name") or params["recipe"],
        overrides=overrides,
        snapshot=snapshot or partition_key,
    )


def fulfil(request: Request, name: str) -> Run:
    """Open the resolved run, or resolve one under a name made from `name`. Raises GristmillError.

    Results are published under the newest crawl of the recipe's list, so a key or form that names another is refused.
    """
    if request.run:
        run = open_run(request.run)
        _agrees(request, run.recipe, request.run)
        return run
    uri = recipe_uri(request.recipe)
    named = _agrees(request, recipes.load(uri, request.overrides), request.recipe)
    return resolve(uri, run_name(name), request.overrides, [request.snapshot] if request.snapshot and not named else [])


def _agrees(request: Request, recipe: Recipe, name: str) -> bool:
    """Does the recipe name its crawls itself? Raises RecipeError where the request's crawl is not the newest of them."""
    if request.snapshot:
        snapshot_date(request.snapshot)
    if request.snapshot and recipe.snapshots and request.snapshot != newest_crawl(recipe):
        raise RecipeError(
            f"snapshot {request.snapshot}: the recipe {name} names {', '.join(recipe.snapshots)} and runs as {newest_crawl(recipe)}; "
            "leave `snapshots` empty to take any crawl"
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
