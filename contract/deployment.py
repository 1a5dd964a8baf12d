"""The deployment: settings that the administrator fixes, and that no recipe, form, event or override may change.

They are the store, where Spark runs, the folder of recipes, and the roots below which recipes may read. They stand in
a YAML file that the environment variable GRISTMILL_DEPLOYMENT names; set it for everything that runs Gristmill, that
is, Airflow's components and its workers. A user who may trigger a DAG can then choose among the recipes, but cannot run
code as the worker or use its keys elsewhere. Without the variable a recipe decides everything, as on a laptop.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

from pydantic import AfterValidator, Field, ValidationError

from contract import mistakes, plainyaml
from contract.errors import RecipeError, SetupError
from contract.settings.base import Settings, Text, Uri
from contract.settings.spark import Master
from contract.store import Store, split_uri

if TYPE_CHECKING:
    from contract.recipe import Recipe

VARIABLE = "GRISTMILL_DEPLOYMENT"
WHO = f"the administrator decides that in the file that {VARIABLE} names"
RUN = re.compile(r"/runs/[A-Za-z0-9][A-Za-z0-9._+:-]*/recipe\.yaml")
HOST = re.compile(r"[A-Za-z0-9.:_\[\]-]+")
ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
PORTS = {"http": ":80", "https": ":443"}


def _folder(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"should be a folder on this machine, as an absolute path, got {path[:80]!r}")
    return path


def _root(uri: str) -> str:
    """The root as written; its links are followed only when it is used, because their targets may change."""
    try:
        _parts(uri)
    except ValueError as error:
        raise ValueError(f"{uri[:80]!r} {error}") from None
    return uri


class SparkPlace(Settings):
    """Where Spark runs, and its properties."""

    master: Master = "local[*]"
    conf: dict[Text, Text] = Field(default_factory=dict)


class Deployment(Settings):
    """The content of the deployment's file. Spark's memory and partitions are still set by recipes."""

    store: Uri
    recipes: Annotated[Uri, AfterValidator(_folder)]
    """The folder of recipes; the trigger form takes names of files below it."""
    roots: tuple[Annotated[Uri, AfterValidator(_root)], ...] = ()
    """Folders, `s3://bucket/prefix` and `https://host/path`.

    A recipe may read only what lies below one of them: crawls, lists, models, examples.
    """
    spark: SparkPlace = SparkPlace()

    @cached_property
    def places(self) -> tuple["Parts", ...]:
        """The roots, split into parts to compare URIs with."""
        return tuple(_parts(root) for root in self.roots)

    def check_recipe(self, place: str, digest: str | None) -> None:
        """Raise RecipeError for a URI that is neither a recipe in the folder nor a resolved run in the store.

        It reads nothing.

        A resolved run needs a digest: anyone who can write the store may have changed the run since it was resolved,
        and only the digest shows it.
        """
        store, name = split_uri(place)
        if not store.is_s3 and _lies_below(_parts(f"{store.root}/{name}"), _parts(self.recipes)):
            return
        home = Store(self.store).uri
        full = store.full(name)
        if not full.startswith(home) or not RUN.fullmatch(full.removeprefix(home)):
            raise RecipeError(
                f"recipe {place}: is neither a recipe in {self.recipes} nor a resolved run in {home}; {WHO}"
            )
        if digest is None:
            raise RecipeError(
                f"recipe {place}: a resolved run is opened here only by the URI that ends in #sha256= and its digest, "
                "as the task `resolve` logs it"
            )

    def impose(self, recipe: "Recipe", origin: str) -> "Recipe":
        """The recipe with the deployment's store and Spark settings.

        Raises RecipeError if the recipe names others, or reads something that lies below no root.
        """
        spark, home = recipe.spark, Store(self.store).uri
        others = {
            "store": "store" in recipe.model_fields_set and Store(recipe.store).uri != home,
            "spark.master": "master" in spark.model_fields_set and spark.master != self.spark.master,
            "spark.conf": "conf" in spark.model_fields_set and spark.conf != self.spark.conf,
        }
        for key, is_another in others.items():
            if is_another:
                raise RecipeError(
                    f"recipe {origin}: {key} is not a recipe's to choose here; leave it out, because {WHO}"
                )
        for key, uri in recipe.uris():
            if key != "store" and (why := self.refuses(uri)):
                raise RecipeError(f"recipe {origin}: {key}: {uri} {why}; {WHO}")
        return recipe.model_copy(update={"store": home, "spark": spark.model_copy(update=dict(self.spark))})

    def check_files(self, uris: Iterable[str], kind: str = "crawl file") -> None:
        """Raise RecipeError for the first file below no root; a list of paths or a link can name such files."""
        for uri in uris:
            if why := self.refuses(uri):
                raise RecipeError(f"{kind} {uri} {why}; {WHO}")

    def refuses(self, uri: str) -> str | None:
        """Why a recipe may not read a URI or path, or None if it lies below a root."""
        try:
            parts = _parts(uri)
        except ValueError as error:
            return str(error)
        return None if any(_lies_below(parts, root) for root in self.places) else "lies below none of the roots"


def current() -> Deployment | None:
    """The deployment that the environment names, or None.

    Raises SetupError if its file is missing or invalid, or if others may write it.
    """
    path = os.environ.get(VARIABLE)
    if path is None:
        return None
    prefix = f"{VARIABLE}={path}: "
    if not path:
        raise SetupError(f"{VARIABLE} is set and names no file; name it, or unset the variable where recipes decide")
    try:
        info = Path(path).stat()
        if info.st_uid not in (0, os.getuid()):
            raise SetupError(f"{prefix}belongs to user {info.st_uid}; it should be root's or this user's")
        if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise SetupError(f"{prefix}others than its owner may write it; run: chmod go-w {path}")
        deployment = Deployment.model_validate(plainyaml.load(Path(path).read_text()))
        home = Store(deployment.store)
        if not home.is_s3:
            store, recipes = _parts(home.root), _parts(deployment.recipes)
            if _lies_below(store, recipes) or _lies_below(recipes, store):
                raise SetupError(
                    f"{prefix}store and recipes lie within one another, so that who writes the store writes recipes"
                )
        if not os.path.isdir(deployment.recipes):
            raise SetupError(f"{prefix}recipes: {deployment.recipes} is not a folder on this machine")
        return deployment
    except OSError as error:
        raise SetupError(f"{prefix}cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise SetupError(prefix + "; ".join(str(mistakes.explain(one, Deployment)) for one in error.errors())) from None
    except plainyaml.ERRORS as error:
        raise SetupError(f"{prefix}is not valid YAML: {mistakes.where(error)}") from None


Parts = tuple[str, ...]


def _lies_below(parts: Parts, root: Parts) -> bool:
    """Whether a place lies below a root. Compares whole names, so that `s3://ab` does not lie below `s3://a`."""
    return parts[: len(root)] == root


def _parts(uri: str) -> Parts:
    """Split a URI or path into scheme, host and the names of its path. Raises ValueError for an ambiguous one.

    A local path is first resolved to the real path, without links and dots. A remote path cannot be resolved, so dots
    and empty names, plain or encoded, and user names before a host are refused: two servers may read them differently.
    """
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    if not separator or scheme == "file":
        path = rest if separator else uri
        if not path.startswith("/"):
            raise ValueError("is no absolute path")
        return ("file", "", *filter(None, os.path.realpath(path).split("/")))
    host, _, path = rest.partition("/")
    if scheme in PORTS:
        host = host.lower().removesuffix(PORTS[scheme])
    if not HOST.fullmatch(host):
        raise ValueError("holds more than a host's name before the path")
    if _ambiguous(path.removesuffix("/")) or (scheme in PORTS and set(path) & set("?#")):
        raise ValueError("should be a plain path, without `//`, `.`, `..`, `?`, `#`, backslashes, also encoded")
    return (scheme, host, *filter(None, path.split("/")))


def _ambiguous(path: str) -> bool:
    """Whether servers may differ on what the path means. Some decode names that are encoded twice."""
    read = unquote(path)
    names: Iterator[Any] = (name for text in (path, read) if text for name in text.split("/"))
    return any(name in ("", ".", "..") for name in names) or "\\" in read or bool(ENCODED.search(read))
