"""Every DAG file: it parses, it survives Airflow's database, and its edges are the stage table's."""

import inspect
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
from airflow.serialization.serialized_objects import DagSerialization

from contract.ablation import TRAINED
from contract.stages import ALIGNING, STAGES, Dag
from gristmill_airflow.assets import CRAWL, RESOLVED
from gristmill_airflow.documentation import task_doc
from gristmill_airflow.stage import POOLS, RUN, StageOperator

DAGS = Path(__file__).parents[2] / "dags"
SLICES = {dag: [stage.name for stage in STAGES.values() if stage.dag == dag] for dag in get_args(Dag)}

LEARNED = ("preferences", "prompts", "reward", "gate", *ALIGNING, "judge", "evaluate")
BESIDE = {"ablate": TRAINED, "feedback": LEARNED, "pretrain": ("benchmark",), "align": ("benchmark",)}
"""DAG -> stages of other DAGs that it also runs."""


@pytest.fixture(scope="module")
def bag():
    return DagBag(str(DAGS))


def stages_of(dag):
    """Stage -> its task, whose id may carry a group's name."""
    return {task.task_id.rpartition(".")[2]: task for task in dag.tasks if task.task_id.rpartition(".")[2] in STAGES}


def test_all_files_parse(bag):
    assert bag.import_errors == {}
    assert set(bag.dags) == {file.stem for file in DAGS.glob("*.py")} == {"crawl_refresh", *SLICES}


def test_every_stage_has_exactly_one_dag(bag):
    assert sorted(name for slice_ in SLICES.values() for name in slice_) == sorted(STAGES)
    for name, slice_ in SLICES.items():
        assert set(stages_of(bag.dags[name])) == {*slice_, *BESIDE.get(name, ())}


def test_an_ablation_maps_every_stage_over_what_its_variants_need(bag):
    dag = bag.dags["ablate"]
    for name in TRAINED:
        assert dag.get_task(name).is_mapped
        assert dag.get_task(name).upstream_task_ids - {*STAGES} - {"variants"} == {f"work.{name}_tasks"}
    assert not dag.get_task("ablate").is_mapped
    assert dag.get_task("ablate").upstream_task_ids == {"probe", "variants"}
    assert dag.get_task("variants").pool == "spark"
    assert not {"sft", "instructions", "evaluate"} & set(dag.task_dict)


@pytest.mark.parametrize("name", SLICES)
def test_edges_are_the_stage_tables(bag, name):
    found = stages_of(bag.dags[name])
    if name == "feedback":  # the others are those of the next run
        assert found.pop("sample").upstream_task_ids == {"due"}
    ids = {task.task_id: stage for stage, task in found.items()}
    for stage, task in found.items():
        assert {ids[one] for one in task.upstream_task_ids if one in ids} == set(STAGES[stage].reads) & set(found)
        if not set(STAGES[stage].reads) & set(found):
            assert task.upstream_task_ids & {"resolve", "segments", "variants", "collect"}


@pytest.mark.parametrize("name", SLICES)
def test_stages_wait_in_their_planes_pool_and_retry_twice(bag, name):
    for stage, task in stages_of(bag.dags[name]).items():
        assert task.pool == POOLS[STAGES[stage].plane]
        assert task.retries == 2


def test_segment_stages_are_mapped_and_corpus_stages_are_not(bag):
    dag = bag.dags["corpus"]
    for stage, task in stages_of(dag).items():
        mapped = task.task_id.startswith("segment.")
        assert mapped == (STAGES[stage].scope == "snapshot")
        if mapped:
            assert task.map_index_template == "{{ task.partition }}"


def test_dags_are_joined_by_one_asset_each(bag):
    def waits_for(name):
        return [key.name for key, _ in bag.dags[name].timetable.asset_condition.iter_assets()]

    def publishes(name):
        return [asset.name for task in bag.dags[name].tasks for asset in task.outlets if asset != RESOLVED]

    chain = ["crawl_refresh", "corpus", "pretrain", "align", "evaluate"]
    for before, after in pairwise(chain):
        assert publishes(before) == waits_for(after)


