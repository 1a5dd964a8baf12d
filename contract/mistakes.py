"""Explains a mistake in settings in one line: where it is, what is wrong, and what is allowed there."""

import difflib
import reprlib
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


def where(error: Exception) -> str:
    """What is wrong and where, without quoting the line: it may be the wrong file, and hold secrets."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{error.problem} at line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


def explain(detail: Any, root: type[BaseModel]) -> str:
    """What is wrong with a key, and what is allowed there. `detail` is one of pydantic's errors for the class `root`.

    A value that should hold keys and values but does not is not quoted: it may be the wrong file, and hold secrets.
    """
    location = [part for part in detail["loc"] if part not in ("function-after", "[key]")]
    path = ".".join(str(part) for part in location)
    if not path and detail["type"] == "value_error":  # about several keys; the message names them
        return str(detail["msg"].removeprefix("Value error, "))
    if not path:
        return f"must hold keys and values, not a {type(detail['input']).__name__}"
    if detail["type"] == "extra_forbidden" and path in MOVED:
        return f"{path}: unknown key; it is now {MOVED[path]}"
    if detail["type"] == "extra_forbidden":
        allowed = _allowed_keys(root, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{path}: unknown key; {hint}allowed here: {', '.join(allowed)}"
    message = WANTED.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    got = "" if detail["type"] == "value_error" else f", got {shown(detail['input'])}"
    return f"{path}: {message}{got}"


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
        # A free-form mapping such as curate.sources.<name> takes any name.
        node = get_args(node)[1] if get_origin(node) is dict else node.model_fields[part].annotation
    return sorted(node.model_fields)
