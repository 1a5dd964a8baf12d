"""Measures every model of a run on the same held-out data, and exports the last one as a folder for `transformers`.

In: the asset `aligned`, and the models and held-out text before it. Out: the asset `exported`, and the measures:
perplexity, PPO's win rate, and samples.
"""

from airflow.sdk import DAG

from contract.stages import stages_of
from gristmill_airflow.assets import ALIGNED, EXPORTED
from gristmill_airflow.graph import common, connect, resolve, stages
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
    connect(stages(stages_of("evaluate"), export={"outlets": [EXPORTED]}), first=resolve())