def test_a_corpus_is_published_with_its_examples(bag):
    """The DAG `align` may start at once where pretraining was done before: it must find the examples."""
    dag = bag.dags["corpus"]
    waits = dag.get_task("publish").get_flat_relative_ids(upstream=True)
    assert {name for name in SLICES["corpus"] if STAGES[name].scope == "corpus"} <= waits


def test_resolve_reads_what_polls_kept_and_tells_the_runs_note(bag):
    for name in SLICES:
        resolve = bag.dags[name].task_dict["resolve"]
        assert (resolve.inlets, resolve.outlets) == ([CRAWL], [RESOLVED])


def test_serialisation_round_trip(bag):
    for dag in bag.dags.values():
        back = DagSerialization.from_dict(DagSerialization.to_dict(dag))
        assert set(back.task_dict) == set(dag.task_dict)
        assert type(back.timetable).__name__ == type(dag.timetable).__name__
        for task in dag.tasks:
            assert back.task_dict[task.task_id].upstream_task_ids == task.upstream_task_ids
        if dag.dag_id in {*SLICES} - {"ablate"}:
            assert back.timetable.periodic


def test_only_what_aligns_asks_for_an_open_gate(bag):
    asking = [
        task.task_id
        for dag in bag.dags.values()
        for task in dag.tasks
        if isinstance(task, StageOperator) and task.needs_open_gate
    ]
    assert asking == [*ALIGNING] * 2


def test_crawl_refresh_waits_to_be_switched_on(bag):
    paused = {name: dag.is_paused_upon_creation for name, dag in bag.dags.items()}
    assert paused.pop("crawl_refresh") is not False
    assert paused.pop("feedback") is True, "it would ask people after every alignment"
    assert set(paused.values()) == {False}


PARSE = """
import runpy, sys
import airflow.sdk, airflow.plugins_manager
already = set(sys.modules)
runpy.run_path(sys.argv[1])
import gristmill_airflow.plugin
print(sorted({name.partition('.')[0] for name in set(sys.modules) - already} & {'numpy', 'pyarrow', 'pandas', 'boto3', 'torch', 'pyspark'}))
"""


@pytest.mark.parametrize("file", sorted(DAGS.glob("*.py")), ids=lambda file: file.stem)
def test_reading_a_dag_file_loads_no_table_library(file, tmp_path):
    """Airflow reads every DAG file every few seconds, each time in a new process."""
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(file)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_segments_are_checked_where_spark_can_start(bag):
    assert bag.dags["corpus"].get_task("segments").pool == "spark"


def test_every_dag_has_an_owner_tags_of_its_planes_a_deadline_and_says_what_comes_in_and_out(bag):
    for name, dag in bag.dags.items():
        planes = {STAGES[stage].plane for stage in stages_of(dag)} - {"local"}
        assert dag.tags == {"gristmill", *planes}
        assert {task.owner for task in dag.tasks} == {"gristmill"}
        assert [alert.interval.total_seconds() for alert in dag.deadline] == [6 * 3600]
        assert "\nIn: " in dag.doc_md, name
        assert " Out: " in dag.doc_md.replace("\n", " "), name
    assert sorted(dag.dag_display_name for dag in bag.dags.values())[:5] == [
        "0 Crawl refresh",
        "1 Corpus",
        "2 Pretrain",
        "3 Align",
        "4 Evaluate",
    ]


def test_a_person_may_be_asked_between_gate_and_ppo(bag):
    approval = bag.dags["align"].get_task("approval")
    assert (approval.upstream_task_ids, approval.downstream_task_ids) == ({"gate"}, {*ALIGNING})
    assert [name for name, dag in bag.dags.items() if "approval" in dag.task_dict] == ["align", "feedback"]


