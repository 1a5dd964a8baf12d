"""Links from a task in Airflow's UI to its pages in the cockpit.

They are computed from the ids of DAG, run and task alone, so that tasks that wait, run, failed or were skipped have
them, too. `plugin` registers them; Airflow shows a link unless its address is empty.
"""

from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink, conf

from contract.stages import STAGES, Stage
from gristmill_airflow.cockpit import PREFIX
from gristmill_airflow.stage import StageOperator


def address(*parts: str, **query: str) -> str:
    """The address of a page of the cockpit, below the path at which people reach Airflow."""
    base = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    path = "/".join(quote(part, safe="") for part in parts)
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return f"{base}{PREFIX}/{path}" + (f"?{asked}" if asked else "")


def stage_of(ti_key: Any) -> Stage | None:
    """The stage of a task: the last part of its id, which may carry a group's name. None for other tasks."""
    return STAGES.get(str(ti_key.task_id).rpartition(".")[2])


def page(ti_key: Any) -> str:
    """The page of a task: its curves if it trains, measures or judges models, and else its run's funnel."""
    stage = stage_of(ti_key)
    if stage is None or stage.plane == "spark" or stage.name == "export":
        return address("run", ti_key.dag_id, ti_key.run_id)
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


class PageLink(_Link):
    name = "Page"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return page(ti_key)


class ManifestLink(_Link):
    name = "Manifest"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return manifest(ti_key)


class WhyLink(_Link):
    name = "Why dropped"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return why(ti_key)


LINKS = (PageLink(), ManifestLink(), WhyLink())
