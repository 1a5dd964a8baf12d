"""Finds what no manifest lists: what attempts left behind that were killed, or that lost to a faster one. Nobody reads it."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from contract.manifest import read_all
from contract.stages import STAGES
from contract.store import Entry, Store

ATTEMPT = re.compile(r".+/attempt-[0-9a-f]{32}(?=/)")
LEFTOVER = re.compile(r".+/\.create-[^/]+$")  # of a manifest whose writer was killed before it had its name


@dataclass(frozen=True)
class Garbage:
    """What can go: the folder of an attempt, or one leftover file. `path` is relative to the store."""

    path: str
    bytes: int


def collect(store: Store, older_than_s: float, now: float, delete: bool = False) -> tuple[list[Garbage], list[Garbage]]:
    """(what is old enough to go, what is too young), each sorted by path. The first is deleted if `delete` says so.

    An attempt is as old as its newest file. It goes when that was written more than `older_than_s` seconds before `now`, a Unix time:
    a younger one may still be running. Where a manifest cannot be read, all attempts beside it stay: it may list one of them.
    """
    # Files first, manifests after: an attempt that commits in between is found listed, never taken for garbage.
    found = _attempts(entry for stage in STAGES for entry in store.files(stage))
    manifests, unreadable = read_all(store)
    listed = {f"{one.prefix}/{one.attempt}" for one in manifests}
    listed |= {path for path in found if any(path.startswith(f"{prefix}/") or path == prefix for prefix in unreadable)}
    old: list[Garbage] = []
    young: list[Garbage] = []
    for path in sorted(found.keys() - listed):
        newest_s = max(entry.modified for entry in found[path]) / 1e9
        garbage = Garbage(path, sum(entry.size for entry in found[path]))
        (old if newest_s < now - older_than_s else young).append(garbage)
    if delete:
        for one in old:
            store.delete(one.path)
    return old, young


def _attempts(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The files of each attempt, and each leftover by itself."""
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        path = ATTEMPT.match(entry.path) or LEFTOVER.match(entry.path)
        if path:
            found[path[0]].append(entry)
    return found
