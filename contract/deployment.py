"""What the administrator of a deployment fixes, and no recipe, form, event or override may change.

That is the store, where Spark runs, the folder of recipes, and the roots of whatever recipes may read. It stands in a YAML file that the
environment variable GRISTMILL_DEPLOYMENT names, for everything that runs Gristmill: Airflow's components and its workers. Who may trigger
a DAG can then choose among what recipes offer, but cannot run code as the worker or use its keys elsewhere. Without the variable a recipe
decides everything, as on a laptop.
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
        raise ValueError(f"should be a folder of this machine, as an absolute path, got {path[:80]!r}")
    return path


def _root(uri: str) -> str:
    """Not resolved where it is a link: what a link leads to may change."""
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
    """What the file holds. Memory and partitions of Spark stay the recipe's."""

    store: Uri
    recipes: Annotated[Uri, AfterValidator(_folder)]
    """The folder of recipes; the trigger form takes names below it."""
    roots: tuple[Annotated[Uri, AfterValidator(_root)], ...] = ()
    """Folders, `s3://bucket/prefix` and `https://host/path` below which lies all that a recipe may read: crawls, lists, models, examples."""
    spark: SparkPlace = SparkPlace()

    @cached_property
    def places(self) -> tuple["Parts", ...]:
        """The roots as URIs are held against them."""
        return tuple(_parts(root) for root in self.roots)

    def check_recipe(self, place: str, digest: str | None) -> None:
        """Raises RecipeError, before anything is read, for a URI that is no recipe of the folder and no resolved run of the store.

        Who may write the store may have changed a run since: only the digest in its URI tells, so it is demanded.
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
        """The recipe with the deployment's store and Spark. Raises RecipeError where it names others, or reads what lies below no root."""
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

    def check_files(self, uris: Iterable[str]) -> None:
        """Raises RecipeError for the first crawl file that lies below no root, which a list or a link can name."""
        for uri in uris:
            if why := self.refuses(uri):
                raise RecipeError(f"crawl file {uri} {why}; {WHO}")

    def refuses(self, uri: str) -> str | None:
        """Why a recipe may not read a URI or path; None where it lies below a root."""
        try:
            parts = _parts(uri)
        except ValueError as error:
            return str(error)
        return None if any(_lies_below(parts, root) for root in self.places) else "lies below none of the roots"


def current() -> Deployment | None:
    """The deployment that the environment names, or None. Raises SetupError for a file that lacks a key or that others may write."""
    path = os.environ.get(VARIABLE)
    if path is None:
        return None
    told = f"{VARIABLE}={path}: "
    if not path:
        raise SetupError(f"{VARIABLE} is set and names no file; name it, or unset the variable where recipes decide")
    try:
        info = Path(path).stat()
        if info.st_uid not in (0, os.getuid()):
            raise SetupError(f"{told}belongs to user {info.st_uid}; it should be root's or this user's")
        if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise SetupError(f"{told}others than its owner may write it; run: chmod go-w {path}")
        made = Deployment.model_validate(plainyaml.load(Path(path).read_text()))
        home = Store(made.store)
        if not home.is_s3:
            store, recipes = _parts(home.root), _parts(made.recipes)
            if _lies_below(store, recipes) or _lies_below(recipes, store):
                raise SetupError(
                    f"{told}store and recipes lie within one another, so that who writes the store writes recipes"
                )
        if not os.path.isdir(made.recipes):
            raise SetupError(f"{told}recipes: {made.recipes} is no folder of this machine")
        return made
    except OSError as error:
        raise SetupError(f"{told}cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise SetupError(told + "; ".join(mistakes.explain(one, Deployment) for one in error.errors())) from None
    except plainyaml.ERRORS as error:
        raise SetupError(f"{told}is not valid YAML: {mistakes.where(error)}") from None


Parts = tuple[str, ...]


def _lies_below(parts: Parts, root: Parts) -> bool:
    """Name by name, so that `s3://a` is no root of `s3://ab`."""
    return parts[: len(root)] == root


def _parts(uri: str) -> Parts:
    """Scheme, host and the names of a path. Raises ValueError for what one reader may take for another place than the next.

    A local path is the file's one path without links and dots. Elsewhere nobody can be asked: dots and empty names, plain or encoded, and
    names before a host are refused.
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
    """Whether a server may read the path as another one. What is encoded twice is decoded by some."""
    read = unquote(path)
    names: Iterator[Any] = (name for text in (path, read) if text for name in text.split("/"))
    return any(name in ("", ".", "..") for name in names) or "\\" in read or bool(ENCODED.search(read))
