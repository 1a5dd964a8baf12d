"""Garbage collection: find and delete attempts that no manifest lists, because they were killed or lost a race."""

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
# The manifest of a damaged checkpoint, renamed so that a person can look at it.
DAMAGED = re.compile(r"(.+)/damaged-(?:attempt-)?[0-9a-f]{32}[.]json")
# A file left by a process that was killed while it created a file or probed the store.
LEFTOVER = re.compile(r"(.+/)?\.(create|probe)-[0-9a-f]{32}")


YOUNGEST_S = 3600.0  # six heartbeats of a running attempt


@dataclass(frozen=True)
class Garbage:
    """The folder of an attempt, or one leftover file. `path` is relative to the store."""

    path: str
    bytes: int


def collect(store: Store, older_than_s: float, now: float, delete: bool = False) -> tuple[list[Garbage], list[Garbage]]:
    """Return (garbage that is old enough to delete, garbage that is too young), each sorted by path.

    The first list is deleted if `delete` is true. An attempt is as old as its newest file; a long-running attempt
    renews its heartbeat file. It is old enough if that file was written more than `older_than_s` seconds before `now`,
    a Unix time by the store's clock. If a manifest cannot be read or was set aside as damaged, all attempts beside it
    stay, because it may list one of them. Raises InputError if `older_than_s` is less than an hour: heartbeats may be
    late.
    """
    if not older_than_s >= YOUNGEST_S:
        raise InputError(
            "gc: an attempt younger than an hour may still be running; "
            f"ask for 1 hour or more, not for {older_than_s / 3600:g}"
        )
    # List the files before the manifests: an attempt that commits in between is then listed by its manifest.
    entries = [*store.files("", recursive=False), *(entry for stage in STAGES for entry in store.files(stage))]
    attempts = _attempts(entries)
    manifests, unreadable = read_all(store)
    listed = {f"{manifest.prefix}/{manifest.attempt}" for manifest in manifests}
    # A manifest may list files of a stage before, whose own manifest may have been deleted since.
    listed |= {match[0] for one in manifests for file in one.files if (match := ATTEMPT.match(file.path))}
    unsure = {*unreadable, *(match[1] for entry in entries if (match := DAMAGED.fullmatch(entry.path)))}
    listed |= {path for path in attempts if path.rpartition("/")[0] in unsure}
    old: list[Garbage] = []
    young: list[Garbage] = []
    since = now - older_than_s
    for path in sorted(attempts.keys() - listed):
        garbage = Garbage(path, sum(entry.size for entry in attempts[path]))
        awake = _written_since(attempts[path], since) or (delete and _awake(store, path, since))
        (young if awake else old).append(garbage)
        if delete and not awake:
            try:
                store.delete(path)
            except StoreError as error:  # for example a link out of the store; go on with the rest
                warn(f"left alone: {error}")
                old.remove(garbage)
    return old, young


def _awake(store: Store, path: str, since: float) -> bool:
    """Check again just before deletion: has the attempt written a file since a Unix time, or committed its manifest?"""
    entry = store.entry(path)
    if _written_since([entry] if entry else store.files(path), since):
        return True
    if LEFTOVER.fullmatch(path):
        return False
    folder, _, name = path.rpartition("/")
    try:
        return read(store, folder).attempt == name
    except FileNotFoundError:
        return False
    except StoreError:
        return True  # an unreadable manifest may list the attempt


def _written_since(entries: Iterable[Entry], since: float) -> bool:
    return any(entry.modified / 1e9 >= since for entry in entries)


def _attempts(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Path -> files of each attempt folder and each leftover file."""
    attempts: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        match = ATTEMPT.match(entry.path) or LEFTOVER.fullmatch(entry.path)
        if match:
            attempts[match[0]].append(entry)
    return attempts
