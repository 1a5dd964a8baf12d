"""Decides whether the reward model is good enough for PPO.

The measure is its accuracy on the held-out pairs, at the lower end of a confidence interval; if the recipe says so,
also that on the pairs whose better reply is the shorter one. A closed gate is a result, not an error: the run goes on
with the SFT model.
"""

from contract import results
from contract.settings.training import Gate
from evals.intervals import wilson
from training.engine.job import Job


def decide(measured: results.Reward, settings: Gate) -> results.Gate:
    """Open if the intervals' lower ends reach `min_accuracy` and, if it is set, `min_shorter_accuracy`.

    A tie counts as half right. Without pairs the lower end is 0.
    """
    total = measured.heldout_pairs
    share = measured.heldout_correct / total if total else 0.0
    low, high = _interval(share, total if measured.heldout_effective is None else measured.heldout_effective, settings)
    shorter = _interval(measured.shorter_accuracy or 0.0, measured.shorter_effective, settings)
    least = settings.min_shorter_accuracy
    return results.Gate(
        open=low >= settings.min_accuracy and (least is None or shorter[0] >= least),
        accuracy=share,
        low=low,
        high=high,
        threshold=settings.min_accuracy,
        shorter_accuracy=measured.shorter_accuracy,
        shorter_low=shorter[0] if measured.shorter_pairs else None,
        shorter_high=shorter[1] if measured.shorter_pairs else None,
        shorter_threshold=least,
    )


def _interval(share: float, effective: float, settings: Gate) -> tuple[float, float]:
    """Of an accuracy on pairs that say as much as `effective` pairs of as many prompts would."""
    return wilson(share * effective, effective, settings.confidence)


def run(job: Job) -> None:
    settings: Gate = job.settings
    job.attempt.commit([], result=decide(results.Reward.of(job.manifest("reward")), settings))
