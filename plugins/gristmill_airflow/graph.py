"""The parts of the DAG files: operators and edges from the stage table, and the few tasks that are not stages."""

import importlib
import logging
from collections.abc import Iterable
from typing import Any

from airflow.sdk import Asset, TaskGroup, TriggerRule, conf, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from contract import ablation
from contract.approval import without_ppo
from contract.benchmarks import KNOWN
from contract.errors import NotReadyError
from contract.headline import omitted
from contract.manifest import find
from contract.offered import recipe_uri
from contract.plan import Run, open_run
from contract.recipe import load
from contract.sources import list_snapshots
from contract.stages import ALIGNING, STAGES, Plane
from gristmill_airflow import alerts
from gristmill_airflow.approval import Approval
from gristmill_airflow.assets import CRAWL, RESOLVED, SEEN, TOLD
from gristmill_airflow.environment import notifier_paths
from gristmill_airflow.known import at_source, report
from gristmill_airflow.launch import check
from gristmill_airflow.params import Request, crawl_of, fulfil, read_request, told, uses, wanted
from gristmill_airflow.stage import POOLS, RUN, StageOperator, hide, publish, reported, usual
from gristmill_airflow.timetable import new_crawls

log = logging.getLogger(__name__)

RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay": 5.0,
    "retry_exponential_backoff": 2,
    "max_retry_delay": 120.0,
}
OWNER = "gristmill"


def common(*planes: Plane) -> dict[str, Any]:
    """The arguments that all DAGs share; `planes` become tags, by which the UI filters."""
    return {
        "default_args": {**RETRIES, "owner": OWNER},
        "tags": [OWNER, *planes],
        "deadline": alerts.deadline(),
        "on_failure_callback": alerts.tell if notifier_paths() else None,
    }


def connect(operators: dict[str, Any], first: Any) -> None:
    """Draw the stage table's edges between the stages of one DAG; stages without inputs in it follow `first`."""
    for name, operator in operators.items():
        inside = [operators[read] for read in STAGES[name].reads if read in operators]
        operator.set_upstream(inside or [first])


def stages(names: Iterable[str], **options: dict[str, Any]) -> dict[str, StageOperator]:
    """One operator for each stage, by name; `options` holds further arguments of single stages."""
    return {name: StageOperator(stage=name, **options.get(name, {})) for name in names}


def mapped(names: Iterable[str], found: Any) -> dict[str, Any]:
    """One operator for each stage, mapped over the runs and partitions that `variants` has found for it."""
    shown = {"map_index_template": "{{ task.recipe.split('/')[-2] }} {{ task.partition }}"}
    with TaskGroup("work", tooltip="the runs and partitions of each stage"):
        work = {name: of_stage.override(task_id=f"{name}_tasks")(found, name) for name in names}
    return {name: StageOperator.partial(**usual(name), **shown, stage=name).expand_kwargs(work[name]) for name in names}


def benchmark(dag: str, first: Any) -> dict[str, Any]:
    """The stage `benchmark`, mapped over the models and benchmarks that a DAG runs; without any it is skipped."""
    found = benchmarks(RUN, dag)
    first >> found
    shown = {"map_index_template": "{{ task.partition }}", "trigger_rule": TriggerRule.NONE_FAILED}
    return {
        "benchmark": StageOperator.partial(**usual("benchmark"), **shown, stage="benchmark").expand(partition=found)
    }


@task
def benchmarks(recipe: str, of_dag: str) -> list[str]:
    """The models and benchmarks, such as `sft.mmlu`, over which a DAG maps the stage `benchmark`.

    First refuses those of code on a machine without a sandbox, where none of their programs would run.
    """
    with reported():
        run = open_run(recipe)
        found = run.mapped("benchmark", of_dag)
        if found and any(KNOWN[one.task].runs_code for one in run.recipe.benchmark.tasks.values()):
            importlib.import_module("evals.sandbox").require()
    most = conf.getint("core", "max_map_length")
    if len(found) > most:
        raise AirflowFailException(
            f"{len(found)} models and benchmarks are more than the {most} that Airflow maps at once "
            "(core.max_map_length); name fewer in benchmark.tasks, .steps or .others"
        )
    log.info("%d benchmarks of models: %s", len(found), ", ".join(found))
    return found


