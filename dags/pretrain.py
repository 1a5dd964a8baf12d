"""Next-token prediction on a packed corpus. Killed at any step, it resumes from its last checkpoint.

In: the asset `corpus`, its tokens and its tokenizer. Out: the asset `pretrained`, a base model with its curves. If the
recipe names benchmarks, the base model then answers them.
"""

from airflow.sdk import DAG

from contract.stages import stages_of
from gristmill_airflow.assets import CORPUS, PRETRAINED
from gristmill_airflow.graph import benchmark, common, connect, resolve, stages
from gristmill_airflow.params import stage_params
from gristmill_airflow.timetable import CrawlAssetTimetable

with DAG(
    dag_id="pretrain",
    dag_display_name="2 Pretrain",
    description="A corpus to a base model",
    schedule=CrawlAssetTimetable(CORPUS),
    params=stage_params(),
    is_paused_upon_creation=False,
    **common("gpu"),
    doc_md=__doc__,
):
    first = resolve()
    operators = stages(stages_of("pretrain"), pretrain={"outlets": [PRETRAINED]})
    connect(operators | benchmark("pretrain", first), first)
