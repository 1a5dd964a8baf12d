"""The learning rate of each update, as a pure function of its number."""

import math
from collections.abc import Callable

from contract.settings.training import Optim


def lr_at(step: int, total: int, optim: Optim) -> float:
    """The learning rate of update `step`, counted from 0, of `total`.

    Linear warm-up that ends at `lr` after warmup_steps updates, or after warmup_fraction x total, then the schedule's
    way down, which reaches `lr x min_lr_fraction` with the last update (Radford et al. 2018; Brown et al. 2020,
    appendix B). `constant` has no way down.
    """
    warmup = math.ceil(total * optim.warmup_fraction) if optim.warmup_steps is None else optim.warmup_steps
    if step < warmup:
        return optim.lr * (step + 1) / warmup
    if optim.schedule == "constant":
        return optim.lr
    left = LEFT[optim.schedule]((step - warmup + 1) / max(total - warmup, 1), optim)
    return optim.lr * (optim.min_lr_fraction + (1 - optim.min_lr_fraction) * left)


def _cosine(done: float, _: Optim) -> float:
    return (1 + math.cos(math.pi * done)) / 2


def _polynomial(done: float, optim: Optim) -> float:
    return float((1 - done) ** optim.power)


def _linear(done: float, _: Optim) -> float:
    return 1 - done


def _wsd(done: float, optim: Optim) -> float:
    """Full until the decay begins, then 1 - sqrt(x), the best way down of Haegele et al. 2024, section 3."""
    decay = (done - (1 - optim.decay_fraction)) / optim.decay_fraction
    return 1 - math.sqrt(max(decay, 0.0))


LEFT: dict[str, Callable[[float, Optim], float]] = {
    "cosine": _cosine,
    "polynomial": _polynomial,
    "linear": _linear,
    "wsd": _wsd,
}
"""Schedule -> what is left of the way between the highest and the lowest rate, 1 to 0.

It is asked for the share of the updates after the warm-up that are done.
"""
