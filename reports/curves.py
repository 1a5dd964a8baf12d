"""The curves of a training task: committed ones, or those of a task that runs, from what it has shown so far.

Curves are thinned to at most a thousand points each (see `contract.thinning`), so a page of millions of steps is quick.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from statistics import median
from typing import Literal

from contract import manifest
from contract.errors import DamagedError
from contract.headline import omitted
from contract.kinds import Kind
from contract.live import ALL_STEPS, LEFT_S, Seen, read_live
from contract.manifest import File, Manifest
from contract.masking import masked
from contract.metrics import load_points
from contract.plan import Run, Task
from contract.stages import ALIGNING
from contract.store import Store
from contract.thinning import Curve, load_curves, thin
from reports.indexes import together

State = Literal["done", "running", "silent", "stopped", "waiting"]

SILENT_S = 600.0  # points come every minute, or as seldom as a slow step ends
FULL_BYTES = 8_000_000  # a full file that is still read in half a second, where there is no thinned one
KEPT = 16  # committed curves that stay in memory, about half a megabyte each
MARKS = 200  # of one task
STEP = re.compile(r"step-[0-9]{8,}")  # the folder of a checkpoint
WINDOW, FEWEST, TIMES = 32, 8, 8.0
"""A spike is TIMES median absolute deviations above the median of the WINDOW points before it, at least FEWEST."""


@dataclass(frozen=True)
class Reading:
    """What is known of a task's curves.

    `state`: done, running, silent (it runs, but has shown nothing for SILENT_S), stopped (no attempt shows any, the
    curves are those of the newest checkpoint), or waiting (nothing shown yet).
    `whole`: the curves replace what the reader has, else they are new points only. `seen` goes with the next reading of
    a task that runs. `updated`: Unix time in seconds of the newest points. `events`: where TensorBoard's files are.
    `problem`: why there are no curves, if they cannot be read. `made`: the manifest of a task that is done.
    """

    state: State
    curves: Mapping[str, Curve] = field(default_factory=dict)
    whole: bool = True
    seen: Seen | None = None
    updated: float | None = None
    events: tuple[str, ...] = ()
    problem: str = ""
    made: Manifest | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Mark:
    """Something that happened in a step: the task resumed there, an update was skipped, or the loss leapt up."""

    step: int
    kind: Literal["resumed", "skipped", "spike"]


@dataclass(frozen=True)
class Chart:
    """The curves that belong into one chart: what it shows, its unit, and the names of the curves in order."""

    title: str
    unit: str
    names: tuple[str, ...]


CHARTS: tuple[Chart, ...] = (
    Chart("Loss", "nats", ("loss", "heldout_loss")),
    Chart("Accuracy on the training pairs", "share", ("accuracy",)),
    Chart("Rewards of the chosen and the rejected replies", "nats", ("reward_chosen", "reward_rejected", "margin")),
    Chart("Reward and objective", "standard deviations", ("reward", "objective", "heldout_reward")),
    Chart("Spread of the rewards", "standard deviations", ("reward_std",)),
    Chart("Replies to prompts with known answers", "share", ("right_fraction", "abstained_fraction", "wrong_fraction")),
    Chart(
        "Held-out replies with known answers",
        "share",
        ("heldout_right_fraction", "heldout_abstained_fraction", "heldout_wrong_fraction"),
    ),
    Chart(
        "KL divergence from the start", "nats per reply", ("kl", "kl_k3", "kl_exact", "heldout_kl", "heldout_kl_exact")
    ),
    Chart("Coefficient of the KL term", "", ("kl_coef",)),
    Chart("Length of the replies", "tokens", ("response_length", "response_length_max", "heldout_response_length")),
    Chart("Replies that end by themselves", "share", ("eot_fraction",)),
    Chart("Held-out loss by source", "nats per token", ("heldout_loss/",)),
    Chart("Gradient norm", "before clipping", ("grad_norm", "value_grad_norm")),
    Chart("Learning rate", "", ("lr",)),
    Chart("Loss of the policy", "", ("policy_loss",)),
    Chart("Loss of the critic", "", ("value_loss",)),
    Chart("Loss on pretraining text", "nats per token", ("ptx_loss",)),
    Chart("Explained variance of the critic", "share", ("explained_variance",)),
    Chart("Entropy of the policy", "nats per token", ("entropy",)),
    Chart("Clipped probability ratios", "share", ("clip_fraction",)),
    Chart("Probability ratio of an update", "mean over tokens", ("ratio",)),
    Chart("KL divergence from the policy that sampled", "nats per token", ("kl_update",)),
    Chart("KL divergence from the SFT model in the loss", "nats per token", ("kl_loss",)),
    Chart("Groups of replies with equal rewards", "share", ("equal_groups",)),
    Chart("Updates of a step", "", ("updates",)),
    Chart("KL divergence from the teacher", "nats per token", ("distill_kl",)),
    Chart("Load-balancing loss of the experts", "", ("balance_loss",)),
    Chart("Speed", "tokens per second", ("tokens_per_s", "sampled_tokens_per_s", "learned_tokens_per_s")),
    Chart("Time spent sampling", "share of a step", ("sampling_share",)),
    Chart("Time of a step", "seconds", ("step_s",)),
    Chart("Model FLOPs utilisation", "share", ("mfu",)),
    Chart("Peak memory", "bytes", ("memory_bytes",)),
    Chart("Tokens read", "tokens", ("tokens",)),
    Chart("Epochs over each source", "epochs", ("epochs/",)),
)
"""A name that ends in a slash stands for the curves of all sources."""

HIDDEN = (ALL_STEPS, LEFT_S)
"""Curves that tell how far a running task is. They are in no chart."""
MARKERS = ("resumed", "skipped", *HIDDEN)
"""Curves that have no chart of their own: marks in the other charts, and the hidden ones."""


STAGES_SHOWN = ("pretrain", "sft", "reward", "gate", *ALIGNING, "judge", "probe", "evaluate")
"""The stages that have a page: those that train or measure a model, and the gate."""


@dataclass(frozen=True)
class Shown:
    """A stage of a run, and whether it is done, has begun, or has not."""

    stage: str
    state: Literal["done", "begun", "waiting"]


def states(run: Run) -> list[Shown]:
    """Each stage of STAGES_SHOWN that the run does not leave out, with its state, in their order."""

    def look(stage: str) -> Shown:
        task = run.task(stage)
        if run.store.entry(f"{task.prefix}/manifest.json"):
            return Shown(stage, "done")
        begun = run.store.folders(f"{task.stage}/{task.fingerprint}")
        return Shown(stage, "begun" if begun else "waiting")

    return list(together(run.store, look, [one for one in STAGES_SHOWN if not omitted(run.recipe, one, None)]))


def stage_to_show(found: Sequence[Shown]) -> str | None:
    """The stage whose curves people want to see first: one that has begun, else the last that is done.

    None if there is none.
    """
    for wanted in ("begun", "done"):
        for one in reversed(found):
            if one.state == wanted and one.stage not in ("gate", "probe", "evaluate"):
                return one.stage
    return None


def read(run: Run, task: Task, seen: Seen | None = None) -> Reading:
    """What a task shows after `seen`, which an earlier reading returned; without it, all there is.

    Raises StoreError if the store does not answer. Damage is no error but the reading's `problem`.
    """
    try:
        done = manifest.find(run.store, task)
        if done is None and (live := read_live(run.store, task.prefix, seen)):
            folder = masked(run.store.full(f"{task.prefix}/{live.seen.attempt}/live"))
            state: State = "silent" if time.time() - live.modified > SILENT_S else "running"
            return Reading(state, live.curves, live.whole, live.seen, live.modified, (folder,))
        done = done or manifest.find(run.store, task)  # it may have committed between the two
        return replace(_committed(run.store, done, "done"), made=done) if done else _stopped(run.store, task)
    except DamagedError as error:
        return Reading("done", problem=str(error))


def _stopped(store: Store, task: Task) -> Reading:
    """The curves of a task's newest checkpoint, from which it goes on when it runs again."""
    folder = f"{task.stage}/{task.fingerprint}"
    for name in sorted(filter(STEP.fullmatch, store.folders(folder)), reverse=True):
        with suppress(FileNotFoundError, DamagedError):  # not committed, or damaged: there is one before it
            return _committed(store, manifest.read(store, f"{folder}/{name}"), "stopped")
    return Reading("waiting")


