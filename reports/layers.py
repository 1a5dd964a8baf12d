"""Places a graph in rows, from above to below, so that every edge can be seen: no edge passes behind a box.

As Sugiyama, Tagawa and Toda (1981) do it: an edge over several rows gets a narrow place of its own in each row between.
The places of a row are ordered by the places that they are joined to, and stand near the middle of these.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean

SWEEPS = 8  # down and up, after which orders and positions hardly change
Place = tuple[str, str, int]
"""Of a box its key, "" and its row; of a passing edge its upper end, its lower end, and the row that it passes."""


@dataclass
class Layers:
    """rows: the places of each row from left to right. middle: place -> the x of its middle, in pixels.

    ways: each edge as the places that it joins, from its upper end to its lower end.
    """

    rows: list[list[Place]]
    ways: list[list[Place]] = field(default_factory=list)
    middle: dict[Place, float] = field(default_factory=dict)
    above: dict[Place, list[Place]] = field(default_factory=dict)
    below: dict[Place, list[Place]] = field(default_factory=dict)


def layers(level: Mapping[str, int], back: Mapping[str, Sequence[str]], box: int, passing: int, gap: int) -> Layers:
    """Place the boxes of a graph and its edges, the leftmost edge of a place at x = 0.

    level: key -> row, from 0. back: key -> where its edges come from, which must be rows above; other edges are left
    out. box, passing, gap: the widths of a box, of the place of a passing edge, and of the space between two places,
    in pixels.
    """
    found = Layers([[(key, "", row) for key, row in level.items() if row == one] for one in range(_rows(level))])
    for lower, inputs in back.items():
        for upper in inputs:
            if level[upper] < level[lower]:
                _join(found, upper, lower, level)
    for sweep in range(SWEEPS):
        _order(found, down=sweep % 2 == 0)
    widths = {place: passing if place[1] else box for row in found.rows for place in row}
    for row in found.rows:
        _set(found, row, dict.fromkeys(row, 0.0), widths, gap)
    for sweep in range(SWEEPS):
        for row in found.rows if sweep % 2 == 0 else reversed(found.rows):
            near = found.above if sweep % 2 == 0 else found.below
            wished = {place: _mean((found.middle[one] for one in near.get(place, ())), found, place) for place in row}
            _set(found, row, wished, widths, gap)
    left = min((x - widths[place] / 2 for place, x in found.middle.items()), default=0.0)
    found.middle = {place: x - left for place, x in found.middle.items()}
    return found


def _rows(level: Mapping[str, int]) -> int:
    return max(level.values(), default=-1) + 1


def _join(found: Layers, upper: str, lower: str, level: Mapping[str, int]) -> None:
    """Join two boxes, through a place of the edge's own in each row between them."""
    between = [(upper, lower, row) for row in range(level[upper] + 1, level[lower])]
    for place in between:
        found.rows[place[2]].append(place)
    way: list[Place] = [(upper, "", level[upper]), *between, (lower, "", level[lower])]
    found.ways.append(way)
    for one, other in pairwise(way):
        found.below.setdefault(one, []).append(other)
        found.above.setdefault(other, []).append(one)


def _order(found: Layers, down: bool) -> None:
    """Order each row by the mean rank of the places that its own are joined to in the row before, which stays."""
    near = found.above if down else found.below
    for row in found.rows if down else found.rows[::-1]:
        rank = {place: index for other in found.rows for index, place in enumerate(other)}
        row.sort(key=lambda place: mean(rank[one] for one in near[place]) if place in near else rank[place])


def _mean(wished: Iterable[float], found: Layers, place: Place) -> float:
    values = list(wished)
    return mean(values) if values else found.middle[place]


def _set(
    found: Layers, row: Sequence[Place], wished: Mapping[Place, float], widths: Mapping[Place, int], gap: int
) -> None:
    """Put the places of a row near the middles that they wish for, in order and without overlap.

    The mean of two solutions: one pushes places to the right where they would overlap, the other to the left.
    """
    right = _pushed(row, wished, widths, gap)
    left = _pushed(row[::-1], {place: -x for place, x in wished.items()}, widths, gap)
    found.middle |= {place: (right[place] - left[place]) / 2 for place in row}


def _pushed(
    row: Sequence[Place], wished: Mapping[Place, float], widths: Mapping[Place, int], gap: int
) -> dict[Place, float]:
    """The middles of a row, each at its wish or as far beyond it as the places before need."""
    found: dict[Place, float] = {}
    end = float("-inf")
    for place in row:
        found[place] = max(wished[place], end + gap + widths[place] / 2)
        end = found[place] + widths[place] / 2
    return found
