"""Tells notifiers of a run that failed, or that has waited in the queue for too long.

`GRISTMILL_ON_FAILURE` lists their import paths: functions that take Airflow's context, or instances of its notifiers.
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

    Airflow would count until the end of the run; `on_dag_run_running` removes the deadline when the run starts.
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
    """Remove our own deadline from a run that starts: training may take days. The scheduler commits the change.

    Airflow calls this for the runs of every DAG, also of those that are not Gristmill's.
    """
    waiting = [one for one in dag_run.deadlines if not one.missed and one.callback.data.get("path") == TOO_LONG]
    for one in waiting:
        dag_run.deadlines.remove(one)


async def queued_too_long(hours: float, context: Mapping[str, Any] | None = None) -> str:
    """Tell the notifiers that a run has waited for `hours`. Runs in the triggerer; the line also goes to its log."""
    run = (context or {}).get("dag_run") or {}
    said = f"run {run.get('dag_run_id')} of {run.get('dag_id')} has waited {hours:g} hours in the queue"
    log.warning("%s: is the DAG paused, or does an earlier run take all its places?", said)
    await asyncio.to_thread(tell, {**(context or {}), "reason": said})
    return said


TOO_LONG = f"{queued_too_long.__module__}.{queued_too_long.__name__}"  # the import path that Airflow keeps


def tell(context: Any) -> None:
    """Call every notifier with the context. One that fails is logged, and the others are still called."""
    for path in notifier_paths():
        try:
            module, _, name = path.rpartition(".")
            getattr(import_module(module), name)(context)
        except Exception:
            log.exception("notifier %s failed", path)
