"""What the jobs of both planes give a stage of its run."""

from functools import cached_property
from typing import Any

from contract.plan import Run, Task
from contract.recipe import StageSettings
from contract.store import Store


class StageJob:
    """The base of a plane's Job. The run itself is private: a stage reads only the settings that its row declares."""

    _run: Run
    task: Task

    @property
    def store(self) -> Store:
        return self._run.store

    @property
    def settings(self) -> Any:
        """The stage's section of the recipe. Annotate the variable: `settings: Filter = job.settings`."""
        return self.declared.own

    def setting(self, key: str) -> Any:
        """A setting of another section that the stage table declares, by its dotted key."""
        return self.declared.of(key)

    @cached_property
    def declared(self) -> StageSettings:
        """All that the stage may read of the recipe."""
        return StageSettings(self._run.recipe, self.task.stage, self.task.partition)
