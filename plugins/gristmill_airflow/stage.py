"""`StageOperator` runs one stage over one partition: if no manifest exists, it launches the work and waits."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.sdk.log import mask_secret

from contract.approval import without_ppo
from contract.errors import GristmillError, Interrupted, NotReadyError
from contract.figures import MOST, figures
from contract.headline import headline, omitted, warnings
from contract.manifest import Manifest, find
from contract.masking import secrets_in
from contract.plan import WHOLE, Run, Task, open_run
from contract.stages import ALIGNING, STAGES
from gristmill_airflow.documentation import task_doc
from gristmill_airflow.launch import GRACE_S, Child, command, device_locks, lock_path, shown, verdict
from gristmill_airflow.output import awaited, ending, graded
from gristmill_airflow.params import crawl_of
from gristmill_airflow.result import FIGURES, SUMMARY, WAITS

log = logging.getLogger(__name__)

POOLS = {"spark": "spark", "gpu": "gpu", "local": "default_pool"}
# A template instead of an XComArg, which would draw an edge to every stage.
RUN = "{{ ti.xcom_pull(task_ids='resolve', map_indexes=None) }}"
RESUME_AT_ONCE = ExceptionRetryPolicy(
    [RetryRule(Interrupted, RetryAction.RETRY, timedelta(0), "stopped after committing its progress")]
)


class StageOperator(BaseOperator):
    """Runs one stage of the table; its XCom is the manifest's URI.

    Under the key `summary` it also leaves the stage's headline, and under `figures` the few figures that asset events
    carry. While another task has the machine's accelerator, it says so under `waits`.

    recipe: URI of the resolved run, from the DAG's first task. partition: a segment of a crawl, or the whole corpus.
    needs_open_gate: skip the stage if the gate's manifest says that the reward model is not good enough, or if a person
    refused it.
    """

    template_fields = ("recipe", "partition")

    def __init__(
        self, *, stage: str, recipe: str = RUN, partition: str = WHOLE, needs_open_gate: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{**usual(stage), **kwargs})
        self.stage = stage
        self.recipe = recipe
        self.partition = partition
        self.needs_open_gate = needs_open_gate
        self._child: Child | None = None

    def execute(self, context: Any) -> str:
        with reported():
            run = open_run(self.recipe)
            hide(run.recipe.crawl.source)
            task = run.task(self.stage, self.partition)
            uri = f"{run.store.full(task.prefix)}/manifest.json"
            manifest = find(run.store, task)
            if manifest:
                for warning in (*warnings(manifest), *stale(run, task, manifest)):
                    self.log.warning("warning: %s", warning)
                said = headline(manifest)
                self.log.info("done already, skipped: %s (%s)", said, uri)
            else:
                self._require_gate(context, run, task)
                self._require_inputs(run, task)
                manifest = self._launch(context, run, task, uri)
                said = headline(manifest)
                self.log.info("%s", said)
        context["ti"].xcom_push(key=SUMMARY, value=said)
        context["ti"].xcom_push(key=FIGURES, value=figures(manifest))
        publish(context, run, manifest)
        return uri

    def on_kill(self) -> None:
        if self._child:
            self._child.stop()

    def _require_inputs(self, run: Run, task: Task) -> None:
        """Raise NotReadyError if an input of another DAG is missing; edges ensure inputs of the same DAG.

        Only the aligned model may be missing, because the gate may have skipped it.
        """
        for needed in task.inputs:
            dag = STAGES[needed.stage].dag
            if dag != self.dag_id and needed.stage not in ALIGNING and find(run.store, needed) is None:
                raise NotReadyError(
                    f"{needed.stage} {needed.partition} is not done; start the DAG {dag} for this crawl first"
                )

    def _require_gate(self, context: Any, run: Run, task: Task) -> None:
        gate = find(run.store, run.task("gate")) if self.needs_open_gate else None
        why: str | None = omitted(run.recipe, task.stage, None) if self.needs_open_gate else None
        why = why or (without_ppo(run.store, gate, task) if gate else None)
        if why:
            self.log.info("%s", why)
            context["ti"].xcom_push(key=SUMMARY, value=why)
            raise AirflowSkipException(why)

    def _launch(self, context: Any, run: Run, task: Task, uri: str) -> Manifest:
        arguments, devices = command(run, task), device_locks(run, task)
        self.log.info("will run: %s", shown(arguments))
        self.log.info("manifest will be: %s", uri)
        name = f"{task.stage} {task.partition} of {run.uri}"
        self._child = Child(arguments, lock_path(run, task), GRACE_S[STAGES[task.stage].plane], name, devices)
        told = ""
        for level, line in graded(self._child.lines()):
            self.log.log(level, "%s", line)
            if (waits := awaited(line)) != told:  # the page of the run shows it
                context["ti"].xcom_push(key=WAITS, value=waits)
                told = waits
        code = self._child.code
        reason = self._child.errors[-1] if self._child.errors else f"{self.stage} {ending(code)}"
        match verdict(code):
            case "fail":
                raise AirflowFailException(reason)
            case "resume":
                raise Interrupted(reason)
            case "retry":
                raise AirflowException(reason)
        manifest = find(run.store, task)
        if manifest is None:
            raise AirflowException(f"{self.stage} ended without an error but left no manifest at {uri}")
        return manifest


def usual(stage: str) -> dict[str, Any]:
    """The arguments that Airflow's base operator gets for a stage, unless others are given."""
    return {
        "task_id": stage,
        "pool": POOLS[STAGES[stage].plane],
        "retry_policy": RESUME_AT_ONCE,
        "doc_md": task_doc(stage),
    }


def stale(run: Run, task: Task, manifest: Manifest) -> list[str]:
    """A warning if a result was made before the PPO model that it should include, as after a refusal; else nothing."""
    done = (find(run.store, one) for stage in ALIGNING for one in task.of(stage))
    place = run.store.full(manifest.path)
    said = f"made before PPO was done, so it lacks the PPO model; delete {place} and clear this task to include it"
    return [said for ppo in done if ppo and ppo.finished > manifest.finished]


def hide(text: str) -> None:
    """Have Airflow mask the secrets of the URIs in a text, in all its output."""
    for secret in secrets_in(text):
        mask_secret(secret)


@contextmanager
def reported(again: bool = True) -> Iterator[None]:
    """Turn GristmillErrors into Airflow's: errors that a retry cannot change fail at once. Drops the traceback.

    again: False if a person is waiting, so that no error is worth a retry.
    """
    try:
        yield
    except Interrupted:
        raise
    except GristmillError as error:
        log.error("error: %s", error)
        failure = AirflowException if again and verdict(error.exit_code) == "retry" else AirflowFailException
        raise failure(str(error)) from None


def publish(context: Any, run: Run, manifest: Manifest, *others: Manifest) -> None:
    """Publish an event for each of the task's outlets, under the crawl's name, for the DAGs downstream.

    The event's `extra`, which the Assets page shows, also has the headline and the figures of the manifest, and of
    `others` as far as there is room.
    """
    said = figures(manifest)
    for one in others:
        said = {**said, **{name: value for name, value in figures(one).items() if name not in said}}
    shown = dict(list(said.items())[:MOST])
    for asset in context["task"].outlets:
        event = context["outlet_events"][asset]
        uri = run.store.full(manifest.path)
        event.extra = {"recipe": run.uri, "manifest": uri, "summary": headline(manifest), "figures": shown}
        event.add_partitions(crawl_of(run))
