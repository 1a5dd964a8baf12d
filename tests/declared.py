"""Runs of which a stage can read only what its row of the stage table declares. Tests run every stage with such a run."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NoReturn

from contract.plan import Run
from contract.recipe import Recipe
from contract.stages import STAGES


class Undeclared:
    """Stands for a section or a setting that a stage does not declare: any use of it fails the test."""

    def __init__(self, stage: str, key: str) -> None:
        self.__dict__.update(stage=stage, key=key)

    def _fail(self, *_: object) -> NoReturn:
        raise AssertionError(f"{self.stage} reads {self.key}, which its row in contract/stages.py does not declare")

    __getattr__ = __iter__ = __bool__ = __len__ = __eq__ = __lt__ = __gt__ = __float__ = __int__ = __str__ = _fail
    __hash__ = None  # type: ignore[assignment]


def only_declared(run: Run, stage: str) -> Run:
    """The run with a recipe of which the stage can read what its row declares; anything else fails the test.

    Where the store is and how Spark runs may be read, because no result depends on it; the crawls are the task's inputs.
    """
    run = vars(run).get("whole", run)
    declared = {stage, *STAGES[stage].settings}
    values: dict[str, Any] = {}
    for name in Recipe.model_fields:
        section = getattr(run.recipe, name)
        parts = {key.partition(".")[2] for key in declared if key.startswith(f"{name}.")}
        if name in declared or name in ("store", "snapshots", "spark"):
            values[name] = section
        elif parts:
            fields = {
                key: getattr(section, key) if key in parts else Undeclared(stage, f"{name}.{key}")
                for key in type(section).model_fields
            }
            values[name] = SimpleNamespace(**fields | {key: getattr(section, key) for key in parts})
        else:
            values[name] = Undeclared(stage, name)
    poor = replace(run, recipe=Recipe.model_construct(**values))
    vars(poor).update(_tasks=run.tasks(), whole=run)
    return poor
