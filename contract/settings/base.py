"""The types that all settings share: the frozen base class, bounded numbers, plain text, and URIs."""

import os
from collections.abc import Iterator
from typing import Annotated, Any, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from contract.printable import HIDDEN

MOST = 1 << 46  # pages, bytes, tokens or steps: more than anybody has, and sums of it still fit into 64 bits


def _number(given: Any) -> Any:
    """Refuse YAML's `true` and `false`, which pydantic would take for 1 and 0."""
    if isinstance(given, bool):
        raise ValueError(f"should be a number, not {str(given).lower()}")
    return given


def _plain(text: str) -> str:
    """Refuse control characters: no name of a file, server or table needs them, and they would break lines of a log."""
    if HIDDEN.search(text):
        raise ValueError(f"should hold no control characters, got {text[:80]!r}")
    return text


def _absolute(uri: str) -> str:
    """Make a local path absolute, so that it means the same to every later task, wherever the task runs."""
    return uri if "://" in uri else os.path.abspath(os.path.expanduser(uri))


def _public(uri: str) -> str:
    """Refuse an HTTP address with a secret, because recipes and Airflow's database store it, or with a query.

    A query is refused because paths are appended to the address.
    """
    if uri.lower().startswith(("http://", "https://")) and set(uri) & set("@?#"):
        raise ValueError(
            "should be a plain address, without user:password@, ? and #; "
            "put name and password into ~/.netrc, where they are found"
        )
    return uri


Real = Annotated[float, BeforeValidator(_number)]
Fraction = Annotated[Real, Field(ge=0, le=1)]
BelowOne = Annotated[Real, Field(ge=0, lt=1)]  # a share that is not all; also AdamW's betas, which must be below 1
NotNegative = Annotated[Real, Field(ge=0, le=1e12)]  # a threshold; one that no document reaches switches its rule off
Weight = Annotated[Real, Field(ge=0, le=1e6)]  # of a loss term; above it the other terms vanish in float32
Rate = Annotated[Real, Field(gt=0, le=1)]  # a learning rate: AdamW moves a weight by about this much per step
Epochs = Annotated[Real, Field(ge=0, le=100)]  # passes over text; more than 40 add nothing (Muennighoff et al. 2023)
Positive = Annotated[int, Field(gt=0, le=MOST, strict=True)]  # strict, because pydantic takes `true` for 1
Count = Annotated[int, Field(ge=0, le=MOST, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32, strict=True)]  # the range that every random number generator accepts
Batch = Annotated[int, Field(gt=0, le=1 << 20, strict=True)]  # rows per step; GPT-3 had 1,600 sequences per step
Rows = Annotated[int, Field(gt=0, le=1 << 24, strict=True)]  # rows that one process holds in memory
Length = Annotated[int, Field(gt=0, le=1 << 20, strict=True)]  # tokens per sequence; attention reads them all at once
Passes = Annotated[int, Field(gt=0, le=1000, strict=True)]  # over the same data
Pieces = Annotated[int, Field(gt=0, le=100_000, strict=True)]  # tasks or files; a driver keeps a record of each
Text = Annotated[str, AfterValidator(_plain)]
_ABSOLUTE = AfterValidator(_absolute)
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]  # of a result of another run
Uri = Annotated[str, Field(min_length=1), AfterValidator(_plain), _ABSOLUTE]
"""A URI or path. Every setting that names something to open has this type, so that `Settings.uris` lists it."""


def runtime_only(default: Any, **constraints: Any) -> Any:
    """A field that changes speed or place but not output; fingerprints leave it out."""
    return Field(default, json_schema_extra={"runtime_only": True}, **constraints)


