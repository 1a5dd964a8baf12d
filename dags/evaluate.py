"""Measures every model of a run on the same held-out data, and exports the last one as a folder for `transformers`.

In: the asset `aligned`, and the models and held-out text before it. Out: the asset `exported`, and the measures:
perplexity, PPO's win rate, samples, and what the models can do in the benchmarks that the recipe names.

To ask another model, trigger it with an override such as `benchmark.others={mine: /models/mine}`.
"""

from airflow.sdk import DAG, TriggerRule

from contract.stages import STAGES, stages_of
from gristmill_airflow.assets import ALIGNED, EXPORTED
from gristmill_airflow.graph import benchmark, common, connect, resolve, stages
from gristmill_airflow.params import stage_params
from gristmill_airflow.timetable import CrawlAssetTimetable

with DAG(
    dag_id="evaluate",
    dag_display_name="4 Evaluate",
    description="How good the models are, and the last one to take away",
    schedule=CrawlAssetTimetable(ALIGNED),
    params=stage_params(),
    is_paused_upon_creation=False,
    **common("gpu"),
    doc_md=__doc__,
):
    first = resolve()
    once = [name for name in stages_of("evaluate") if STAGES[name].scope == "corpus"]
    late = {"trigger_rule": TriggerRule.NONE_FAILED}  # a recipe without benchmarks skips them
    operators = stages(once, abilities=late, export={"outlets": [EXPORTED]})
    connect(benchmark("evaluate", first) | operators, first)
