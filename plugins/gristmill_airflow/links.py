"""Links from a task in Airflow's UI to its pages in the cockpit.

They are computed from the ids of DAG, run and task alone, so that tasks that wait, run, failed or were skipped have
them, too. `plugin` registers them; Airflow shows a link unless its address is empty.
"""

from typing import Any, ClassVar
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

from contract.stages import STAGES, Stage
from gristmill_airflow.cockpit import root
from gristmill_airflow.stage import StageOperator

WITHOUT_CURVES = ("gate", "benchmark", "abilities", "export", "sample", "ablate")


def address(*parts: str, **query: str) -> str:
    """The address of a page of the cockpit, below the path at which people reach Airflow."""
    path = "/".join(quote(part, safe="") for part in parts)
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return f"{root()}/{path}" + (f"?{asked}" if asked else "")


def stage_of(ti_key: Any) -> Stage | None:
    """The stage of a task: the last part of its id, which may carry a group's name. None for other tasks."""
    return STAGES.get(str(ti_key.task_id).rpartition(".")[2])


def run(ti_key: Any) -> str:
    """The page with the funnel and the stages of the task's run."""
    return address("run", ti_key.dag_id, ti_key.run_id)


def curves(ti_key: Any) -> str:
    """The curves of a task that trains or measures a model; empty for others."""
    stage = stage_of(ti_key)
    if stage is None or stage.plane == "spark" or stage.name in WITHOUT_CURVES:
        return ""
    return address("training", ti_key.dag_id, ti_key.run_id, ti_key.task_id)


def decision(ti_key: Any, name: str) -> str:
    """What the gate decided, or which variant of an ablation is better; empty for tasks of other stages than `name`."""
    stage = stage_of(ti_key)
    if stage is None or stage.name != name:
        return ""
    return address("training", ti_key.dag_id, ti_key.run_id, ti_key.task_id)


def manifest(ti_key: Any) -> str:
    """The page with all that a task's manifest says."""
    index = [str(ti_key.map_index)] if ti_key.map_index >= 0 else []
    return address("manifest", ti_key.dag_id, ti_key.run_id, ti_key.task_id, *index)


def why(ti_key: Any) -> str:
    """The documents that the task's stage dropped, each with its reason; empty if it drops none."""
    stage = stage_of(ti_key)
    if stage is None or not stage.drops:
        return ""
    return address("pages", ti_key.dag_id, ti_key.run_id, stage=stage.name)


class _Link(BaseOperatorLink):
    operators: ClassVar[list[Any]] = [StageOperator]


class CurvesLink(_Link):
    name = "Curves"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return curves(ti_key)


class GateLink(_Link):
    name = "Gate decision"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return decision(ti_key, "gate")


class ComparisonLink(_Link):
    name = "Comparison of variants"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return decision(ti_key, "ablate")


class RunLink(_Link):
    name = "Funnel and stages"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return run(ti_key)


class ManifestLink(_Link):
    name = "Manifest"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return manifest(ti_key)


class WhyLink(_Link):
    name = "Dropped documents"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return why(ti_key)


LINKS = (CurvesLink(), GateLink(), ComparisonLink(), RunLink(), WhyLink(), ManifestLink())
