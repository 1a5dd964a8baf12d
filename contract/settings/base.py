"""What all settings have in common: the frozen class, bounded numbers, plain text, and URIs."""

import os
from collections.abc import Iterator
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)

from contract.printable import HIDDEN

MOST = 1 << 40  # of pages, bytes, tokens, steps: more than anybody has, and it still adds up in 64 bits


def _number(given: Any) -> Any:
    """YAML's `true` is no number."""
    if isinstance(given, bool):
        raise ValueError(f"should be a number, not {str(given).lower()}")
    return given


def _plain(text: str) -> str:
    """No file, server or table can be named with a control character, and a line of a log would be torn by it."""
    if HIDDEN.search(text):
        raise ValueError(f"should hold no control characters, got {text[:80]!r}")
    return text


def _absolute(uri: str) -> str:
    """A relative path means the same to every later task, wherever it runs."""
    return uri if "://" in uri else os.path.abspath(os.path.expanduser(uri))


def _public(uri: str) -> str:
    """A source's address is copied into Airflow's database and into recipes, so it holds no secret; and paths are put after it."""
    if uri.lower().startswith(("http://", "https://")) and set(uri) & set("@?#"):
        raise ValueError(
            "should be a plain address, without user:password@, ? and #; put name and password into ~/.netrc, where they are found"
        )
    return uri


Real = Annotated[float, BeforeValidator(_number)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
BelowOne = Annotated[Real, Field(ge=0, lt=1)]  # a share that leaves some; AdamW's betas, of which it refuses 1
NotNegative = Annotated[Real, Field(ge=0, le=1e12)]  # a threshold that nothing reaches switches its rule off
Weight = Annotated[Real, Field(ge=0, le=1e6)]  # of a term in a loss; beyond it the other terms vanish in float32
Rate = Annotated[Real, Field(gt=0, le=1)]  # AdamW moves a weight by about this much a step
Epochs = Annotated[Real, Field(ge=0, le=100)]  # of text; more than 40 add nothing (Muennighoff et al. 2023)
Positive = Annotated[int, Field(gt=0, le=MOST, strict=True)]  # strict: `true` is no number
Count = Annotated[int, Field(ge=0, le=MOST, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32, strict=True)]  # what every generator of random numbers takes
Batch = Annotated[int, Field(gt=0, le=1 << 20, strict=True)]  # rows of a step; GPT-3's had 1,600 sequences
Rows = Annotated[int, Field(gt=0, le=1 << 24, strict=True)]  # held in one process's memory
Length = Annotated[int, Field(gt=0, le=1 << 20, strict=True)]  # tokens in one sequence, which attention reads at once
Passes = Annotated[int, Field(gt=0, le=1000, strict=True)]  # over the same data
Pieces = Annotated[
    int, Field(gt=0, le=100_000, strict=True)
]  # tasks or files, of each of which a driver keeps a record
Text = Annotated[str, AfterValidator(_plain)]
_ABSOLUTE = AfterValidator(_absolute)
Uri = Annotated[str, Field(min_length=1), AfterValidator(_plain), _ABSOLUTE]
"""What is read or written somewhere, as `Settings.uris` lists it. Whatever is opened has this type."""


def runtime_only(default: Any, **constraints: Any) -> Any:
    """A field that changes speed or place but not output; `fingerprint` leaves it out."""
    return Field(default, json_schema_extra={"runtime_only": True}, **constraints)


class Settings(BaseModel):
    """Frozen, and strict about names: a misspelt key is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """The settings that decide the output, as plain JSON values, without the run-time-only ones."""
        kept: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("runtime_only"):
                continue
            value = getattr(self, name)
            kept[name] = (
                value.identity() if isinstance(value, Settings) else self.model_dump(mode="json", include={name})[name]
            )
        return kept

    def outside(self) -> dict[str, str]:
        """Files or folders that the stage reads from outside the pipeline: key of the setting -> URI. They are part of its identity."""
        return {}

    def uris(self, above: str = "") -> Iterator[tuple[str, str]]:
        """(dotted key, URI) of everything that these settings and those below them say to open."""
        for name, field in type(self).model_fields.items():
            yield from _uris(f"{above}{name}", getattr(self, name), (field.annotation, *field.metadata))


def _uris(key: str, value: Any, kind: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    """`kind` is the field's annotation and what stands beside it."""
    if isinstance(value, Settings):
        yield from value.uris(f"{key}.")
    elif isinstance(value, dict | tuple):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _uris(f"{key}.{name}", one, kind)
    elif isinstance(value, str):
        parts = list(_parts_of(kind))
        if _ABSOLUTE in parts and value not in parts:  # a word that the type itself names is no URI
            yield key, value


def _parts_of(kind: tuple[Any, ...]) -> Iterator[Any]:
    """What a type is made of, down to its validators and literals."""
    for one in kind:
        yield one
        yield from _parts_of(get_args(one))