@task
def of_stage(found: dict[str, Any], stage: str) -> list[dict[str, str]]:
    """What `variants` has found for one stage: Airflow maps only over all that a task returns."""
    mine: list[dict[str, str]] = found[stage]
    return mine


@task(inlets=[CRAWL], outlets=[RESOLVED])
def resolve() -> str:
    """The URI of the run's resolved recipe: of the upstream DAG's run, of the run that the form names, or of a new run.

    The inlet CRAWL gives access to its state store with the polls' records. RESOLVED's event becomes the run's note.
    """
    context = get_current_context()
    events = sorted(
        (event for found in context["triggering_asset_events"].values() for event in found),
        key=lambda event: event.timestamp,
    )
    dag_run = context["dag_run"]
    state: Any = context["asset_state_store"][CRAWL]
    with reported(again=not _watched(dag_run)):
        request = read_request(
            context["params"],
            dag_run.partition_key,
            [event.extra for event in events],
            dag_run.conf or {},
            state.get(SEEN),
        )
        hide(str(request))
        recipe = wanted(request)
        log.info("%s", uses(request, recipe))
        run = fulfil(request, recipe, f"{context['dag'].dag_id}.{context['run_id']}")
        hide(run.recipe.crawl.source)
        if context["dag"].dag_id == "feedback":
            _require_model(run)
    files = sum(len(segment.files) for segment in run.segments)
    log.info("run: %s", run.uri)
    log.info("crawl: %s, %d files in %d segments", ", ".join(run.recipe.snapshots), files, len(run.segments))
    event = context["outlet_events"][RESOLVED]
    event.extra = {"recipe": run.uri, "uses": uses(request, run.recipe)}
    event.add_partitions(crawl_of(run))
    return run.uri


def _require_model(run: Run) -> None:
    """Raise NotReadyError if the model that replies in a round was never trained.

    An override of its training makes it another model, which this run does not have yet.
    """
    own = run.recipe.sample
    names, sampled = {*own.models, own.judge}, run.task("sample")
    if find(run.store, sampled) or not ("aligned" in names or ("last" in names and own.last is None)):
        return
    gate = find(run.store, run.task("gate"))
    (needed,) = sampled.read(run.recipe.align)
    if find(run.store, needed) is None and not (gate and without_ppo(run.store, gate, needed)):
        raise NotReadyError(
            f"a round needs the finished model, and {needed.stage} of this recipe is not done; an override of its "
            "training makes another model: leave it out, or run the DAG align with it first"
        )


@task(pool=POOLS["spark"])  # where Spark can start
def segments(recipe: str) -> list[str]:
    """The partitions over which the per-segment stages are mapped.

    First refuses settings that a later stage would refuse.
    """
    with reported():
        run = open_run(recipe)
        for line in check(recipe):
            log.info("%s", line)
    names = [segment.partition for segment in run.segments]
    most = conf.getint("core", "max_map_length")
    if len(names) > most:
        files = sum(len(segment.files) for segment in run.segments)
        raise AirflowFailException(
            f"{files} files in {len(names)} segments are more than the {most} that Airflow maps at once "
            f"(core.max_map_length); set crawl.files_per_segment={-(-files // most)} or more, "
            "or crawl.max_files to read a part of the crawl"
        )
    log.info("%d segments: %s", len(names), ", ".join(names))
    return names


@task(pool=POOLS["spark"], multiple_outputs=True)  # where Spark can start
def variants(recipe: str) -> dict[str, Any]:
    """Stage -> the run and partition of each task of the recipe's variants, and the run that compares them.

    First refuses settings of a variant that a later stage would refuse.
    """
    with reported():
        found = ablation.resolve(open_run(recipe))
        for run in {name: run for (name, _), run in found.runs.items()}.values():
            for line in check(run.uri):
                log.info("%s", line)
    by_stage = found.by_stage()
    most = conf.getint("core", "max_map_length")
    if (longest := max(map(len, by_stage.values()))) > most:
        raise AirflowFailException(
            f"a stage would run {longest} times for all variants, more than the {most} that Airflow maps at once "
            "(core.max_map_length); raise crawl.files_per_segment, or name fewer variants"
        )
    for (name, seed), run in found.runs.items():
        log.info("%s, seed %d: %s", name, seed, run.uri)
    return {**by_stage, "comparison": found.comparison.uri}


