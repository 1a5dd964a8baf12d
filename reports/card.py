"""What the card on Airflow's home page says of a run: its funnel, its gate, its last models."""

from dataclasses import dataclass
from typing import Any

from contract.figures import figures
from contract.funnel import entered
from contract.headline import headline
from contract.manifest import find
from contract.plan import Run
from contract.stages import ALIGNING
from reports.run import funnel

SHOWN = {"align": ("gate", *ALIGNING), "pretrain": ("pretrain",), "evaluate": ("evaluate",)}
"""DAG -> its stages whose headlines the card shows."""


@dataclass(frozen=True)
class Step:
    """A stage of the funnel. share: of all documents that came in."""

    stage: str
    kept: int
    share: float


def steps(run: Run) -> tuple[Step, ...]:
    """The funnel."""
    levels = funnel(run)
    shares = ((level, entered(levels, level)) for level in levels)
    return tuple(Step(level.stage, level.kept, level.kept / whole if whole else 0.0) for level, whole in shares)


def lines(run: Run, dag: str) -> dict[str, dict[str, Any]]:
    """Stage -> its `line` and `figures`, for the stages of a DAG that are done."""
    found = {stage: find(run.store, run.task(stage)) for stage in SHOWN.get(dag, ())}
    return {
        stage: {"line": headline(manifest), "figures": figures(manifest)}
        for stage, manifest in found.items()
        if manifest
    }
