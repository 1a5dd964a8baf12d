"""Identities: a default may change only with the version of the stages that read it.

After a new setting or a raised version: .venv/bin/python -m docs.generate
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from contract.recipe import DEFAULTS
from contract.settings.base import Settings
from contract.settings.filter import DropsIf
from contract.stages import STAGES

FILE = Path(__file__).with_name("defaults.json")


def defaults(stage: str) -> dict[str, Any]:
    """Dotted key -> default of every setting that a stage reads, its own and those it declares."""
    read: dict[str, Any] = {}
    for key in (stage, *STAGES[stage].settings):
        value = DEFAULTS.at(key)
        read |= dict(leaves(value, key)) if isinstance(value, Settings) else {key: _json(value)}
    return read


def leaves(settings: Settings, path: str) -> Iterator[tuple[str, Any]]:
    """The thresholds of `filter` are left out: its identity holds every rule that is asked, so no version need be raised."""
    for name, field in type(settings).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("runtime_only"):
            continue
        if any(isinstance(one, DropsIf) for one in field.metadata):
            continue
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from leaves(value, f"{path}.{name}")
        else:
            yield f"{path}.{name}", _json(value)
            for entry in entries(field.annotation):
                usual = ((key, one.default) for key, one in entry.model_fields.items() if not one.is_required())
                yield from ((f"{path}.{name}.*.{key}", _json(default)) for key, default in usual)


def entries(annotation: Any) -> Iterator[type[Settings]]:
    """The types of settings that a table or tuple of settings holds: an identity leaves out their defaults, too."""
    for part in get_args(annotation):
        if isinstance(part, type) and issubclass(part, Settings):
            yield part
        else:
            yield from entries(part)


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def committed() -> dict[str, dict[str, dict[str, Any]]]:
    """Stage -> version -> defaults."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def changes(known: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What became of the defaults of one version: a changed or removed one makes results that lie."""
    return [
        f"{key}: {value} -> {now[key]}" if key in now else f"{key} is gone"
        for key, value in known.items()
        if key not in now or now[key] != value
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_a_default_changes_only_with_the_version_of_the_stages_that_read_it(stage: str) -> None:
    known = committed().get(stage, {}).get(str(STAGES[stage].version))
    assert known is not None, f"write down the defaults of {stage}'s new version: python -m docs.generate"
    assert changes(known, defaults(stage)) == [], f"raise the version of {stage} in contract/stages.py"
    assert defaults(stage) == known, f"write down {stage}'s new settings: python -m docs.generate"


def test_changed_and_removed_defaults_are_told_apart_from_new_ones() -> None:
    assert changes({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}) == []
    assert changes({"a": 1, "b": 2}, {"a": 3}) == ["a: 1 -> 3", "b is gone"]


def table() -> str:
    """The committed table with new versions and new settings; refuses a default that changed within a version."""
    table = committed()
    for name, stage in STAGES.items():
        versions = table.setdefault(name, {})
        known = versions.get(str(stage.version), {})
        if wrong := changes(known, defaults(name)):
            raise SystemExit(f"{name}: {'; '.join(wrong)}; raise its version in contract/stages.py")
        versions[str(stage.version)] = defaults(name)
    return json.dumps(table, indent=1) + "\n"
