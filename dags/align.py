"""A base model to a chat model: instruction tuning, reward model, gate, PPO (or DPO or GRPO, if the recipe's `align`
says so).

In: the asset `pretrained`, and the instructions and preferences of its corpus. Out: the asset `aligned`, which is the
model that was aligned, or the tuned model if the gate finds the reward model too weak or a person rejects it
(`gate.approval`). If the recipe names benchmarks, both models then answer them.
"""

from airflow.sdk import DAG

from contract.stages import ALIGNING, stages_of
from gristmill_airflow.assets import ALIGNED, PRETRAINED
from gristmill_airflow.graph import ask_before_ppo, benchmark, common, connect, publish_last, resolve, stages
from gristmill_airflow.params import stage_params
from gristmill_airflow.timetable import CrawlAssetTimetable

with DAG(
    dag_id="align",
    dag_display_name="3 Align",
    description="A base model to a chat model",
    schedule=CrawlAssetTimetable(PRETRAINED),
    params=stage_params(),
    is_paused_upon_creation=False,
    **common("gpu"),
    doc_md=__doc__,
):
    operators = stages(stages_of("align"), **{one: {"needs_open_gate": True} for one in ALIGNING})
    first = resolve()
    connect(operators | benchmark("align", first), first)
    ask_before_ppo(operators)
    last = [operators[name] for name in ("gate", *ALIGNING)]
    last >> publish_last(ALIGNED, *ALIGNING, otherwise="gate")
