"""Explains a mistake in settings in one line: where it is, what is wrong, and what is allowed there."""

import difflib
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

WANTED = {
    "tuple_type": "should be a list, as in [a, b]",
    "dict_type": "should be pairs, as in {name: value}",
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
}  # instead of pydantic's messages, which name Python's types

MOVED = {
    "sft.data": "instructions.data",
    "sft.max_examples": "instructions.max_examples",
    "reward.data": "preferences.data",
    "reward.max_examples": "preferences.max_examples",
    "reward.heldout_fraction": "preferences.heldout_fraction",
}
"""A key of earlier versions -> the key that took its place."""


@dataclass(frozen=True)
class Mistake:
    """One mistake in settings: its key, what is wrong, and which override made it, counted from 0.

    `key` is dotted; it is empty if the mistake is about several keys, which the message names then. `line` is None if
    no override made it.
    """

    key: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


def where(error: Exception) -> str:
    """What is wrong and where, without quoting the line: it may be the wrong file, and hold secrets."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{error.problem} at line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


def explain(detail: Any, root: type[BaseModel]) -> Mistake:
    """What is wrong with a key, and what is allowed there. `detail` is one of pydantic's errors for the class `root`.

    A value that should hold keys and values but does not is not quoted: it may be the wrong file, and hold secrets.
    """
    location = [part for part in detail["loc"] if part not in ("function-after", "[key]")]
    path = ".".join(str(part) for part in location)
    if not path and detail["type"] == "value_error":  # about several keys; the message names them
        return Mistake("", str(detail["msg"].removeprefix("Value error, ")))
    if not path:
        return Mistake("", f"must hold keys and values, not a {type(detail['input']).__name__}")
    if detail["type"] == "extra_forbidden" and path in MOVED:
        return Mistake(path, f"unknown key; it is now {MOVED[path]}")
    if detail["type"] == "extra_forbidden":
        allowed = _allowed_keys(root, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return Mistake(path, f"unknown key; {hint}allowed here: {', '.join(allowed)}")
    message = WANTED.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    got = "" if detail["type"] == "value_error" else f", got {shown(detail['input'])}"
    return Mistake(path, f"{message}{got}")


def at_line(mistake: Mistake, keys: Sequence[str]) -> Mistake:
    """The mistake with the override that made it. `keys` are the dotted keys of the overrides, in order.

    That is the last one that sets the mistake's key or a section around it; if none does, one that sets a key below it
    or one that the message names. It may be none: then the recipe's file is wrong.
    """
    around = [line for line, key in enumerate(keys) if key and f"{mistake.key}.".startswith(f"{key}.")]
    below = [line for line, key in enumerate(keys) if not mistake.key or key.startswith(f"{mistake.key}.")]
    named = [line for line in below if keys[line] and _names(mistake, keys[line])]
    lines = around or named or (below if mistake.key else [])
    return replace(mistake, line=lines[-1] if lines else None)


def _names(mistake: Mistake, key: str) -> bool:
    """Whether the message names a key: whole, without its section, or as it is called below the mistake's key."""
    below = key.removeprefix(f"{mistake.key}.") if mistake.key else key.partition(".")[2]
    return key in mistake.message or bool(below and below in mistake.message)


def shown(value: Any) -> str:
    """A refused value, shortened: it may be a whole file, or a number with more digits than Python prints."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 100
    try:
        return short.repr(value)
    except ValueError:
        return "a number of thousands of digits"


def _allowed_keys(root: type[BaseModel], path: list[Any]) -> list[str]:
    node: Any = root
    for part in path:
        # A free-form mapping such as curate.sources.<name> takes any name, and a list any place.
        node = get_args(node)[1] if get_origin(node) is dict else _section(node).model_fields[part].annotation
        if get_origin(node) is tuple:
            node = dict[int, get_args(node)[0]]  # type: ignore[misc]  # (X, ...): any place holds an X
    return sorted(_section(node).model_fields)


def _section(annotation: Any) -> type[BaseModel]:
    """The settings that a field holds, also if it may be unset, as `rules: Filter | None`."""
    kinds = [annotation, *get_args(annotation)]
    return next(one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel))
