"""Curves, and the arithmetic of a run's speed: FLOPs per token and MFU."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from contract.metrics import Point, dump_points, load_points

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bf16 peak of one SXM device in FLOP/s, from the vendor's data sheets; keyed by a part of the device's name."""


@dataclass
class Curves:
    """The points of all curves of a stage, in the order of steps. Every rank holds the same values."""

    points: list[Point] = field(default_factory=list)
    clock: Callable[[], float] = time.time

    def add(self, step: int, **values: float) -> None:
        """Add one point for each named value. Step 1 is after the first update, step 0 before training."""
        now = self.clock()
        self.points.extend(Point(step, name, float(value), now) for name, value in values.items())

    def dump(self) -> bytes:
        return dump_points(self.points)

    def restore(self, data: bytes) -> None:
        """Replace all points by those of a checkpoint."""
        self.points = load_points(data)


def flops_per_token(parameters: int, layers: int, d_model: int, seq_len: float) -> float:
    """6 N + 12 L d_model T: training FLOPs per token, forward and backward; N is the number of all parameters.

    PaLM, Chowdhery et al. 2022, appendix B.
    """
    return 6 * parameters + 12 * layers * d_model * seq_len


def peak_flops(device_name: str) -> float | None:
    """The device's dense bf16 peak in FLOP/s; None for a device that PEAK_FLOPS does not list, which gets no MFU."""
    return next((peak for name, peak in PEAK_FLOPS.items() if name in device_name), None)


def mfu(tokens_per_s: float, flops: float, peak: float, devices: int) -> float:
    """Model FLOPs utilisation: the share of the devices' peak that the model's own arithmetic used."""
    return tokens_per_s * flops / (peak * devices)
