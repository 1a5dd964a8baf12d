"""Who hears of a run that failed, or that has waited in the queue for too long.

`GRISTMILL_ON_FAILURE` names notifiers by import path: functions of Airflow's context, or instances of its notifiers.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any

from airflow.listeners import hookimpl
from airflow.sdk import AsyncCallback, DeadlineAlert, DeadlineReference  # type: ignore[attr-defined]

from gristmill_airflow.environment import notifier_paths, queued_hours

log = logging.getLogger(__name__)


def deadline() -> DeadlineAlert | None:
    """The alert for runs that wait longer than GRISTMILL_QUEUED_HOURS; None if that is 0.

    Airflow counts from the moment in which a run is queued to its end; `on_dag_run_running` lifts it at the start.
    """
    hours = queued_hours()
    if not hours:
        return None
    return DeadlineAlert(
        name=f"started within {hours:g} hours",
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=hours),
        callback=AsyncCallback(queued_too_long, kwargs={"hours": hours}),
    )


@hookimpl
def on_dag_run_running(dag_run: Any, msg: str) -> None:
    """Lift the deadline of a run that starts: training may take days. The scheduler commits the change."""
    dag_run.deadlines = [one for one in dag_run.deadlines if one.missed]


async def queued_too_long(hours: float, context: Mapping[str, Any] | None = None) -> str:
    """Tell the notifiers that a run has waited for `hours`. Runs in the triggerer; the line also goes to its log."""
    run = (context or {}).get("dag_run") or {}
    said = f"run {run.get('dag_run_id')} of {run.get('dag_id')} has waited {hours:g} hours in the queue"
    log.warning("%s: is the DAG paused, or does an earlier run take all its places?", said)
    await asyncio.to_thread(tell, {**(context or {}), "reason": said})
    return said


def tell(context: Any) -> None:
    """Call every notifier with the context. One that fails is logged, and the others are still called."""
    for path in notifier_paths():
        try:
            module, _, name = path.rpartition(".")
            getattr(import_module(module), name)(context)
        except Exception:
            log.exception("notifier %s failed", path)
