"""Thins curves to a bounded number of points that draw the same line, so that a page of millions of points is quick.

The thinned curves of a task are committed beside the full ones, as a file of kind `curves`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from contract.errors import DamagedError
from contract.metrics import Point, charted

BUCKETS = 256  # of one curve; a chart on a page is a few hundred pixels wide
CURVES = 400  # of one task; a recipe with many sources has several for each

Row = tuple[int, float, float]
"""Step, value, and Unix time in seconds."""


@dataclass(frozen=True)
class Curve:
    """The points of one curve in the order of steps; the three are equally long. Times are Unix times in seconds."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
    times: tuple[float, ...]


class _Buckets:
    """One curve: of each bucket of steps its first, lowest, highest and last point."""

    def __init__(self) -> None:
        self.width = 1
        self.rows: dict[int, tuple[Row, Row, Row, Row]] = {}

    def add(self, row: Row) -> None:
        self._put(row[0] // self.width, (row, row, row, row))
        while len(self.rows) > BUCKETS:
            self.width *= 2
            old, self.rows = self.rows, {}
            for number, four in old.items():
                self._put(number // 2, four)

    def _put(self, number: int, four: tuple[Row, Row, Row, Row]) -> None:
        if known := self.rows.get(number):
            lowest = min(known[1], four[1], key=lambda row: row[1])
            highest = max(known[2], four[2], key=lambda row: row[1])
            four = (known[0], lowest, highest, four[3])
        self.rows[number] = four

    def curve(self) -> Curve:
        rows = sorted({row for four in self.rows.values() for row in four}, key=lambda row: (row[0], row[2]))
        steps, values, times = zip(*rows, strict=True) if rows else ((), (), ())
        return Curve(steps, values, times)


class Thinner:
    """Takes points as they come and keeps, of each bucket of steps of each curve, the first, lowest, highest and last.

    These four draw the line that all points draw, if a bucket is not wider than a pixel (M4, Jugel et al. 2014,
    "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB). So a spike of one step never disappears. A
    bucket is one step wide at first; where a curve would get more than BUCKETS buckets, their width doubles. The points
    of one curve come in the order of steps. Of more than CURVES curves the later ones are left out.
    """

    def __init__(self) -> None:
        self._curves: dict[str, _Buckets] = {}

    def add(self, points: Iterable[Point]) -> None:
        for point in charted(points):
            found = self._curves.get(point.name)
            if found is None:
                if len(self._curves) == CURVES:
                    continue
                found = self._curves[point.name] = _Buckets()
            found.add((point.step, point.value, point.time))

    def add_curves(self, curves: Mapping[str, Curve]) -> None:
        """Add curves that were thinned before."""
        for name, curve in curves.items():
            rows = zip(curve.steps, curve.values, curve.times, strict=True)
            self.add(Point(step, name, value, time) for step, value, time in rows)

    def curves(self) -> dict[str, Curve]:
        """Name -> the thinned curve, in the order in which the curves began."""
        return {name: buckets.curve() for name, buckets in self._curves.items()}


def thin(points: Iterable[Point]) -> dict[str, Curve]:
    """Name -> the thinned curve of some points."""
    thinner = Thinner()
    thinner.add(points)
    return thinner.curves()


def dump_curves(curves: Mapping[str, Curve]) -> bytes:
    """Curves as JSON by columns, which is read ten times as fast as one object a point."""
    return json.dumps({name: [curve.steps, curve.values, curve.times] for name, curve in curves.items()}).encode()


def load_curves(data: bytes) -> dict[str, Curve]:
    """The curves of a file that `dump_curves` wrote. Raises DamagedError if it is none."""
    try:
        found = {str(name): Curve(*map(tuple, columns)) for name, columns in json.loads(data).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DamagedError(f"these are no curves ({type(error).__name__}: {error})") from error
    if any(len({len(one.steps), len(one.values), len(one.times)}) != 1 for one in found.values()):
        raise DamagedError("these are no curves: their columns differ in length")
    return found
