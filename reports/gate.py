"""Why the gate before PPO opened or stayed closed: the reward model's accuracy, how sure it is, and its worst pairs."""

from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from contract import approval, manifest
from contract.errors import DamagedError
from contract.kinds import Kind
from contract.manifest import Manifest
from contract.plan import Run
from contract.printable import printable
from contract.results import Evaluate, Gate, Judge, Result, Reward
from contract.settings.training import Export
from contract.store import Store

T = TypeVar("T", bound=Result)
TASKS, NAME_CHARS = 40, 200  # tasks that are told one by one, and how much of a name
SIDES = {"training": "the training prompts", "pretraining": "public comparisons", "heldout": "the held-out prompts"}
WHY = {
    "equal": "whose replies became the same within reward.max_tokens",
    "lost_end": "whose replies lost their end within reward.max_tokens",
    "no_scores": "whose replies nobody scored",
}
FILE_BYTES = 4_000_000  # far more than fifty pairs of bounded texts take


class Bin(BaseModel):
    """The held-out pairs of which the reward model is about equally sure: a bar of the reliability diagram.

    `confidence`: its mean probability that the ranking is right; `right`: the share that is.
    """

    model_config = ConfigDict(frozen=True)
    low: float
    high: float
    pairs: int
    confidence: float
    right: float


class Pair(BaseModel):
    """A held-out pair whose rejected reply got the higher reward, with texts that were cut when they were committed."""

    model_config = ConfigDict(frozen=True)
    row: int
    margin: float
    reward_chosen: float
    reward_rejected: float
    prompt: str
    chosen: str
    rejected: str


class Histograms(BaseModel):
    """How many rewards of the better and of the worse replies lie between each two of `edges`."""

    model_config = ConfigDict(frozen=True)
    edges: tuple[float, ...] = ()
    better: tuple[int, ...] = ()
    worse: tuple[int, ...] = ()


class Calibration(BaseModel):
    """What `reward` committed of its held-out pairs."""

    model_config = ConfigDict(frozen=True)
    bins: tuple[Bin, ...]
    worst: tuple[Pair, ...]
    histograms: Histograms = Histograms()


@dataclass(frozen=True)
class Criterion:
    """One figure on which a decision hangs. `holds` is None as long as it is not measured."""

    name: str
    value: float | None
    bound: str
    holds: bool | None
    decides: str


@dataclass(frozen=True)
class View:
    """All that is known of a run's gate. What is None is not known, and `missing` says why, one sentence each."""

    decision: Gate | None
    reward: Reward | None
    confidence: float
    """Of the interval, as the recipe sets it."""
    calibration: Calibration | None
    approval: str
    """Whether a person is asked before PPO, and what became of it, in one sentence."""
    missing: tuple[str, ...]
    judge: Judge | None = None
    """The second reward model, once it is trained; None also if the recipe asks for none."""
    evaluated: Evaluate | None = None
    criteria: tuple[Criterion, ...] = ()

    @property
    def tasks(self) -> list[tuple[str, dict[str, float | int]]]:
        """The accuracy on each task, at most TASKS of them, with names that can be shown."""
        found = list(self.reward.tasks.items())[:TASKS] if self.reward else []
        whole = [(name, one) for name, one in found if {"pairs", "accuracy", "low", "high"} <= one.keys()]
        return [(printable(name[:NAME_CHARS]), one) for name, one in whole]

    @property
    def left_out(self) -> str:
        """How many prompts the reward model could not use, and why; empty if it could use all."""
        dropped = self.reward.dropped if self.reward else {}
        return "; ".join(
            f"of {SIDES[side]}, {counts[reason]:,} {WHY[reason]}"
            for side, counts in dropped.items()
            for reason in counts
            if side in SIDES and reason in WHY and counts[reason]
        )

    @property
    def sentence(self) -> str:
        """The decision in one sentence."""
        if self.decision is None:
            return "The gate has not decided yet."
        low, threshold = self.decision.low, self.decision.threshold
        how = "reaches" if low >= threshold else "is under"
        state = "open" if self.decision.open else "closed"
        said = f"The gate is {state}: the lower end of the interval, {low:.1%}, {how} the threshold of {threshold:.1%}"
        if (least := self.decision.shorter_threshold) is not None:
            short = self.decision.shorter_low or 0.0
            how = "reaches" if short >= least else "is under"
            said += f"; where the better reply is the shorter one, {short:.1%} {how} {least:.1%}"
        end = "PPO may start." if self.decision.open else "PPO is left out, and the SFT model is the result."
        return f"{said}. {end}"


