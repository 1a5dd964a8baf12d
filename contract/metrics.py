"""What a stage reports while it runs: progress lines on standard output, and metric rows for curves.

All stages print them in one format, for the operator's log, for `make demo` and for people:

    progress extract CC-MAIN-2024-10.00000 1,200/5,000 documents 85.3/s 0:45 left
"""

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

PROGRESS = re.compile(
    r"progress (?P<stage>\w+) (?P<partition>\S+) (?P<done>[\d,]+)(?:/(?P<total>[\d,]+))? (?P<unit>\w+)"
    r" (?P<rate>[\d.,]+)/s(?: (?P<left>[\d:]+) left)?(?: (?P<note>.+))?$"
)


SLOWEST_S = 60.0
GROWTH = 0.02

ROWS = "skipped_row"
"""How the names of curves begin that hold numbers of rows, several in one step. They are in no chart."""


class Progress:
    """Prints a progress line at most every `every_s` seconds, and always a last one.

    The longer the stage has run, the longer the time between two lines, up to a minute: a line every two seconds would
    be 216,000 lines in five days, with figures that hardly change from one line to the next.
    """

    def __init__(
        self,
        stage: str,
        partition: str,
        unit: str,
        total: int | None = None,
        start: int = 0,
        every_s: float = 2.0,
        out: TextIO | None = None,
    ) -> None:
        """`start` is the number of units done before a resume: they count as done but not towards the rate."""
        self.stage, self.partition, self.unit, self.total = stage, partition, unit, total
        self.done = self._start = start
        self._every_s, self._out = every_s, out
        self._began = self._said = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count `amount` more units; `note` may carry a figure such as the loss."""
        self.done += amount
        now = time.monotonic()
        if now - self._said >= max(self._every_s, min(SLOWEST_S, GROWTH * (now - self._began))):
            self._say(now, note)

    def finish(self, note: str = "") -> None:
        self._say(time.monotonic(), note)

    def _say(self, now: float, note: str) -> None:
        self._said = now
        seconds = max(now - self._began, 1e-9)
        rate = (self.done - self._start) / seconds
        total = f"/{self.total:,}" if self.total is not None else ""
        line = f"progress {self.stage} {self.partition} {self.done:,}{total} {self.unit} {rate:,.1f}/s"
        if self.total is not None and rate > 0:
            line += f" {clock((self.total - self.done) / rate)} left"
        print(f"{line} {note}".rstrip(), file=self._out or sys.stdout, flush=True)


def clock(seconds: float) -> str:
    """Seconds as 0:45, 12:03 or 1:02:03."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@dataclass(frozen=True)
class Point:
    """One value of one curve. `time` is a Unix time in seconds."""

    step: int
    name: str
    value: float
    time: float


def dump_points(points: Iterable[Point]) -> bytes:
    """Metric rows as JSON lines, the content of a file of kind `metrics`."""
    # Without dataclasses.asdict, which takes most of the time of a run's hundred thousand points.
    return "".join(json.dumps(vars(point)) + "\n" for point in points).encode()


def load_points(data: bytes) -> list[Point]:
    return [Point(**json.loads(line)) for line in data.decode().splitlines()]


def charted(points: Iterable[Point]) -> Iterator[Point]:
    """The points that a chart can show: those of measurements."""
    return (point for point in points if not point.name.startswith(ROWS))
