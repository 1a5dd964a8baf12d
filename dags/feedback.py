"""One round of feedback: replies are sampled, people compare them, and the model is aligned anew with their votes.

In: the asset `aligned`, a chat model. Out: the asset `aligned`, the model that learned from this round and from all
before; it is measured against the model of the last round.

While this DAG is switched on, each aligned model starts a round, so a round starts the next one: at once, or at the
time that the recipe's `feedback.schedule` names. By hand, name a run in the form under *Resolved run*, or take the page
*New run*. A round waits for its votes without a slot of a pool.
"""

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TriggerRule

from contract.stages import ALIGNING, stages_of
from gristmill_airflow.assets import ALIGNED
from gristmill_airflow.feedback import COLLECTED, Due, Votes, collect, compare
from gristmill_airflow.graph import ask_before_ppo, common, connect, publish_last, resolve, stages
from gristmill_airflow.params import stage_params
from gristmill_airflow.stage import RUN
from gristmill_airflow.timetable import CrawlAssetTimetable

AGAIN = ("preferences", "prompts", "reward", "gate", *ALIGNING, "judge", "evaluate")

with DAG(
    dag_id="feedback",
    dag_display_name="5 Feedback",
    description="People compare replies, and the model learns from it",
    schedule=CrawlAssetTimetable(ALIGNED),
    params=stage_params(),
    is_paused_upon_creation=True,
    **common("gpu", "spark"),
    doc_md=__doc__,
):
    sampled = stages(stages_of("feedback"))["sample"]
    resolve() >> Due() >> sampled
    voted, judged = Votes(), compare(RUN)
    sampled >> [voted, judged]
    collected = collect(RUN, voted.output)
    # People voted for days: a judge that fails does not take their round away. `votes` must have succeeded.
    judged >> EmptyOperator(task_id="judged", trigger_rule=TriggerRule.ALL_DONE) >> collected
    options = {name: {"recipe": COLLECTED} for name in AGAIN}
    options |= {name: {"recipe": COLLECTED, "needs_open_gate": True} for name in ALIGNING}
    options["evaluate"]["trigger_rule"] = TriggerRule.NONE_FAILED  # what does not align is skipped
    operators = stages(AGAIN, **options)
    connect(operators, first=collected)
    ask_before_ppo(operators, COLLECTED)
    operators["evaluate"] >> publish_last(ALIGNED, *ALIGNING, otherwise="gate", recipe=COLLECTED)
