"""Next-token prediction on a packed corpus. Killed at any step, it resumes from its last checkpoint."""

from airflow.sdk import DAG

from contract.stages import stages_of
from gristmill_airflow.assets import CORPUS, PRETRAINED
from gristmill_airflow.graph import RETRIES, connect, resolve, stages
from gristmill_airflow.params import stage_params
from gristmill_airflow.timetable import CrawlAssetTimetable

with DAG(
    dag_id="pretrain",
    description="A corpus to a base model",
    schedule=CrawlAssetTimetable(CORPUS),
    params=stage_params(),
    default_args=RETRIES,
    is_paused_upon_creation=False,
    tags=["gristmill"],
    doc_md=__doc__,
):
    connect(stages(stages_of("pretrain"), pretrain={"outlets": [PRETRAINED]}), first=resolve())
