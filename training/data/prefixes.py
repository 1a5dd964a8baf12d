"""Finds what rows of tokens begin with in common, so that a model reads it once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Family:
    """Rows that begin alike: the number of tokens that they share, and the numbers of the rows."""

    shared: int
    rows: tuple[int, ...]

    @property
    def saves(self) -> int:
        """The tokens that need not be read again."""
        return (len(self.rows) - 1) * self.shared


def families(rows: Sequence[list[int]], least: int = 1, least_saved: int = 1) -> list[Family]:
    """Divide rows so that few tokens are read more than once, when the shared tokens of each family are read once.

    Each row is in one family. Fewer than `least` tokens in common count as none. A family that would save fewer than
    `least_saved` is not worth a pass of its own: its rows share nothing. Families that share more come first, and the
    rows that share nothing are the last one.
    """
    if not rows:
        return []
    order = sorted(range(len(rows)), key=lambda row: rows[row])
    shares = [common(rows[one], rows[two]) for one, two in pairwise(order)]
    found: list[Family] = []
    alone: list[int] = []
    for one in _divided([shared if shared >= least else 0 for shared in shares]):
        of_family = tuple(order[place] for place in sorted(one.rows))
        if one.saves >= least_saved:
            found.append(Family(one.shared, of_family))
        else:
            alone += of_family
    found.sort(key=lambda one: (-one.shared, one.rows))
    return [*found, Family(0, tuple(alone))] if alone else found


def common(one: Sequence[int], two: Sequence[int]) -> int:
    """How many tokens two rows begin with in common."""
    most = min(len(one), len(two))
    low, high = 0, most  # equal slices compare fast, single tokens do not
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass
class _Open:
    """A run of sorted rows that share so many tokens, and the divisions of the runs inside it that are closed."""

    shared: int
    inside: list[list[Family]]


def _divided(shares: Sequence[int]) -> list[Family]:
    """The division of sorted rows that saves most. shares: what each row shares with the next one.

    Runs of rows that share more lie inside runs that share less, so runs form a tree, which is divided from its leaves.
    """
    open_runs = [_Open(-1, [])]
    for row, shared in enumerate([*shares, -1]):
        made = [Family(0, (row,))]
        while open_runs[-1].shared > shared:
            last = open_runs.pop()
            made = _best(last.shared, [*last.inside, made])
        if open_runs[-1].shared < shared:
            open_runs.append(_Open(shared, []))
        open_runs[-1].inside.append(made)
    return [one for division in open_runs[0].inside for one in division]


def _best(shared: int, inside: list[list[Family]]) -> list[Family]:
    """Of a run whose rows share so many tokens: which of the runs inside it join one family, and which stay divided."""
    joined: list[int] = []
    apart: list[Family] = []
    for division in inside:
        rows = [row for one in division for row in one.rows]
        if sum(one.saves for one in division) > len(rows) * shared:
            apart += division
        else:
            joined += rows
    made = [*apart, *([Family(shared, tuple(joined))] if joined else [])]
    usual = [one for division in inside for one in division]
    return made if sum(one.saves for one in made) >= sum(one.saves for one in usual) else usual