class Settings(BaseModel):
    """The base of all settings: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_own_defaults(cls, given: Any) -> Any:
        """Let a section that sets one key of an inner section keep its own defaults for the inner section's others."""
        if not isinstance(given, dict):
            return given
        inner = {
            name: _special(field.default, given[name])
            for name, field in cls.model_fields.items()
            if isinstance(field.default, Settings) and isinstance(given.get(name), dict)
        }
        return {**given, **inner}

    def differences(self, default: "Settings", above: str = "") -> Iterator[tuple[str, Any]]:
        """Yield (dotted key, JSON value) of each setting that decides the output and differs from `default`.

        Settings that are run-time-only decide nothing, and neither does any other setting where `enabled` is false.
        """
        off = getattr(self, "enabled", True) is False
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if (isinstance(extra, dict) and extra.get("runtime_only")) or (off and name != "enabled"):
                continue
            value, usual = getattr(self, name), getattr(default, name)
            if isinstance(value, Settings) and isinstance(usual, Settings):
                yield from value.differences(usual, f"{above}{name}.")
            elif value != usual:
                plain = self.model_dump(mode="json", include={name})[name]
                if isinstance(value, dict) and any(isinstance(item, Settings) for item in value.values()):
                    plain = {key: _chosen(item) for key, item in value.items()}
                yield f"{above}{name}", plain

    def outside(self) -> dict[str, str]:
        """Key of a setting -> URI of the file or folder outside the pipeline that it names.

        The content of these files is part of the fingerprint of the stage that reads them.
        """
        return {}

    def results(self) -> dict[str, tuple[str, ...]]:
        """Stage -> fingerprints of its results in other runs of the store, over the whole corpus, that are read.

        They take the place of the run's own result of that stage.
        """
        return {}

    def beside(self) -> dict[str, tuple[str, ...]]:
        """The same of results that are read beside the run's own result of that stage."""
        return {}

    def of_partition(self, partition: str) -> Self:
        """What of these settings decides one partition of the stage; all of them unless a section says otherwise."""
        return self

    def uris(self, above: str = "") -> Iterator[tuple[str, str]]:
        """Yield (dotted key, URI) of everything that these settings, and settings nested in them, name to open."""
        for name, field in type(self).model_fields.items():
            yield from _uris(f"{above}{name}", getattr(self, name), (field.annotation, *field.metadata))


def _chosen(item: Settings) -> dict[str, Any]:
    """The fields of an entry of a table of settings that decide the output and are not at their default.

    Of a section that is unset by default: what differs from the defaults of its own type.
    """
    chosen: dict[str, Any] = {}
    for name, field in type(item).model_fields.items():
        value, extra = getattr(item, name), field.json_schema_extra
        if (isinstance(extra, dict) and extra.get("runtime_only")) or value == field.default:
            continue
        plain = item.model_dump(mode="json", include={name})[name]
        chosen[name] = dict(value.differences(type(value)())) if isinstance(value, Settings) else plain
    return chosen


def _special(default: Settings, given: dict[str, Any]) -> dict[str, Any]:
    """`given` with the values of `default` that are not its type's, where `given` says nothing."""
    merged = dict(given)
    for name, field in type(default).model_fields.items():
        value = getattr(default, name)
        if isinstance(value, Settings) and isinstance(given.get(name), dict):
            merged[name] = _special(value, given[name])
        elif name not in given and value != field.default:
            merged[name] = value
    return merged


def _uris(key: str, value: Any, kind: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, URI) of a value. `kind` is the field's annotation and metadata."""
    if isinstance(value, Settings):
        yield from value.uris(f"{key}.")
    elif isinstance(value, dict | tuple):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _uris(f"{key}.{name}", item, kind)
    elif isinstance(value, str):
        parts = list(_parts_of(kind))
        if _ABSOLUTE in parts and value not in parts:  # words that the type itself lists are not URIs
            yield key, value


def _parts_of(kind: tuple[Any, ...]) -> Iterator[Any]:
    """Yield every part of a type, down to its validators and literals."""
    for part in kind:
        yield part
        yield from _parts_of(get_args(part))
