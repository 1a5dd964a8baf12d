"""What the card on Airflow's home page says of a run: its funnel, its gate, its last models."""

from dataclasses import dataclass
from typing import Any

from contract import funnel
from contract.figures import figures
from contract.headline import headline
from contract.manifest import find
from contract.plan import Run

KEPT_RUNS = 16  # whose funnels are remembered
SHOWN = {"align": ("gate", "ppo"), "pretrain": ("pretrain",), "evaluate": ("evaluate",)}
"""DAG -> its stages whose headlines the card shows."""


@dataclass(frozen=True)
class Step:
    """A stage of the funnel. share: of all documents that came in."""

    stage: str
    kept: int
    share: float


_REMEMBERED: dict[str, tuple[Step, ...]] = {}
"""URI of a run, which holds its digest -> its funnel."""


def steps(run: Run) -> tuple[Step, ...]:
    """The funnel. Of a corpus that is done it is remembered, because its manifests never change."""
    if run.uri in _REMEMBERED:
        return _REMEMBERED[run.uri]
    levels = funnel.levels(run)
    entered = {level.stage: funnel.entered(levels, level) for level in levels}
    made = tuple(
        Step(level.stage, level.kept, level.kept / entered[level.stage] if entered[level.stage] else 0.0)
        for level in levels
    )
    if find(run.store, run.task("mix")):
        while len(_REMEMBERED) >= KEPT_RUNS:
            _REMEMBERED.pop(next(iter(_REMEMBERED)), None)
        _REMEMBERED[run.uri] = made
    return made


def lines(run: Run, dag: str) -> dict[str, dict[str, Any]]:
    """Stage -> its `line` and `figures`, for the stages of a DAG that are done."""
    found = {stage: find(run.store, run.task(stage)) for stage in SHOWN.get(dag, ())}
    return {
        stage: {"line": headline(manifest), "figures": figures(manifest)}
        for stage, manifest in found.items()
        if manifest
    }
