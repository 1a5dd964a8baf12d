"""Lineage: the chain of manifests from a result back to its sources and forward to everything made from it.

`graph` makes one graph of manifests, and perhaps of a run's plan. `trace` prints it; a page draws it, with the segments
of a crawl as one node (`folded`).
"""

import datetime
import json
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from contract.errors import InputError
from contract.headline import headline
from contract.identity import Identity, Input
from contract.manifest import Manifest, read_all
from contract.masking import masked
from contract.plan import Task
from contract.printable import printable
from contract.stages import STAGES, upstream
from contract.store import Store

Key = tuple[str, str, str]
"""The stage, the fingerprint and the partition of a result."""
K = TypeVar("K")
N = TypeVar("N")

ABSENT = "its manifest is not in this store"
UNREADABLE = "its manifest cannot be read"
TO_DO = "not done yet"


@dataclass(frozen=True)
class Made:
    """What a manifest says of a result, without the list of its files. `bytes` are those that its own task wrote."""

    rows_read: int
    rows_kept: int
    bytes: int
    started: datetime.datetime
    finished: datetime.datetime
    code: str
    sources: tuple[str, ...]
    headline: str
    extended_from: str | None = None
    """The checkpoint of another run from which training went on."""

    @classmethod
    def of(cls, manifest: Manifest) -> "Made":
        source = manifest.metrics.get("extended_from")
        return cls(
            manifest.rows.read,
            manifest.rows.kept,
            sum(file.bytes for file in manifest.files if file.path.startswith(f"{manifest.prefix}/")),
            manifest.started,
            manifest.finished,
            manifest.code,
            manifest.sources,
            headline(manifest),
            source if isinstance(source, str) else None,
        )


@dataclass(frozen=True)
class Node:
    """One result, or one that should be there: then `made` is None and `why` says why.

    `identity` is None if neither a manifest nor a plan says what decides it; then its inputs are not known.
    """

    key: Key
    made: Made | None = None
    identity: Identity | None = None
    why: str = ""

    @classmethod
    def of(cls, manifest: Manifest) -> "Node":
        return cls(_key(manifest), Made.of(manifest), manifest.identity)

    @classmethod
    def of_task(cls, task: Task, made: Made | None = None, why: str = TO_DO) -> "Node":
        """The node of a planned task. `why` counts if it is not made."""
        return cls((task.stage, task.fingerprint, task.partition), made, task.identity, "" if made else why)


@dataclass(frozen=True)
class Graph(Generic[K, N]):
    """Nodes by key, and for each key the keys of what it was made from."""

    nodes: Mapping[K, N]
    back: Mapping[K, tuple[K, ...]]

    @cached_property
    def forward(self) -> Mapping[K, tuple[K, ...]]:
        """For each key the keys of what was made from it."""
        edges: dict[K, dict[K, None]] = {}
        for key, inputs in self.back.items():
            for one in inputs:
                edges.setdefault(one, {})[key] = None
        return {key: tuple(found) for key, found in edges.items()}

    def inputs(self, starts: Iterable[K]) -> Iterator[tuple[K, int]]:
        """All that the starts were made from, directly or not, each once with its distance, nearest first."""
        return _walk(starts, self.back)

    def results(self, starts: Iterable[K]) -> Iterator[tuple[K, int]]:
        """All that was made from the starts, likewise."""
        return _walk(starts, self.forward)


def _walk(starts: Iterable[K], edges: Mapping[K, tuple[K, ...]]) -> Iterator[tuple[K, int]]:
    own = dict.fromkeys(starts)
    seen = set(own)
    waiting = deque((one, 1) for key in own for one in edges.get(key, ()))
    while waiting:
        key, depth = waiting.popleft()
        if key not in seen:
            seen.add(key)
            yield key, depth
            waiting.extend((one, depth + 1) for one in edges.get(key, ()))


def graph(known: Iterable[Node], unreadable: Collection[str] = ()) -> Graph[Key, Node]:
    """The graph of the known results, of those that only an input names, and of those whose manifests are unreadable.

    known: of manifests, or of a plan's tasks: their edges are known even if their manifests are missing. unreadable:
    the prefixes of manifests that cannot be read.
    """
    nodes = {node.key: node for node in known}
    back = {key: tuple(map(_input_key, node.identity.inputs)) for key, node in nodes.items() if node.identity}
    bad = {_key_of(prefix) for prefix in unreadable}
    for key in (*(one for inputs in back.values() for one in inputs), *bad):
        nodes.setdefault(key, Node(key, why=UNREADABLE if key in bad else ABSENT))
    return Graph(nodes, back)


def gaps(found: Graph[Key, Node], starts: Collection[Key]) -> list[Key]:
    """The results that may have been made from the starts, although nothing says so: their manifests are not there.

    Without its manifest nobody knows a result's inputs. Those that were reached another way are left out.
    """
    reached = {*starts, *(key for key, _ in found.results(starts))}
    return [
        key
        for key, node in found.nodes.items()
        if node.identity is None and key not in reached and any(_may_follow(start, key) for start in starts)
    ]


def _may_follow(start: Key, key: Key) -> bool:
    stages = start[0], key[0]
    if not all(stage in STAGES for stage in stages) or start[0] not in upstream(key[0]):
        return False
    return start[2] == key[2] or any(STAGES[stage].scope == "corpus" for stage in stages)


@dataclass(frozen=True)
class Group:
    """Results that are told as one: one of a whole corpus, all segments that a stage made with the same settings, or
    all benchmarks of a model."""

    stage: str
    nodes: tuple[Node, ...]

    @property
    def made(self) -> list[Made]:
        return [node.made for node in self.nodes if node.made]

    @property
    def identity(self) -> Identity | None:
        return next((node.identity for node in self.nodes if node.identity), None)


