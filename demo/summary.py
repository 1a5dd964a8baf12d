"""Summarises a finished run from its manifests, in one screen of text."""

import json
import textwrap
from collections.abc import Iterator

from contract import contamination, funnel
from contract.approval import without_ppo
from contract.headline import headline, warnings
from contract.kinds import Kind
from contract.manifest import Manifest, find
from contract.plan import Run
from contract.stages import ALIGNING

SAMPLE_CHARS = 160
TITLES = {
    "pretrain": "Pretraining",
    "sft": "Chat tuning",
    "reward": "Reward model",
    "gate": "Gate",
    "ppo": "PPO",
    "judge": "Judge",
    "evaluate": "Evaluation",
}


def finished(run: Run) -> dict[str, list[Manifest]]:
    """Stage -> manifests of its finished tasks."""
    done: dict[str, list[Manifest]] = {}
    for task in run.tasks().values():
        manifest = find(run.store, task)
        if manifest:
            done.setdefault(task.stage, []).append(manifest)
    return done


def skipped(run: Run) -> int:
    """The number of the run's tasks that an earlier run with the same settings and inputs has done."""
    return sum(manifest.run != run.uri for manifests in finished(run).values() for manifest in manifests)


def render(run: Run) -> str:
    """The funnel, examples, contamination, a line for each training stage, warnings, chats before and after PPO."""
    done = finished(run)
    one = {stage: manifests[0] for stage, manifests in done.items()}
    lines = [*funnel.tables(run), *contamination.tables(run), ""]
    titles = {run.recipe.align if stage == "ppo" else stage: title for stage, title in TITLES.items()}
    lines += [f"{_title(stage, title):<14} {_line(run, stage, one)}" for stage, title in titles.items()]
    lines += [f"{'Warning':<14} {said}" for manifest in one.values() for said in warnings(manifest)]
    lines += chats(run, one["evaluate"]) if "evaluate" in one else []
    return "\n".join(lines)


def _title(stage: str, title: str) -> str:
    """DPO's and GRPO's line stands where PPO's would."""
    return stage.upper() if stage in ALIGNING else title


def _line(run: Run, stage: str, done: dict[str, Manifest]) -> str:
    """A stage's headline; if it did not run, the reason if there is one."""
    if stage in done:
        return headline(done[stage])
    if stage in ALIGNING and "gate" in done:
        return without_ppo(run.store, done["gate"], run.task(stage)) or "did not run"
    return "did not run"


def chats(run: Run, manifest: Manifest) -> Iterator[str]:
    """Up to three prompts with the answer before PPO (the SFT model's) and after it."""
    rows = [
        json.loads(line)
        for file in manifest.of(Kind.SAMPLES)
        for line in run.store.read_bytes(file.path).decode().splitlines()
    ][:3]
    for row in rows:
        yield ""
        for name in ("prompt", "before", "after"):
            text = " ".join(str(row.get(name) if row.get(name) is not None else "(nothing: PPO did not run)").split())
            yield f"{name:<14} {textwrap.shorten(text, SAMPLE_CHARS, placeholder=' ...') or '(empty)'}"
