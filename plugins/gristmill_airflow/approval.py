"""`Approval` asks a person whether PPO may start, once the gate is open, if the recipe sets `gate.approval`."""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator

from contract import approval
from contract.approval import Refusal
from contract.headline import number
from contract.manifest import Manifest, find, need
from contract.plan import Run, open_run
from contract.printable import printable
from contract.results import Gate
from gristmill_airflow.links import address
from gristmill_airflow.result import SUMMARY
from gristmill_airflow.stage import RUN, hide, reported

AFTER = ("evaluate", "abilities", "export")  # their results lack PPO if they were made after a refusal
FIGURES = (
    ("held-out accuracy of the reward model", "gate", "accuracy"),
    ("lower end of its confidence interval", "gate", "low"),
    ("upper end", "gate", "high"),
    ("threshold for the lower end", "gate", "threshold"),
    ("held-out pairs", "reward", "heldout_pairs"),
    ("held-out loss", "reward", "heldout_loss"),
    ("expected calibration error", "reward", "ece"),
)
"""What a person sees before the decision: name, stage, figure."""


class Approval(ApprovalOperator):
    """Parks in `awaiting_input` until somebody answers in the UI, or over REST. No answer in time is a refusal.

    A refusal is kept in the store; PPO then skips itself. Whom the answer came from, and when, is in the XCom and in
    the run's note. Nobody is asked if the recipe does not want it, the gate is closed, or PPO is done already.
    """

    template_fields = (*HITLOperator.template_fields, "recipe")

    def __init__(self, *, recipe: str = RUN, **kwargs: Any) -> None:
        named = {"task_id": "approval", "task_display_name": "approval (if the recipe asks)", "doc_md": __doc__}
        super().__init__(subject="May PPO start?", defaults=self.REJECT, **{**named, **kwargs})
        self.recipe = recipe

    def execute(self, context: Any) -> Any:
        with reported():
            run = open_run(self.recipe)
            hide(run.recipe.crawl.source)
            gate = need(run.store, run.task("gate"))
            why_not = unasked(run, gate)
            if why_not is None:
                self.body = body(gate, need(run.store, run.task("reward")), context["dag_run"])
                self.response_timeout = timedelta(hours=run.recipe.gate.approval_hours)
            elif Gate.of(gate).open:
                approval.allow(run.store, run.task(run.recipe.align))
        if why_not is not None:
            self.log.info("nobody is asked: %s", why_not)
            return None
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Keep the answer. Skipping is left to PPO, whose log then says why."""
        answer = HITLOperator.execute_complete(self, context, event)
        with reported():
            run = open_run(self.recipe)
            said = keep(run, answer["chosen_options"] == [self.APPROVE], answer)
            for stale in stale_after(run) if said.startswith("approved") else ():
                self.log.warning("warning: %s was made without PPO; delete it to have PPO measured", stale)
        self.log.info("PPO is %s", said)
        context["ti"].xcom_push(key=SUMMARY, value=said)
        return answer


def unasked(run: Run, gate: Manifest) -> str | None:
    """Why nobody is asked; None if somebody is."""
    if not run.recipe.gate.approval:
        return "the recipe sets no gate.approval"
    if not Gate.of(gate).open:
        return "the gate is closed"
    return "PPO is done already" if find(run.store, run.task(run.recipe.align)) else None


def body(gate: Manifest, reward: Manifest, dag_run: Any) -> str:
    """The figures behind the gate's decision, as Markdown, and the page that shows its pairs."""
    manifests = {"gate": gate, "reward": reward}
    rows = [
        f"| {name} | {number(manifests[stage].metrics[key])} |"
        for name, stage, key in FIGURES
        if key in manifests[stage].metrics
    ]
    page = address("training", dag_run.dag_id, dag_run.run_id, "gate")
    return "\n".join(
        [
            "The gate is open: the reward model is good enough by the recipe's threshold.",
            "",
            "| figure | value |",
            "|---|---|",
            *rows,
            "",
            f"[The gate's page]({page}) shows how well the reward model is calibrated, and pairs that it ranks wrong. "
            "If you reject, or nobody answers in time, PPO is left out and the tuned model is the result.",
        ]
    )


def keep(run: Run, approved: bool, answer: Any) -> str:
    """Keep a refusal in the store, or remove one, and return the answer in words."""
    who = printable((answer.get("responded_by_user") or {}).get("name") or "")
    at = answer["responded_at"]
    when = at if isinstance(at, str) else at.isoformat(timespec="seconds")
    ppo = run.task(run.recipe.align)
    if approved:
        approval.allow(run.store, ppo)
        return f"approved by {who}, {when}"
    approval.refuse(run.store, ppo, Refusal(who, when))
    return f"rejected by {who}, {when}" if who else f"rejected, because nobody answered in time, {when}"


def stale_after(run: Run) -> list[str]:
    """Manifests of the stages after PPO that exist although PPO is not done."""
    if find(run.store, run.task(run.recipe.align)):
        return []
    tasks = run.tasks().values()
    late = [one for one in tasks if one.stage in AFTER or (one.stage == "benchmark" and one.of(run.recipe.align))]
    done = (find(run.store, one) for one in late)
    return [run.store.full(manifest.path) for manifest in done if manifest]
