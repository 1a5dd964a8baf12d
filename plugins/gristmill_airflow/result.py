"""A run's result in one line, made from what its tasks have left in their XComs, without opening the store."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contract.headline import number
from contract.printable import printable
from contract.stages import ALIGNING

SUMMARY = "summary"  # XCom key: the stage's headline, or why it was left out
FIGURES = "figures"  # XCom key: what `contract.figures` says of the stage's manifest
WAITS = "waits"  # XCom key: what a running task waits for; empty once it goes on
MAX_CHARS = 400  # of the line
NAMES = 3  # of failed tasks

Summaries = Mapping[str, str]
Figures = Mapping[str, Sequence[Mapping[str, Any]]]
"""Stage -> the figures of each of its tasks in the run."""


def result(dag: str, summaries: Summaries, figures: Figures) -> str:
    """What a run of a DAG has made; empty if its tasks have left nothing to say."""
    said = MADE[dag](summaries, figures) if dag in MADE else ""
    return printable(said)[:MAX_CHARS]


def failure(failed: Mapping[str, int]) -> str:
    """Which tasks of a run failed; `failed` maps a task's id to the number of its instances that did."""
    named = [f"{name} ({count} tasks)" if count > 1 else name for name, count in sorted(failed.items())]
    rest = f" and {len(named) - NAMES} others" if len(named) > NAMES else ""
    return printable(f"failed in {', '.join(named[:NAMES])}{rest}" if named else "failed")[:MAX_CHARS]


def unpacked(stored: Any) -> Any:
    """An XCom's value; Airflow keeps it as JSON within JSON."""
    try:
        return json.loads(stored) if isinstance(stored, str) else stored
    except ValueError:
        return stored


def _sum(figures: Figures, name: str, *stages: str) -> int:
    return sum(int(one.get(name) or 0) for stage in stages for one in figures.get(stage, ()))


def _corpus(_: Summaries, figures: Figures) -> str:
    """Documents: those that the crawl and its sources gave, and those of the mixture, held-out ones included."""
    if not figures.get("mix"):
        return ""
    read = _sum(figures, "documents_read", "crawl", "curate")
    kept = _sum(figures, "training_documents", "mix") + _sum(figures, "heldout_documents", "mix")
    share = f" ({kept / read:.1%})" if read else ""
    return f"kept {kept:,} of {read:,} documents{share}, {number(_sum(figures, 'tokens', 'pack'))} tokens"


def _pretrain(summaries: Summaries, _: Figures) -> str:
    return summaries.get("pretrain", "")


def _align(summaries: Summaries, _: Figures) -> str:
    gate, answer = (summaries.get(name, "") for name in ("gate", "approval"))
    made = {name: summaries.get(name, "") for name in ALIGNING}
    left_out = ("PPO is left out", "the recipe aligns by")
    lines = [f"{name.upper()}: {said}" for name, said in made.items() if said and not said.startswith(left_out)]
    parts = (f"gate {gate}" if gate else "", f"PPO {answer}" if answer else "", *lines)
    return "; ".join(filter(None, parts))


def _evaluate(summaries: Summaries, _: Figures) -> str:
    exported = summaries.get("export", "")
    parts = (summaries.get("evaluate", ""), f"exported {exported}" if exported else "")
    return "; ".join(filter(None, parts))


def _feedback(summaries: Summaries, figures: Figures) -> str:
    collected, measured = summaries.get("collect", ""), summaries.get("evaluate", "")
    return "; ".join(filter(None, (collected, _align(summaries, figures), measured)))


def _ablate(summaries: Summaries, _: Figures) -> str:
    return summaries.get("ablate", "")


MADE: dict[str, Callable[[Summaries, Figures], str]] = {
    "corpus": _corpus,
    "pretrain": _pretrain,
    "align": _align,
    "evaluate": _evaluate,
    "feedback": _feedback,
    "ablate": _ablate,
}
READ = {"segment.crawl": "crawl", "curate": "curate", "mix": "mix", "pack": "pack"}
"""Task of the DAG `corpus` -> the stage whose figures its line needs."""
TOLD = ("pretrain", "gate", "approval", *ALIGNING, "evaluate", "export", "collect", "ablate")
"""Tasks whose headlines the lines of the other DAGs need."""