def ask_before_ppo(operators: dict[str, Any], recipe: str = RUN) -> None:
    """Put a person's approval between the gate and what aligns; it asks nobody unless the recipe says so."""
    operators["gate"] >> Approval(recipe=recipe) >> [operators[name] for name in ALIGNING]


def publish_last(asset: Asset, *stages: str, otherwise: str = "", recipe: str = RUN) -> Any:
    """A task that publishes the manifest of the one of `stages` that the recipe has, or if it was left out `otherwise`.

    It waits for the tasks before it, so that a DAG that the asset starts finds all of their results.
    """

    @task(task_id="publish", outlets=[asset], trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    def announce(recipe: str) -> str:
        with reported():
            run = open_run(recipe)
            chosen = [name for name in stages if not omitted(run.recipe, name, None)]
            wanted = dict.fromkeys((*chosen, otherwise or chosen[0]))
            done = list(filter(None, (find(run.store, run.task(name)) for name in wanted)))
        if not done:
            raise AirflowFailException(f"none of {', '.join(wanted)} has a manifest; nothing to publish")
        publish(get_current_context(), run, *done)
        return run.store.full(done[0].path)

    return announce(recipe)


@task(outlets=[CRAWL])
def poll() -> list[str]:
    """Publish each new crawl of the recipe's source under its name; the first poll publishes only the newest.

    Airflow publishes after the task has succeeded. If a poll is killed before, the next poll finds the same crawls
    again. Recipe, overrides and source are kept with the crawls for backfills. A person's form is kept for the
    schedule, which sends none.
    """
    context = get_current_context()
    state: Any = context["asset_state_store"][CRAWL]
    dag_run = context["dag_run"]
    with reported(again=not _watched(dag_run)):
        asked, origin = told(context["params"], dag_run.conf, state.get(TOLD), context["run_id"])
        recipe = load(recipe_uri(asked.recipe_name), asked.overrides)
        crawl = recipe.crawl
        hide(crawl.source)
        log.info("%s", uses(Request(None, asked.recipe_name, asked.overrides, None, origin), recipe, "all crawls"))
        how = {"recipe_name": asked.recipe_name, "overrides": list(asked.overrides)}
        if asked.run:
            state.set(TOLD, {**how, "run": asked.run})
        offered = list_snapshots(crawl.source)
    seen = state.get(SEEN) or {}
    fresh = new_crawls(offered, _published(seen.get(crawl.source), context))
    seen = {**seen, crawl.source: {"run": context["run_id"], "offered": offered, "fresh": fresh, **how}}
    state.set(SEEN, seen)
    for line in report(seen):
        log.info("%s", line)
    if not fresh:
        raise AirflowSkipException(f"no new crawl; the newest of {len(offered)} is {offered[0]}")
    event: Any = context["outlet_events"][CRAWL]
    event.extra = {**how, "overrides": at_source(asked.overrides, crawl.source)}
    event.add_partitions(fresh)
    return fresh


def _watched(dag_run: Any) -> bool:
    """Whether a person sent the form and so sees an error at once. Only a run that nobody watches is worth a retry."""
    return dag_run.run_type == "manual" and bool(dag_run.conf)


def _published(last: dict[str, Any] | None, context: Any) -> list[str] | None:
    """The crawls that are already published, from the last poll's record; None if there was no poll yet.

    If the last poll did not end well, the new crawls that it found do not count as published.
    """
    if last is None:
        return None
    ended_well = last["run"] != context["run_id"] and context["ti"].get_dr_count(
        dag_id=context["dag"].dag_id, run_ids=[last["run"]], states=["success"]
    )
    return [key for key in last["offered"] if ended_well or key not in last["fresh"]]
