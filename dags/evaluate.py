"""Measures every model of a run on the same held-out data, and exports the last one as a folder for `transformers`."""

from airflow.sdk import DAG

from contract.stages import stages_of
from gristmill_airflow.assets import ALIGNED, EXPORTED
from gristmill_airflow.graph import RETRIES, connect, resolve, stages
from gristmill_airflow.params import stage_params
from gristmill_airflow.timetable import CrawlAssetTimetable

with DAG(
    dag_id="evaluate",
    description="How good the models are, and the last one to take away",
    schedule=CrawlAssetTimetable(ALIGNED),
    params=stage_params(),
    default_args=RETRIES,
    is_paused_upon_creation=False,
    tags=["gristmill"],
    doc_md=__doc__,
):
    connect(stages(stages_of("evaluate"), export={"outlets": [EXPORTED]}), first=resolve())
