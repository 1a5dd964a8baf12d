"""Decides whether the reward model is good enough for PPO.

The measure is its accuracy on the held-out pairs, at the lower end of a confidence interval. A closed gate is a result,
not an error: the run goes on with the SFT model.
"""

from contract import results
from contract.settings.training import Gate
from evals.intervals import wilson
from training.engine.job import Job


def decide(correct: float, total: int, effective: float, settings: Gate) -> results.Gate:
    """Open if the interval's lower end reaches `min_accuracy`.

    The reward model ranked `correct` of `total` held-out pairs right; a tie counts half. They say as much as
    `effective` pairs of as many prompts would.
    """
    low, high = wilson(correct * effective / total if total else 0.0, effective, settings.confidence)
    return results.Gate(
        open=low >= settings.min_accuracy,
        accuracy=correct / total if total else 0.0,
        low=low,
        high=high,
        threshold=settings.min_accuracy,
    )


def run(job: Job) -> None:
    settings: Gate = job.settings
    measured = results.Reward.of(job.manifest("reward"))
    effective = measured.heldout_pairs if measured.heldout_effective is None else measured.heldout_effective
    decided = decide(measured.heldout_correct, measured.heldout_pairs, effective, settings)
    job.attempt.commit([], result=decided)
