"""Curves, and the arithmetic of a run's speed: FLOPs per token and MFU."""

import math
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contract.accelerators import ACCELERATORS
from contract.metrics import Point, dump_points, load_points

if TYPE_CHECKING:
    from torch import Tensor

    from training.engine.ranks import Ranks


@dataclass
class Curves:
    """The points of all curves of a stage, in the order of steps. Every rank holds the same values.

    Figures that a device computes wait there until `read`: to read one, a process waits for all that the device has
    still to do. So the figures of many steps are summed over the processes and read at once. What is added meanwhile
    waits behind them, because a chart takes its steps in order.
    """

    points: list[Point] = field(default_factory=list)
    clock: Callable[[], float] = time.time
    steps: int | None = None
    """How many steps the stage takes in all; None if it is not known. Shown while it runs, and not committed."""
    _waiting: "list[tuple[int, Mapping[str, Tensor], Mapping[str, float], float]]" = field(default_factory=list)

    def add_later(self, step: int, shares: "Mapping[str, Tensor]", **values: float) -> None:
        """Add a point for each named value, and at the next `read` one for each share: this process's part of a sum.

        Shares are scalars on the device. Every rank names the same.
        """
        self._waiting.append((step, shares, values, self.clock()))

    def read(self, ranks: "Ranks") -> None:
        """Add the points of what waits; every rank calls it, because one all-reduce sums up all shares."""
        if not self._waiting:
            return
        import torch

        waiting, self._waiting = self._waiting, []
        shares = [value.double() for _, own, _, _ in waiting for value in own.values()]
        sums = iter(ranks.total(torch.stack(shares)) if shares else ())
        for step, own, values, now in waiting:
            named = {**{name: next(sums) for name in own}, **values}
            self._put(step, named, now)

    def last(self, name: str) -> float | None:
        """The newest value of a curve that was read; None if there is none."""
        return next((point.value for point in reversed(self.points) if point.name == name), None)

    def add(self, step: int, **values: float) -> None:
        """Add one point for each named value. Step 1 is after the first update, step 0 before training.

        A value that is NaN or infinite gets no point: no chart can show it, and an update that made it is skipped.
        """
        if self._waiting:
            self._waiting.append((step, {}, values, self.clock()))
        else:
            self._put(step, values, self.clock())

    def _put(self, step: int, values: Mapping[str, float], now: float) -> None:
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self.points.extend(Point(step, name, value, now) for name, value in finite.items())

    def skips(self) -> dict[str, Any]:
        """The figures of skipped updates that a stage commits. The curves `skipped_row` have their batches' rows."""
        steps = [point.step for point in self.points if point.name == "skipped"]
        steps += [step for step, _, values, _ in self._waiting if "skipped" in values]
        return {"skipped_updates": len(steps), "skipped_steps": " ".join(map(str, dict.fromkeys(steps)))}

    def note(self, name: str) -> str:
        """The newest value of a curve that was read, for a progress line."""
        value = self.last(name)
        return "" if value is None else f"{name} {value:.3f}"

    def dump(self) -> bytes:
        return dump_points(self.points)

    def restore(self, data: bytes) -> None:
        """Replace all points by those of a checkpoint."""
        self.points = load_points(data)


@dataclass
class Pace:
    """Tokens and seconds since the last reading."""

    tokens: int = 0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self.tokens += tokens
        self.seconds += seconds

    def read(self) -> float:
        """Tokens a second since the last reading."""
        rate, self.tokens, self.seconds = self.tokens / max(self.seconds, 1e-9), 0, 0.0
        return rate


def memory_bytes(ranks: "Ranks") -> int:
    """The most memory that this process has held so far: of its GPU, or of the machine if it has none."""
    import torch

    if ranks.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(ranks.device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def of_machine(ranks: "Ranks", seconds: float) -> dict[str, float]:
    """What a step took of the machine, as curves: its time, and the most memory so far."""
    return {"step_s": seconds, "memory_bytes": memory_bytes(ranks)}


def flops_per_token(parameters: int, layers: int, d_model: int, seq_len: float) -> float:
    """6 N + 12 L d_model T: training FLOPs per token, forward and backward.

    N is the number of all parameters, or with experts of those that compute something for a token.

    PaLM, Chowdhery et al. 2022, appendix B.
    """
    return 6 * parameters + 12 * layers * d_model * seq_len


def peak_flops(device_name: str) -> float | None:
    """The device's peak in dense bf16 FLOP/s. None if ACCELERATORS does not list it; then no MFU is reported."""
    found = [one for one in ACCELERATORS.values() if one.device in device_name]
    return max(found, key=lambda one: len(one.device)).peak if found else None


def mfu(tokens_per_s: float, flops: float, peak: float, devices: int) -> float:
    """Model FLOPs utilisation: the share of the devices' peak that the model's own arithmetic used."""
    return tokens_per_s * flops / (peak * devices)
