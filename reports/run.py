"""What a run's page says of it: the funnel with its reasons, beside a published one."""

from dataclasses import dataclass

from contract import funnel
from contract.plan import Run
from reports import refinedweb


@dataclass(frozen=True)
class Overview:
    """A run in figures. levels: the funnel; steps: the same in RefinedWeb's steps; examples: of chat models."""

    name: str
    levels: tuple[funnel.Level, ...]
    steps: tuple[refinedweb.Step, ...]
    examples: tuple[funnel.Level, ...]


def overview(run: Run) -> Overview:
    """Read the manifests of a run."""
    levels = funnel.levels(run)
    return Overview(
        run.recipe.name, tuple(levels), tuple(refinedweb.funnel(levels)), tuple(funnel.levels(run, "examples"))
    )