def test_a_round_is_sampled_voted_on_and_collected_before_anything_learns(bag):
    dag = bag.dags["feedback"]
    assert dag.get_task("due").upstream_task_ids == {"resolve"}
    assert dag.get_task("votes").upstream_task_ids == {"sample"}
    assert dag.get_task("collect").upstream_task_ids == {"votes", "judged"}
    assert dag.get_task("judged").upstream_task_ids == {"compare"}
    assert dag.get_task("compare").upstream_task_ids == {"sample"}
    for name in LEARNED:
        task = dag.get_task(name)
        assert "collect" in task.get_flat_relative_ids(upstream=True)
        assert task.recipe == "{{ ti.xcom_pull(task_ids='collect') }}"
    assert dag.get_task("approval").recipe == dag.get_task("evaluate").recipe
    assert dag.get_task("sample").recipe != dag.get_task("evaluate").recipe
    assert dag.get_task("evaluate").trigger_rule == "none_failed"
    assert dag.get_task("publish").upstream_task_ids == {"evaluate"}
    assert dag.get_task("votes").pool == "default_pool"


def ends(dag, known):
    """Task -> its state, if those of `known` end so and every other one that its trigger rule starts succeeds."""
    states = {}
    for task in dag.topological_sort():
        above = {states[name] for name in task.upstream_task_ids}
        rule, state = task.trigger_rule, "success"
        if rule != "all_done":
            if above & {"failed", "upstream_failed"}:
                state = "upstream_failed"
            elif rule == "all_success" and "skipped" in above:
                state = "skipped"
        states[task.task_id] = known.get(task.task_id, state) if state == "success" else state
    return states


@pytest.mark.parametrize("compare", ["success", "failed", "skipped"])
def test_the_votes_of_people_are_collected_whatever_becomes_of_the_judge(bag, compare):
    states = ends(bag.dags["feedback"], {"compare": compare})
    assert (states["votes"], states["compare"], states["collect"]) == ("success", compare, "success")
    assert [states[stage] for stage in LEARNED] == ["success"] * len(LEARNED)


@pytest.mark.parametrize("failed", ["resolve", "sample", "votes"])
def test_without_votes_nothing_is_collected(bag, failed):
    assert ends(bag.dags["feedback"], {failed: "failed"})["collect"] == "upstream_failed"


def test_a_round_ends_in_the_asset_that_starts_the_next_one(bag):
    dag = bag.dags["feedback"]
    [outlet] = dag.get_task("publish").outlets
    assert [key.name for key, _ in dag.timetable.asset_condition.iter_assets()] == [outlet.name] == ["aligned"]


def test_every_stage_is_documented(bag):
    for dag in bag.dags.values():
        for stage, task in stages_of(dag).items():
            assert task.doc_md == task_doc(stage)


@pytest.mark.parametrize("name", ["pretrain", "align", "evaluate"])
def test_benchmarks_are_mapped_over_what_the_recipe_names_and_stop_nothing(bag, name):
    """Airflow skips what is mapped over nothing, and with it all that waits for its success."""
    dag = bag.dags[name]
    task = dag.get_task("benchmark")
    assert task.is_mapped
    assert task.map_index_template == "{{ task.partition }}"
    assert task.trigger_rule == "none_failed", "what does not align is skipped"
    lister = dag.get_task("benchmarks")
    assert lister.upstream_task_ids == {"resolve"}
    assert [*lister.op_args] == [RUN, name], "a default would not be rendered"
    assert {*KNOWN_CONTEXT_KEYS}.isdisjoint(inspect.signature(lister.python_callable).parameters), (
        "Airflow refuses them"
    )
    made = {"pretrain": {"pretrain"}, "align": {"sft", "reward", "gate", *ALIGNING}, "evaluate": {"resolve"}}[name]
    assert task.upstream_task_ids == {"benchmarks"} | made
    assert task.downstream_task_ids == ({"abilities"} if name == "evaluate" else set())
    if name == "evaluate":
        assert dag.get_task("abilities").trigger_rule == "none_failed"
        assert dag.get_task("export").trigger_rule == "all_success"
