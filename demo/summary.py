"""What a finished run came to, read from its manifests and told in one screen of text."""

import json
import textwrap
from collections.abc import Iterator

from contract import contamination, funnel
from contract.manifest import Manifest, find
from contract.plan import Run

SAMPLE_CHARS = 160


def finished(run: Run) -> dict[str, list[Manifest]]:
    """Stage -> manifests of its finished tasks."""
    done: dict[str, list[Manifest]] = {}
    for task in run.tasks().values():
        manifest = find(run.store, task)
        if manifest:
            done.setdefault(task.stage, []).append(manifest)
    return done


def skipped(run: Run) -> int:
    """How many of the run's tasks were done before it began, by another run with the same settings and inputs."""
    return sum(one.run != run.uri for manifests in finished(run).values() for one in manifests)


def render(run: Run) -> str:
    """The funnel, what of evaluation sets was found, then one line for each training stage, then chats before and after PPO."""
    done = finished(run)
    one = {stage: manifests[0] for stage, manifests in done.items()}
    lines = [funnel.render(funnel.levels(run)), *contamination.tables(run), ""]
    lines += [
        f"{title:<14} {text}"
        for title, text in (
            ("Pretraining", pretraining(one.get("pretrain"))),
            ("Reward model", reward_model(one.get("reward"))),
            ("Gate", gate(one.get("gate"))),
            ("PPO", ppo(one.get("ppo"), one.get("gate"))),
            ("Win rate", win_rate(one.get("evaluate"))),
        )
    ]
    lines += chats(run, one["evaluate"]) if "evaluate" in one else []
    return "\n".join(lines)


def pretraining(manifest: Manifest | None) -> str:
    """Perplexity on held-out documents before the first step and after the last."""
    if manifest is None:
        return "did not run"
    before, after = manifest.metrics.get("heldout_perplexity_before"), manifest.metrics.get("heldout_perplexity_after")
    return f"held-out perplexity {number(before)} -> {number(after)}"


def reward_model(manifest: Manifest | None) -> str:
    """Accuracy on held-out pairs with its confidence interval."""
    if manifest is None:
        return "did not run"
    accuracy, low, high = (manifest.metrics.get(name) for name in ("accuracy", "accuracy_low", "accuracy_high"))
    return f"held-out accuracy {number(accuracy)}, confidence interval {number(low)} to {number(high)}"


def gate(manifest: Manifest | None) -> str:
    """The decision, and the threshold against which the interval's lower end was held."""
    if manifest is None:
        return "did not run"
    low, threshold = number(manifest.metrics.get("low")), number(manifest.metrics.get("threshold"))
    if manifest.metrics.get("open"):
        return f"open: the interval's lower end, {low}, reaches {threshold}"
    return f"closed: the interval's lower end, {low}, is under {threshold}"


def ppo(manifest: Manifest | None, decision: Manifest | None) -> str:
    """Reward and KL from the first step to the last, or why there are none."""
    metrics = manifest.metrics if manifest else {}
    if metrics.get("reward_last") is None:
        closed = decision is not None and not decision.metrics.get("open")
        return "did not run, because the gate is closed" if closed else "did not run"
    return (
        f"reward {number(metrics.get('reward_first'))} -> {number(metrics['reward_last'])}, "
        f"KL {number(metrics.get('kl_first'))} -> {number(metrics.get('kl_last'))}"
    )


def win_rate(manifest: Manifest | None) -> str:
    """How often the reward model prefers PPO's answer to the SFT model's on held-out prompts."""
    metrics = manifest.metrics if manifest else {}
    if metrics.get("win_rate") is None:
        return "was not measured"
    rate, low, high = (number(metrics.get(name)) for name in ("win_rate", "win_rate_low", "win_rate_high"))
    return f"{rate} after PPO against before, by the reward model; confidence interval {low} to {high}"


def chats(run: Run, manifest: Manifest) -> Iterator[str]:
    """Up to three prompts with the answer before PPO (the SFT model's) and after it."""
    rows = [
        json.loads(line)
        for file in manifest.of("samples")
        for line in run.store.read_bytes(file.path).decode().splitlines()
    ][:3]
    for row in rows:
        yield ""
        for name in ("prompt", "before", "after"):
            text = " ".join(str(row.get(name) if row.get(name) is not None else "(nothing: PPO did not run)").split())
            yield f"{name:<14} {textwrap.shorten(text, SAMPLE_CHARS, placeholder=' ...') or '(empty)'}"


def number(value: object) -> str:
    """Three significant digits; a dash for a figure that is missing."""
    return (
        f"{value:,.3g}"
        if isinstance(value, int | float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, int | float)
        else "-"
    )
