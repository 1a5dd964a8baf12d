"""A base model to a chat model: instruction tuning, reward model, gate, PPO.

If the gate finds the reward model too weak, PPO is skipped and the tuned model is the result.
"""

from airflow.sdk import DAG

from contract.stages import stages_of
from gristmill_airflow.assets import ALIGNED, PRETRAINED
from gristmill_airflow.graph import RETRIES, connect, publish_last, resolve, stages
from gristmill_airflow.params import stage_params
from gristmill_airflow.timetable import CrawlAssetTimetable

with DAG(
    dag_id="align",
    description="A base model to a chat model",
    schedule=CrawlAssetTimetable(PRETRAINED),
    params=stage_params(),
    default_args=RETRIES,
    is_paused_upon_creation=False,
    tags=["gristmill"],
    doc_md=__doc__,
):
    operators = stages(stages_of("align"), ppo={"needs_open_gate": True})
    connect(operators, first=resolve())
    [operators["gate"], operators["ppo"]] >> publish_last(ALIGNED, stage="ppo", otherwise="gate")
