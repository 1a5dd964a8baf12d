"""The recipes that forms offer by name: the files of one folder, and the administrator's default."""

import os
from pathlib import Path

from contract import deployment
from contract.errors import RecipeError
from contract.shipped import shipped

RECIPES = Path(os.environ.get("GRISTMILL_RECIPES") or shipped("recipes"))
DEFAULT_RECIPE = os.environ.get("GRISTMILL_RECIPE", "sample")


def recipes_folder() -> Path:
    """The folder of named recipes: the deployment's if one is set, else RECIPES."""
    fixed = deployment.current()
    return Path(fixed.recipes) if fixed else RECIPES


def recipe_names() -> list[str]:
    """The files in the recipes folder, without `.yaml`."""
    return sorted(file.stem for file in recipes_folder().glob("*.yaml"))


def offered() -> list[str]:
    """Every recipe that a form offers: the names, and the default, which may be a path."""
    return sorted({DEFAULT_RECIPE, *recipe_names()})


def recipe_uri(name: str) -> str:
    """The path of a name from the recipes folder; a path or URI is returned unchanged."""
    named = "/" not in name and not name.endswith(".yaml")
    file = recipes_folder() / f"{name}.yaml"
    if named and not file.exists():
        raise RecipeError(
            f"recipe {name!r}: no such file in {file.parent}; there are {', '.join(recipe_names())}; "
            "or give a path or URI that ends in .yaml"
        )
    return str(file) if named else name