def _committed(store: Store, done: Manifest, state: State) -> Reading:
    events = tuple(masked(store.full(file.path)) for file in done.of(Kind.EVENTS))
    updated = done.finished.timestamp()
    small, full = done.of(Kind.CURVES), done.of(Kind.METRICS)
    if small:
        return Reading(state, _load(store, small[0]), updated=updated, events=events)
    if not full or not full[0].bytes:
        return Reading(state, updated=updated, events=events, problem="The task has committed no curves.")
    if full[0].bytes > FULL_BYTES:
        problem = (
            f"An older version made this result without thinned curves, and the full ones ({full[0].bytes:,} bytes) "
            "are too large for this page. TensorBoard shows them."
        )
        return Reading(state, updated=updated, events=events, problem=problem)
    return Reading(state, _load(store, full[0]), updated=updated, events=events)


@lru_cache(maxsize=KEPT)
def _load(store: Store, file: File) -> Mapping[str, Curve]:
    """The curves of a committed file, which never changes. Raises DamagedError if it is not as it was committed."""
    with file.open(store) as source:
        data = bytes(source.read())
    if file.kind == Kind.CURVES:
        return load_curves(data)
    try:
        return thin(load_points(data))
    except (ValueError, TypeError) as error:
        raise file.damaged(store, file.bytes) from error


