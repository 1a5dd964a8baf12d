"""Finds what no manifest lists: what attempts left behind that were killed, or that lost to a faster one. Nobody reads it."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from contract.errors import InputError, StoreError
from contract.fetch import warn
from contract.manifest import read, read_all
from contract.stages import STAGES
from contract.store import Entry, Store

ATTEMPT = re.compile(r".+/attempt-[0-9a-f]{32}(?=/)")
DAMAGED = re.compile(
    r"(.+)/damaged-(?:attempt-)?[0-9a-f]{32}[.]json"
)  # the manifest of a checkpoint that was set aside for a person
# Left by a process that was killed while it created a file or probed the store.
LEFTOVER = re.compile(r"(.+/)?\.(create|probe)-[0-9a-f]{32}")


YOUNGEST_S = 3600.0  # six heartbeats of a running attempt


@dataclass(frozen=True)
class Garbage:
    """What can go: the folder of an attempt, or one leftover file. `path` is relative to the store."""

    path: str
    bytes: int


def collect(store: Store, older_than_s: float, now: float, delete: bool = False) -> tuple[list[Garbage], list[Garbage]]:
    """(what is old enough to go, what is too young), each sorted by path. The first is deleted if `delete` says so.

    An attempt is as old as its newest file, which is its heartbeat where it runs for long. It goes when that was written more than
    `older_than_s` seconds before `now`, a Unix time by the store's clock. Where a manifest cannot be read, or
    was set aside, all attempts beside it stay: it may list one of them. Raises InputError for less than an hour: heartbeats may be late.
    """
    if not older_than_s >= YOUNGEST_S:
        raise InputError(
            f"gc: an attempt younger than an hour may still be running; ask for 1 hour or more, not for {older_than_s / 3600:g}"
        )
    # Files first, manifests after: an attempt that commits in between is found listed, never taken for garbage.
    entries = [*store.files("", recursive=False), *(entry for stage in STAGES for entry in store.files(stage))]
    found = _attempts(entries)
    manifests, unreadable = read_all(store)
    listed = {f"{one.prefix}/{one.attempt}" for one in manifests}
    unsure = {*unreadable, *(one[1] for entry in entries if (one := DAMAGED.fullmatch(entry.path)))}
    listed |= {path for path in found if path.rpartition("/")[0] in unsure}
    old: list[Garbage] = []
    young: list[Garbage] = []
    for path in sorted(found.keys() - listed):
        garbage = Garbage(path, sum(entry.size for entry in found[path]))
        since = now - older_than_s
        awake = _written_since(found[path], since) or (delete and _awake(store, path, since))
        (young if awake else old).append(garbage)
        if delete and not awake:
            try:
                store.delete(path)
            except StoreError as error:  # a link, say, that leads out of the store: it must not keep the rest
                warn(f"left alone: {error}")
                old.remove(garbage)
    return old, young


def _awake(store: Store, path: str, since: float) -> bool:
    """Looked at once more, just before it goes: has an attempt written since a Unix time, or has its manifest been created?"""
    entry = store.entry(path)
    if _written_since([entry] if entry else store.files(path), since):
        return True
    folder, _, name = path.rpartition("/")
    if LEFTOVER.fullmatch(path):
        return False
    try:
        return read(store, folder).attempt == name
    except FileNotFoundError:
        return False
    except StoreError:
        return True  # who cannot read a manifest does not know what it lists


def _written_since(entries: Iterable[Entry], since: float) -> bool:
    return any(entry.modified / 1e9 >= since for entry in entries)


def _attempts(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The files of each attempt, and each leftover by itself."""
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        path = ATTEMPT.match(entry.path) or LEFTOVER.fullmatch(entry.path)
        if path:
            found[path[0]].append(entry)
    return found
