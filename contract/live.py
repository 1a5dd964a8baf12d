"""The curves of a running task: numbered files below its attempt, which no manifest lists and which go at its end.

S3 cannot append, so each few seconds' points are a file of their own. Every EVERY files, one more file holds the
thinned curves up to there, so that whoever looks for the first time reads few files, however long the task has run.
"""

import re
from dataclasses import dataclass, field

from contract.errors import DamagedError
from contract.metrics import load_points
from contract.store import Entry, Store
from contract.thinning import Curve, Thinner, load_curves

EVERY = 16
ALL_STEPS, LEFT_S = "all_steps", "left_s"
"""Curves that say how many steps the task takes in all, and how many seconds are left. They are never committed."""
FILE = re.compile(r".+/(?P<attempt>attempt-[0-9a-z]+)/live/(?P<kind>points|curves)-(?P<number>[0-9]{6,})[.]jsonl?")


def points_name(number: int) -> str:
    """The name of a file of points in the folder of an attempt."""
    return f"live/points-{number:06d}.jsonl"


def curves_name(number: int) -> str:
    """The name of the file that holds the thinned curves of the files of points up to and including `number`."""
    return f"live/curves-{number:06d}.json"


@dataclass(frozen=True)
class Seen:
    """How far somebody has read: an attempt, and the number of the last of its files."""

    attempt: str
    number: int


@dataclass(frozen=True)
class Live:
    """What a running task has shown since a reader last looked.

    `whole`: the curves are all there are and replace what the reader has; else they are new points only. `modified` is
    the Unix time in seconds of the newest file.
    """

    seen: Seen
    whole: bool
    curves: dict[str, Curve]
    modified: float


@dataclass
class _Files:
    """The files of one attempt by their numbers."""

    points: dict[int, Entry] = field(default_factory=dict)
    curves: dict[int, Entry] = field(default_factory=dict)

    @property
    def modified(self) -> int:
        return max(entry.modified for entry in (*self.points.values(), *self.curves.values()))


def read_live(store: Store, prefix: str, seen: Seen | None = None) -> Live | None:
    """What the attempt below a task's prefix that wrote last has shown after `seen`; None if no attempt shows any.

    Opens only files that are new to the reader. A file that is just being written is left for the next time.
    """
    try:
        attempts = _attempts(store, prefix)
        if not attempts:
            return None
        attempt = max(attempts, key=lambda name: attempts[name].modified)
        return _read(store, attempt, attempts[attempt], seen)
    except FileNotFoundError:  # the task has begun just now, or its attempt has committed meanwhile
        return None


def written(store: Store, prefix: str) -> float | None:
    """When the attempt below a task's prefix that wrote last has done so, as a Unix time in seconds.

    None if no attempt shows any points. Nothing is opened.
    """
    try:
        return max((files.modified / 1e9 for files in _attempts(store, prefix).values()), default=None)
    except FileNotFoundError:  # the task has begun just now, or its attempt has committed meanwhile
        return None


def _attempts(store: Store, prefix: str) -> dict[str, _Files]:
    """The files of each attempt below a task's prefix that shows points."""
    attempts: dict[str, _Files] = {}
    for entry in store.files(prefix):
        if found := FILE.fullmatch(entry.path):
            files = attempts.setdefault(found["attempt"], _Files())
            (files.points if found["kind"] == "points" else files.curves)[int(found["number"])] = entry
    return attempts


def _read(store: Store, attempt: str, files: _Files, seen: Seen | None) -> Live:
    number = seen.number if seen and seen.attempt == attempt else -1
    whole, thinner = number < 0, Thinner()
    newest = max(files.curves, default=-1)
    if newest > number:
        try:
            thinner.add_curves(load_curves(store.read_bytes(files.curves[newest].path)))
            whole, number = True, newest
        except DamagedError:  # just being written: the points that it sums up are all there
            pass
    for one in sorted(files.points):
        if one > number:
            try:
                points = load_points(store.read_bytes(files.points[one].path))
            except (ValueError, TypeError):
                points = []
            if not points:  # just being written
                break
            thinner.add(points)
            number = one
    return Live(Seen(attempt, number), whole, thinner.curves(), files.modified / 1e9)
