"""Decides whether the reward model is good enough for PPO.

The measure is its accuracy on the held-out pairs, at the lower end of a confidence interval. A closed gate is a result,
not an error: the run goes on with the SFT model.
"""

from dataclasses import asdict, dataclass

from contract.errors import InputError
from contract.settings.training import Gate
from evals.intervals import wilson
from training.engine.job import Job


@dataclass(frozen=True)
class Decision:
    """Whether PPO may start, and why. All fields but `open` are fractions of the held-out pairs."""

    open: bool
    accuracy: float
    low: float
    high: float
    threshold: float


def decide(correct: float, total: int, settings: Gate) -> Decision:
    """Open if the interval's lower end reaches `min_accuracy`.

    The reward model ranked `correct` of `total` held-out pairs right; a tie counts half.
    """
    low, high = wilson(correct, total, settings.confidence)
    return Decision(low >= settings.min_accuracy, correct / total if total else 0.0, low, high, settings.min_accuracy)


def run(job: Job) -> None:
    settings: Gate = job.settings
    measured = job.manifest("reward").metrics
    correct, total = measured.get("heldout_correct"), measured.get("heldout_pairs")
    if not isinstance(correct, int | float) or not isinstance(total, int):
        raise InputError("the reward manifest does not say how many held-out pairs were ranked right; run reward again")
    decision = decide(correct, total, settings)
    job.attempt.commit([], metrics=asdict(decision))