def view(run: Run) -> View:
    """The gate of a run. Raises StoreError if the store does not answer; what is not there or damaged is said."""
    missing: list[str] = []
    trained, decided = (_manifest(run, stage, missing) for stage in ("reward", "gate"))
    decision = _result(Gate, decided, missing)
    judge, evaluated = _later(Judge, run, "judge"), _later(Evaluate, run, "evaluate")
    return View(
        decision,
        _result(Reward, trained, missing),
        run.recipe.gate.confidence,
        _calibration(run.store, trained, missing) if trained else None,
        _approval(run, decision),
        tuple(missing),
        judge if judge and judge.pairs else None,
        evaluated,
        (*_of_gate(decision), *_of_export(run.recipe.export, evaluated)),
    )


def _later(kind: type[T], run: Run, stage: str) -> T | None:
    """The figures of a stage after the gate; None if there are none that can be read: their own pages say why."""
    try:
        done = manifest.find(run.store, run.task(stage))
        return kind.of(done) if done else None
    except DamagedError:
        return None


def _of_gate(decision: Gate | None) -> list[Criterion]:
    """What must hold before PPO starts."""
    if decision is None:
        return []
    asked = [("held-out accuracy, lower end", decision.low, decision.threshold)]
    if decision.shorter_threshold is not None:
        name = "where the shorter is better, lower end"
        asked.append((name, decision.shorter_low or 0.0, decision.shorter_threshold))
    return [
        Criterion(name, value, f"at least {least:g}", value >= least, "whether PPO starts")
        for name, value, least in asked
    ]


def _of_export(settings: Export, evaluated: Evaluate | None) -> list[Criterion]:
    """What must hold of `evaluate` before PPO's model is exported."""
    found = []
    for bounds, word, sign in ((settings.at_least, "at least", 1.0), (settings.at_most, "at most", -1.0)):
        for name, bound in bounds.items():
            value = getattr(evaluated, name) if evaluated else None
            holds = None if evaluated is None else value is not None and sign * value >= sign * bound
            found.append(Criterion(name, value, f"{word} {bound:g}", holds, "whether PPO's model is exported"))
    return found


def _approval(run: Run, decision: Gate | None) -> str:
    ppo = run.task(run.recipe.align)
    try:
        refused = approval.refusal(run.store, ppo)
    except DamagedError as error:
        return str(error)
    if run.store.entry(f"{ppo.prefix}/manifest.json"):
        asked = "The recipe asks a person for approval first (gate.approval)."
        return f"PPO is done. {asked if run.recipe.gate.approval else 'No approval was needed.'}"
    if refused:
        return f"{refused.why}."
    if not run.recipe.gate.approval:
        return "PPO needs no approval: the recipe does not set gate.approval."
    if decision and not decision.open:
        return "No approval is asked for, because the gate is closed."
    return "PPO needs the approval of a person (gate.approval). Nobody has rejected it."


def _manifest(run: Run, stage: str, missing: list[str]) -> Manifest | None:
    try:
        found = manifest.find(run.store, run.task(stage))
    except DamagedError as error:
        missing.append(str(error))
        return None
    if found is None:
        missing.append(f"{stage} is not done yet.")
    return found


def _result(kind: type[T], done: Manifest | None, missing: list[str]) -> T | None:
    try:
        return kind.of(done) if done else None
    except DamagedError as error:
        missing.append(str(error))
        return None


def _calibration(store: Store, trained: Manifest, missing: list[str]) -> Calibration | None:
    files = trained.of(Kind.CALIBRATION)
    if not files:
        missing.append(
            "An older version trained this reward model and kept no calibration. Run reward again to see it."
        )
        return None
    try:
        with files[0].open(store) as source:
            return Calibration.model_validate_json(bytes(source.read(FILE_BYTES)))
    except ValidationError:
        missing.append(str(files[0].damaged(store, files[0].bytes)))
    except DamagedError as error:
        missing.append(str(error))
    return None
