"""Why the gate before PPO opened or stayed closed: the reward model's accuracy, how sure it is, and its worst pairs."""

from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from contract import approval, manifest
from contract.errors import DamagedError
from contract.kinds import Kind
from contract.manifest import Manifest
from contract.plan import Run
from contract.results import Gate, Result, Reward
from contract.store import Store

T = TypeVar("T", bound=Result)
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


class Calibration(BaseModel):
    """What `reward` committed of its held-out pairs."""

    model_config = ConfigDict(frozen=True)
    bins: tuple[Bin, ...]
    worst: tuple[Pair, ...]


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

    @property
    def sentence(self) -> str:
        """The decision in one sentence."""
        if self.decision is None:
            return "The gate has not decided yet."
        low, threshold = self.decision.low, self.decision.threshold
        how = "reaches" if self.decision.open else "is under"
        state = "open" if self.decision.open else "closed"
        return (
            f"The gate is {state}: the lower end of the interval, {low:.1%}, {how} the threshold of {threshold:.1%}. "
            + ("PPO may start." if self.decision.open else "PPO is left out, and the SFT model is the result.")
        )


def view(run: Run) -> View:
    """The gate of a run. Raises StoreError if the store does not answer; what is not there or damaged is said."""
    missing: list[str] = []
    trained, decided = (_manifest(run, stage, missing) for stage in ("reward", "gate"))
    decision = _result(Gate, decided, missing)
    return View(
        decision,
        _result(Reward, trained, missing),
        run.recipe.gate.confidence,
        _calibration(run.store, trained, missing) if trained else None,
        _approval(run, decision),
        tuple(missing),
    )


def _approval(run: Run, decision: Gate | None) -> str:
    ppo = run.task(run.recipe.align)
    try:
        refused = approval.refusal(run.store, ppo)
    except DamagedError as error:
        return str(error)
    if run.store.exists(f"{ppo.prefix}/manifest.json"):
        asked = "the recipe asks a person first (gate.approval)" if run.recipe.gate.approval else "nobody was asked"
        return f"PPO is done; {asked}."
    if refused:
        return f"{refused.why}."
    if not run.recipe.gate.approval:
        return "Nobody is asked before PPO: the recipe does not set gate.approval."
    if decision and not decision.open:
        return "Nobody is asked before PPO, because the gate is closed."
    return "A person is asked before PPO (gate.approval). Nobody has refused it."


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
        missing.append("This reward model was trained before its calibration was kept; run reward again to see it.")
        return None
    try:
        with files[0].open(store) as source:
            return Calibration.model_validate_json(bytes(source.read(FILE_BYTES)))
    except ValidationError:
        missing.append(str(files[0].damaged(store, files[0].bytes)))
    except DamagedError as error:
        missing.append(str(error))
    return None