def folded(found: Graph[Key, Node]) -> Graph[str, Group]:
    """The graph with all segments of one stage and the same settings as one node, and so all benchmarks of a model.

    Keys hold the stage's name.
    """
    groups: dict[str, list[Node]] = {}
    group_of: dict[Key, str] = {}
    for key, node in found.nodes.items():
        group_of[key] = _fold_key(node)
        groups.setdefault(group_of[key], []).append(node)
    back: dict[str, dict[str, None]] = {name: {} for name in groups}
    for key, inputs in found.back.items():
        back[group_of[key]] |= dict.fromkeys(group_of[one] for one in inputs)
    return Graph(
        {name: Group(nodes[0].key[0], tuple(nodes)) for name, nodes in groups.items()},
        {name: tuple(inputs) for name, inputs in back.items()},
    )


def _fold_key(node: Node) -> str:
    stage, fingerprint, partition = node.key
    if stage not in STAGES or STAGES[stage].scope == "corpus":
        return f"{stage} {fingerprint} {partition}"
    if STAGES[stage].scope == "model":
        decides: object = node.identity and [one.prefix for one in node.identity.inputs]
        return f"{stage} {json.dumps(decides)}"
    decides = node.identity and (node.identity.version, node.identity.settings, node.identity.facts)
    return f"{stage} {json.dumps(decides, sort_keys=True)}"


def trace(store: Store, uri: str) -> list[str]:
    """Printable lines that show a manifest's chain back to the crawl files and forward to the models.

    `uri` is the URI of a manifest, of its folder, or of a crawl file. It may also be a local path, with links in it, or
    a manifest's path relative to the store. Of a committed file, the lines name all manifests that list it. Raises
    InputError if nothing in the store matches.
    """
    uri = masked(uri)  # manifests hold masked URIs
    manifests, unreadable = read_all(store)
    found = graph(map(Node.of, manifests), unreadable)
    place = _place(uri)
    named = dict.fromkeys(source for one in manifests for source in one.sources)
    source = uri if uri in named else next((one for one in named if _place(one) == place), None)
    if source is not None:
        users = [_key(one) for one in manifests if source in one.sources]
        made = [*((key, 1) for key in users), *((key, depth + 1) for key, depth in found.results(users))]
        return list(map(printable, [source, *_told(found, made, "made"), *_unknown(found, users)]))
    prefixes = {uri.rstrip("/"), place.removeprefix(_place(store.uri) + "/")}
    start = next((_key(one) for one in manifests if prefixes & {one.prefix, one.path}), None)
    listing = [one for one in manifests if any(file.path in prefixes for file in one.files)]
    if start is None and listing:
        return list(map(printable, [f"{uri} is listed by", *(f"  {store.full(one.path)}" for one in listing)]))
    if start is None:
        lacking = f"; {len(unreadable):,} of its manifests cannot be read" if unreadable else ""
        raise InputError(
            f"{uri}: neither a manifest in {store.uri} nor a file that one of its manifests names{lacking}"
        )
    lines = [_describe(found.nodes[start]), *_sources(found.nodes[start], 1)]
    lines += _told(found, found.inputs([start]), "from")
    lines += _told(found, found.results([start]), "made")
    return list(map(printable, [*lines, *_unknown(found, [start])]))


def _place(uri: str) -> str:
    """The real path, without links, dots and `~`, of a local path or file URI; any other URI unchanged."""
    path = uri.removeprefix("file://")
    return uri.rstrip("/") if "://" in path else os.path.realpath(os.path.expanduser(path))


def _key(manifest: Manifest) -> Key:
    return manifest.stage, manifest.fingerprint, manifest.partition


def _input_key(one: Input) -> Key:
    return one.stage, one.fingerprint, one.partition


def _key_of(prefix: str) -> Key:
    stage, _, rest = prefix.partition("/")
    fingerprint, _, partition = rest.partition("/")
    return stage, fingerprint, partition


def _told(found: Graph[Key, Node], reached: Iterable[tuple[Key, int]], word: str) -> Iterator[str]:
    for key, depth in reached:
        yield "  " * depth + f"{word} {_describe(found.nodes[key])}"
        if word == "from":
            yield from _sources(found.nodes[key], depth + 1)


def _sources(node: Node, depth: int) -> Iterator[str]:
    yield from ("  " * depth + f"from {source}" for source in (node.made.sources if node.made else ()))


def _unknown(found: Graph[Key, Node], starts: Collection[Key]) -> Iterator[str]:
    """A line for each result that may belong to the results of the starts, and whose manifest is not there."""
    reached = {*starts, *(key for key, _ in found.results(starts))}
    for key in gaps(found, starts):
        after = sum(one not in reached for one, _ in found.results([key]))
        also = f", and then {after:,} more made from it" if after else ""
        yield f"  perhaps made {_describe(found.nodes[key])}{also}"


def _describe(node: Node) -> str:
    stage, fingerprint, partition = node.key
    short = f"{stage} {partition} {fingerprint[:12]}"
    if node.made is None:
        return f"{short} ({node.why})"
    rows = f", {node.made.rows_kept:,} of {node.made.rows_read:,} documents" if node.made.rows_read else ""
    if node.made.extended_from:
        rows += f", extended from {node.made.extended_from}"
    return f"{short} ({node.made.finished:%Y-%m-%d %H:%M}, code {node.made.code}{rows})"
