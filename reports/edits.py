"""How a text was changed: by lines, and within changed lines by words, in a bounded time for any two texts.

The pieces that two texts share are found by Myers' algorithm (An O(ND) Difference Algorithm and Its Variations, 1986),
whose time grows with the square of the number of changes. So its steps are counted, and a comparison that takes more
than STEPS of them is given up: Python takes half a second for so many. Pieces that only one text has cost no steps.
"""

import re
from array import array
from collections.abc import Iterator, Sequence

CHARS = 1_000_000  # of both texts together: to cut them into pieces takes 0.1 s
STEPS = 1_000_000
Edit = tuple[int, int, str]
"""Start and end in the later text, and what of the earlier one is gone there. What a mask replaced is not told."""
Change = tuple[int, int, int, int]
"""Start and end of pieces of the first list that give way to pieces of the second one, and start and end of these."""


class TooDifferentError(Exception):
    """Two texts are too long, or differ in too many places, to be compared."""


class Comparison:
    """Compares lists of pieces. steps: how many it may still take, for all that it compares."""

    def __init__(self, steps: int = STEPS) -> None:
        self.steps = steps

    def changes(self, one: Sequence[str], other: Sequence[str]) -> Iterator[Change]:
        """The shortest list of changes from one list to the other. Raises TooDifferentError without steps left."""
        common = {*one} & {*other}
        places = [[at for at, piece in enumerate(pieces) if piece in common] for pieces in (one, other)]
        numbers = {piece: number for number, piece in enumerate(common)}
        kept = [[numbers[pieces[at]] for at in where] for pieces, where in zip((one, other), places, strict=True)]
        a = c = 0
        for b, d in [*((places[0][i], places[1][j]) for i, j in self._shared(*kept)), (len(one), len(other))]:
            if a < b or c < d:
                yield a, b, c, d
            a, c = b + 1, d + 1

    def _shared(self, a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
        """A longest list of pairs of places at which both lists have the same, ascending."""
        rows, x, y = self._reached(a, b), len(a), len(b)
        found: list[tuple[int, int]] = []
        for edits in range(len(rows) - 2, -1, -1):
            before, at = rows[edits], (x - y + edits) // 2
            begin = max(before[at + 1], before[at] + 1)
            found += [(one, one - x + y) for one in range(x - 1, begin - 1, -1)]
            inserted = before[at + 1] > before[at]
            y = begin - x + y - inserted
            x = begin - (not inserted)
        return found[::-1]

    def _reached(self, a: Sequence[int], b: Sequence[int]) -> "list[array[int]]":
        """For each number of edits, how far in `a` every diagonal (place in `a` less place in `b`) can be reached.

        Row 1 is of no edits, row n + 1 of n: diagonals -n, -n + 2, ... n, with a -1 before and behind.
        """
        rows = [array("i", [-1, -1])]
        for edits in range(len(a) + len(b) + 1):
            before, row = rows[-1], array("i", [-1])
            for at in range(edits + 1):
                begin = x = max(before[at + 1], before[at] + 1)
                y = x - 2 * at + edits
                while x < len(a) and y < len(b) and a[x] == b[y]:
                    x, y = x + 1, y + 1
                row.append(x)
                self.steps -= 1 + x - begin
                if self.steps < 0:
                    raise TooDifferentError
                if x >= len(a) and y >= len(b):
                    return [*rows, row]
            row.append(-1)
            rows.append(row)
        raise AssertionError("all pieces of one can be removed, and all of the other inserted")


def edits_of(before: str, after: str, steps: int = STEPS) -> list[Edit]:
    """How a text was changed, by lines and then by words; white space alone is no change.

    Raises TooDifferentError for texts that are too long, or differ in too many places, to be compared in `steps` steps.
    """
    if len(before) + len(after) > CHARS:
        raise TooDifferentError
    return list(_of_lines(before.splitlines(keepends=True), after.splitlines(keepends=True), Comparison(steps)))


def _of_lines(one: Sequence[str], other: Sequence[str], comparison: Comparison) -> Iterator[Edit]:
    starts = _starts(other, 0)
    for a, b, c, d in comparison.changes([line.strip() for line in one], [line.strip() for line in other]):
        gone, made = "".join(one[a:b]), "".join(other[c:d])
        if gone.strip() and made.strip():
            yield from _of_words(gone, made, starts[c], comparison)
        else:
            yield from _edit(gone, made, starts[c], starts[d])


def _of_words(before: str, after: str, at: int, comparison: Comparison) -> Iterator[Edit]:
    """The edits between two passages. at: where the later one begins."""
    one, other = (re.findall(r"\s+|\S+", part) for part in (before, after))
    starts = _starts(other, at)
    for a, b, c, d in comparison.changes(one, other):
        yield from _edit("".join(one[a:b]), "".join(other[c:d]), starts[c], starts[d])


def _edit(gone: str, made: str, start: int, end: int) -> Iterator[Edit]:
    if made.strip() and gone.strip() != made.strip():
        yield start, end, ""
    elif gone.strip() and not made.strip():
        yield start, start, gone


def _starts(pieces: Sequence[str], at: int) -> list[int]:
    """Where each piece begins, and where the last one ends."""
    found = [at]
    for piece in pieces:
        found.append(found[-1] + len(piece))
    return found
