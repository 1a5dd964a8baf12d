"""Decides which updates are left out, so that one bad batch neither ends a run nor spoils its weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

WINDOW = 128  # updates whose norms make the running median; OLMo-core's optimizer that skips steps looks back as far
LEVEL = 8  # batches in a row: text is shuffled, so that so many are not bad by chance
CLOSE = 3  # times: the norms of a healthy run stay within about three times their median
FEWEST = 20  # before that there is no median: the norms of the first updates fall too quickly to be compared


@dataclass
class Guard:
    """Judges the updates of one engine by the norm of their gradients before clipping.

    All ranks give it the same norms, so all skip the same updates. Its state is part of every checkpoint, so a resumed
    run skips what the run that never stopped would have skipped.
    """

    above: float | None
    """An update whose norm is more than this many times the running median is skipped; None: only NaN and infinity."""
    clip: float
    """No finite norm up to this one is skipped, because such an update need not even be clipped.

    Without it, a reward model that has learned its pairs (norms near 0) would skip the first one that teaches it more.
    """
    norms: list[float] = field(default_factory=list)
    """Of the last WINDOW updates that were applied."""
    skipped: int = 0
    in_a_row: int = 0
    refused: list[float] = field(default_factory=list)
    """Of the updates that were skipped in a row, from the first on after which all norms are finite."""

    @property
    def median(self) -> float | None:
        """The running median; None before FEWEST updates."""
        return median(self.norms) if len(self.norms) >= FEWEST else None

    def refuses(self, norm: float) -> bool:
        """Whether an update with this norm must be skipped."""
        if not math.isfinite(norm):
            return True
        usual = self.median
        return self.above is not None and usual is not None and norm > max(self.above * usual, self.clip)

    def applied(self, norm: float) -> None:
        """Count an update that was made."""
        self.norms = [*self.norms, norm][-WINDOW:]
        self.in_a_row, self.refused = 0, []

    def left_out(self, norm: float) -> None:
        """Count an update that was skipped. Its norm does not move the median."""
        self.skipped += 1
        self.in_a_row += 1
        self.refused = [*self.refused, norm] if math.isfinite(norm) else []

    def at_new_level(self, updates: int) -> bool:
        """Whether the last `updates` norms, all refused, lie as close together as those of a healthy run.

        Then the norms have changed for good, and not a batch is bad. Without this, the median would stay what it was
        and refuse all updates until the run gives up.
        """
        last = self.refused[-updates:]
        return len(last) == updates and max(last) <= CLOSE * min(last)

    def forget(self) -> None:
        """Begin the median anew, because other weights or other data are trained on from now on, or at a new level."""
        self.norms, self.refused = [], []

    def state(self) -> dict[str, Any]:
        """The state as JSON values, for a checkpoint."""
        return {"norms": self.norms, "skipped": self.skipped, "in_a_row": self.in_a_row, "refused": self.refused}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.norms, self.skipped, self.in_a_row = list(state["norms"]), state["skipped"], state["in_a_row"]
        self.refused = list(state["refused"])
