"""The keys of a recipe with what the code says of each: what a person may override, and what it means."""

import ast
import inspect
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, get_args

from contract.recipe import DEFAULTS
from contract.settings.base import Settings
from contract.settings.filter import DropsIf
from reports.again import in_one_line

MOST_CHARS = 300  # of what is said of a key


@dataclass(frozen=True)
class Key:
    """One setting: its dotted key, its default as YAML in one line, and what its docstring says."""

    name: str
    default: str
    about: str


@cache
def keys() -> tuple[Key, ...]:
    """Every setting of a recipe, in the order of its sections."""
    return tuple(_below(DEFAULTS, ""))


def _below(settings: Settings, above: str) -> Iterator[Key]:
    about = _docstrings(type(settings))
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _below(value, f"{above}{name}.")
            continue
        plain = settings.model_dump(mode="json", include={name})[name]
        if isinstance(field.default, str) and value == os.path.abspath(field.default):
            plain = field.default  # a path as written, before it was made absolute on this machine
        said = about.get(name) or _about_rule(field.metadata) or _about_section(field.annotation)
        yield Key(f"{above}{name}", in_one_line(plain), textwrap.shorten(said, MOST_CHARS, placeholder=" ..."))


def _about_rule(metadata: Iterable[Any]) -> str:
    """What a threshold drops, if it is one of a filter's rules."""
    for rule in (one for one in metadata if isinstance(one, DropsIf)):
        return f"Drops a document if {rule.score} {rule.comparison} this, as {rule.reason} ({rule.source})."
    return ""


def _about_section(annotation: Any) -> str:
    """What a class of settings says of itself, where a key holds one or may hold one."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Settings):
            return inspect.getdoc(kind) or ""
    return ""


@cache
def _docstrings(kind: type[Settings]) -> dict[str, str]:
    """Field -> the docstring below it, also of the classes that `kind` inherits from."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if issubclass(one, Settings):
            found |= _in_module(one.__module__).get(one.__name__, {})
    return found


@cache
def _in_module(name: str) -> dict[str, dict[str, str]]:
    """Class -> field -> the string that stands below it, of every class in the source of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {node.name: _below_fields(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _below_fields(definition: ast.ClassDef) -> dict[str, str]:
    found: dict[str, str] = {}
    for field, below in pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