@dataclass(frozen=True)
class Progress:
    """How far a running task is. of: all its steps; left_s: seconds until the last one. None where it is not known."""

    step: int
    of: int | None = None
    left_s: float | None = None


def progress(curves: Mapping[str, Curve]) -> Progress | None:
    """How far a running task is by its newest points; None without points."""
    step = max((curve.steps[-1] for curve in curves.values() if curve.steps), default=None)
    if step is None:
        return None
    of, left_s = (curves[name].values[-1] if name in curves else None for name in (ALL_STEPS, LEFT_S))
    return Progress(step, int(of) if of is not None else None, left_s)


def charts(names: Iterable[str]) -> list[Chart]:
    """The charts of the curves with these names. A curve that CHARTS does not know has one of its own, at the end."""
    left = [name for name in names if name not in MARKERS]
    found: list[Chart] = []
    for chart in CHARTS:
        wanted = chart.names
        mine = tuple(
            name for one in wanted for name in left if name == one or (one.endswith("/") and name.startswith(one))
        )
        left = [name for name in left if name not in mine]
        if mine:
            found.append(Chart(chart.title, chart.unit, mine))
    return [*found, *(Chart(name, "", (name,)) for name in left)]


def spikes(curve: Curve) -> list[int]:
    """The steps in which a curve leapt up: far above the points before it, by their median and their deviations.

    The median absolute deviation is robust: a spike does not hide the next one (Leys et al. 2013).
    """
    found: list[int] = []
    before: list[float] = []
    for step, value in zip(curve.steps, curve.values, strict=True):
        if len(before) >= FEWEST:
            middle = median(before)
            spread = median(abs(one - middle) for one in before)
            if value - middle > TIMES * spread and value - middle > 0.1 * abs(middle):
                found.append(step)
        before = [*before, value][-WINDOW:]
    return found


def marks(curves: Mapping[str, Curve]) -> list[Mark]:
    """What happened in which step, in the order of steps, at most MARKS; of one step and kind only one."""
    found = {Mark(step, "resumed") for step in _steps(curves, "resumed")}
    found |= {Mark(step, "skipped") for step in _steps(curves, "skipped")}
    found |= {Mark(step, "spike") for step in (spikes(curves["loss"]) if "loss" in curves else ())}
    return sorted(found, key=lambda mark: (mark.step, mark.kind))[:MARKS]


def _steps(curves: Mapping[str, Curve], name: str) -> Sequence[int]:
    return curves[name].steps if name in curves else ()


@dataclass(frozen=True)
class Line:
    """A curve as a row of a table: its first and last value, and its lowest and highest one with their steps."""

    name: str
    first: float
    last: float
    last_step: int
    lowest: float
    lowest_step: int
    highest: float
    highest_step: int


def table(curves: Mapping[str, Curve]) -> list[Line]:
    """Each curve's ends and extremes, for those who cannot see a chart. Thinning keeps all four exact."""
    lines = []
    for name, curve in curves.items():
        if name in MARKERS or not curve.steps:
            continue
        rows = list(zip(curve.values, curve.steps, strict=True))
        low, high = min(rows), max(rows, key=lambda row: (row[0], -row[1]))
        lines.append(Line(name, rows[0][0], *rows[-1], *low, *high))
    return lines
