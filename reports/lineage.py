"""The lineage of one stage of a run, as a page shows it: from the crawl files on, with all segments of a stage as one.

The edges come from the plans of runs, so a result that is missing or damaged has its place in the graph all the same.
Figures come from manifests; of a stage with more than SEGMENTS segments they are those of the first.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from contract.errors import StoreError
from contract.lineage import TO_DO, Graph, Group, Key, Made, Node, folded, graph
from contract.manifest import read
from contract.plan import Run
from contract.printable import printable
from contract.stages import STAGES
from contract.store import Store
from reports.layers import Layers, Place, layers
from reports.models import READERS

SEGMENTS = 64  # of one stage whose manifests are read
MISSING, SETTINGS, SOURCES, VALUE_CHARS = 10, 40, 10, 200  # most that are told of one step
CACHED = 2048
FEW = 16  # inputs
FILES = "files"
"""The stage of the node of the crawl files."""
WIDTH, HEIGHT, ACROSS, DOWN = 176, 42, 22, 32  # of a box, and between boxes, in pixels
PASSING, PORT = 4, 12  # the width of a line that passes a row, and between two lines at a box, in pixels


@dataclass(frozen=True)
class Step:
    """One node of the page: what a stage made, of all segments together.

    run: the run whose plan has it, a number in the order given. count: its results; done: those that were found; told:
    those whose manifests were read and whose figures are summed. seconds: between the first start and the last end.
    missing: results that are not there, each with why.
    """

    key: str
    stage: str
    run: int
    count: int
    done: int = 0
    told: int = 0
    said: str = ""
    rows_read: int = 0
    rows_kept: int = 0
    bytes: int = 0
    finished: str = ""
    seconds: float | None = None
    code: str = ""
    fingerprint: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    sources: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lineage:
    """The steps before and after one step, by key. `back` has what each was made from, `forward` what from it."""

    start: str
    steps: Mapping[str, Step]
    back: Mapping[str, tuple[str, ...]]
    forward: Mapping[str, tuple[str, ...]]

    @property
    def inputs(self) -> list[tuple[Step, int]]:
        """All that the start was made from, the nearest first, with its distance."""
        return [(self.steps[key], depth) for key, depth in self._graph.inputs([self.start])]

    @property
    def results(self) -> list[tuple[Step, int]]:
        """All that was made from the start, likewise."""
        return [(self.steps[key], depth) for key, depth in self._graph.results([self.start])]

    @property
    def _graph(self) -> Graph[str, Step]:
        return Graph(self.steps, self.back)


@dataclass(frozen=True)
class Kin:
    """What is kept of another run: its tasks that may be made from another run's results, with their inputs.

    Segments are left out, and so is what reads all segments: of a large crawl these are most of a plan.
    """

    store: Store
    uri: str
    nodes: tuple[Node, ...]

    @classmethod
    def of(cls, run: Run) -> "Kin":
        stages = {name for name in wanted(run) if STAGES[name].scope == "corpus"}
        tasks = [task for task in run.tasks().values() if task.stage in stages and len(task.inputs) <= FEW]
        return cls(run.store, run.uri, tuple(map(Node.of_task, tasks)))


def of_stage(run: Run, stage: str, others: Sequence[Kin] = ()) -> Lineage:
    """The lineage of what a stage of a run made. stage: one of the stage table, or FILES.

    others: further runs that the reader may see, whose results made from this one are shown as well. Their numbers in
    `Step.run` count from 1.
    """
    stages = wanted(run) | {stage}
    planned = {
        node.key: (0, node) for task in run.tasks().values() if task.stage in stages for node in [Node.of_task(task)]
    }
    for number, other in enumerate(others, 1):
        for node in other.nodes if other.store == run.store else ():
            planned.setdefault(node.key, (number, node))
    begin = [
        key for key, (number, _) in planned.items() if number == 0 and key[0] == ("crawl" if stage == FILES else stage)
    ]
    plan = graph(node for _, node in planned.values())
    near = {*begin, *(key for key, _ in plan.inputs(begin)), *(key for key, _ in plan.results(begin))}
    looked = _read(run.store, [key for key in planned if key in near])
    known = []
    for key, (number, node) in planned.items():
        made, why = looked.get(key, (None, node.why))
        if key in near and (made or number == 0):
            known.append(replace(node, made=made, why=why))
    whole = folded(_within(graph(known), {node.key for node in known}))
    return _page(run, stage, whole, {key: number for key, (number, _) in planned.items()}, looked.keys())


def wanted(run: Run) -> set[str]:
    """The stages that a run is there to do: those of an ablation only where it is one."""
    left_out = {"probe"} if not run.recipe.probe.reference else set()
    return {*STAGES} - left_out - ({"ablate"} if not run.recipe.ablate.measured else set())


def _within(found: Graph[Key, Node], keys: Collection[Key]) -> Graph[Key, Node]:
    """The part of a graph between these nodes."""
    back = {key: tuple(one for one in found.back[key] if one in keys) for key in found.back if key in keys}
    return Graph({key: node for key, node in found.nodes.items() if key in keys}, back)


@lru_cache(CACHED)
def _made(store: Store, prefix: str) -> Made:
    return Made.of(read(store, prefix))


def _read(store: Store, keys: Iterable[Key]) -> dict[Key, tuple[Made | None, str]]:
    """Key -> (what its manifest says, or None and why), of at most SEGMENTS of each stage's segments."""
    counts: Counter[str] = Counter()
    chosen = []
    for key in keys:
        counts[key[0]] += 1
        if STAGES[key[0]].scope == "corpus" or counts[key[0]] <= SEGMENTS:
            chosen.append(key)

    def look(key: Key) -> tuple[Made | None, str]:
        try:
            return _made(store, "/".join(key)), ""
        except FileNotFoundError:
            return None, TO_DO
        except StoreError as error:
            return None, str(error)

    return dict(zip(chosen, READERS.map(look, chosen), strict=True))


def _page(run: Run, stage: str, whole: Graph[str, Group], runs: Mapping[Key, int], looked: Collection[Key]) -> Lineage:
    names = {key: f"{group.stage}-{index}" for index, (key, group) in enumerate(whole.nodes.items())}
    steps = {
        names[key]: step_of(names[key], group, min(runs[node.key] for node in group.nodes), looked)
        for key, group in whole.nodes.items()
    }
    back = {names[key]: tuple(names[one] for one in inputs) for key, inputs in whole.back.items()}
    crawls = [name for name, step in steps.items() if step.stage == "crawl"]
    if crawls and run.segments:
        files = [file for segment in run.segments for file in segment.files]
        said = f"{len(files):,} crawl files"
        steps[FILES] = Step(
            FILES, FILES, 0, len(files), len(files), len(files), said, bytes=sum(file.size for file in files)
        )
        back |= dict.fromkeys(crawls, (FILES,)) | {FILES: ()}
    start = next(name for name, step in steps.items() if step.stage == stage and step.run == 0)
    found = Graph(steps, back)
    return Lineage(start, steps, back, found.forward)


def step_of(key: str, group: Group, run: int, asked: Collection[Key]) -> Step:
    """What a page says of a group of results; `asked` are those whose manifests were looked for."""
    looked = [node for node in group.nodes if node.key in asked]
    there = [node.made for node in looked if node.made]
    missing = [f"{node.key[2]}: {node.why}" for node in looked if not node.made]
    settings = sorted(group.identity.settings.items()) if group.identity else []
    first = group.nodes[0]
    step = Step(
        key, group.stage, run, len(group.nodes), done=len(there), told=len(looked), said=_said(group, looked, there),
        fingerprint=first.key[1] if len(group.nodes) == 1 else "",
        settings=tuple((name, printable(_cut(value))) for name, value in settings[:SETTINGS]),
        missing=tuple(map(printable, missing[:MISSING])),
    )  # fmt: skip
    if not there:
        return step
    begun, ended = min(one.started for one in there), max(one.finished for one in there)
    return Step(
        **vars(step)
        | {
            "rows_read": sum(one.rows_read for one in there),
            "rows_kept": sum(one.rows_kept for one in there),
            "bytes": sum(one.bytes for one in there),
            "finished": f"{ended:%Y-%m-%d %H:%M:%S}",
            "seconds": (ended - begun).total_seconds(),
            "code": ", ".join(sorted({one.code for one in there})[:3]),
            "sources": tuple(printable(uri) for one in there for uri in one.sources)[:SOURCES],
        }
    )


def _said(group: Group, looked: Sequence[Node], there: Sequence[Made]) -> str:
    """One short sentence: a result's headline, or how many segments are done."""
    if len(group.nodes) == 1:
        return there[0].headline if there else group.nodes[0].why
    some = f" of the first {len(looked):,}" if len(looked) < len(group.nodes) else ""
    what = "segments" if STAGES[group.stage].scope == "snapshot" else "benchmarks"
    return f"{len(there):,}{some} of {len(group.nodes):,} {what} done"


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= VALUE_CHARS else f"{text[:VALUE_CHARS]}..."


@dataclass(frozen=True)
class Box:
    """Where a step is drawn: the left upper corner, in pixels."""

    step: Step
    x: int
    y: int


@dataclass(frozen=True)
class Drawing:
    """Boxes and the lines between them, for an SVG of this size. A line is the `d` of a path."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[str, ...]


def drawing(found: Lineage) -> Drawing:
    """Draw each step below all that it was made from, with no line behind a box.

    A line is left out if others lead the same way: where A leads to B and B to C, there is none from A to C.
    """
    level = _levels(found.back, found.forward)
    placed = layers(level, _reduced(found.back), WIDTH, PASSING, ACROSS)
    top = {row: DOWN + row * (HEIGHT + DOWN) for row in range(len(placed.rows))}
    left = {place: ACROSS + round(x - WIDTH / 2) for place, x in placed.middle.items()}
    boxes = [
        Box(found.steps[place[0]], left[place], top[place[2]]) for row in placed.rows for place in row if not place[1]
    ]
    leaving, coming = _ports(placed, placed.below), _ports(placed, placed.above)
    lines = [_line([*_points(way, placed, top, leaving, coming)]) for way in placed.ways]
    width = ACROSS + max(
        (round(x) + (PASSING if place[1] else WIDTH) // 2 for place, x in placed.middle.items()), default=0
    )
    return Drawing(width + ACROSS, DOWN + len(placed.rows) * (HEIGHT + DOWN), tuple(boxes), tuple(lines))


def _ports(placed: Layers, near: Mapping[Place, Sequence[Place]]) -> dict[tuple[Place, Place], float]:
    """(Place, the next place of an edge) -> the x at which the edge leaves it: side by side, in the order of these."""
    ports: dict[tuple[Place, Place], float] = {}
    for place, others in near.items():
        apart = 0 if place[1] else min(PORT, WIDTH * 0.8 / len(others))
        for index, other in enumerate(sorted(others, key=lambda one: placed.middle[one])):
            ports[place, other] = placed.middle[place] + (index - (len(others) - 1) / 2) * apart
    return ports


def _points(
    way: Sequence[Place],
    placed: Layers,
    top: Mapping[int, int],
    leaving: Mapping[tuple[Place, Place], float],
    coming: Mapping[tuple[Place, Place], float],
) -> Iterator[tuple[int, int]]:
    """The points of an edge: where it leaves a row and where it enters the next one, in turn."""
    for one, other in pairwise(way):
        yield ACROSS + round(leaving[one, other]), top[one[2]] + HEIGHT
        yield ACROSS + round(coming[other, one]), top[other[2]]


def _levels(back: Mapping[str, tuple[str, ...]], forward: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """The length of the longest way from a source to each node; a source stands just above what needs it first."""
    level: dict[str, int] = {}

    def visit(key: str) -> int:
        if key not in level:
            level[key] = 0  # a foreign manifest could make a circle
            level[key] = max((visit(one) + 1 for one in back.get(key, ())), default=0)
        return level[key]

    for key in back:
        visit(key)
    late = {key: min(level[one] for one in forward[key]) - 1 for key in back if not back[key] and forward.get(key)}
    return level | late


def _reduced(back: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """The edges without those that lead where others lead as well."""
    found = Graph(dict.fromkeys(back), back)
    behind = {key: {one for one, _ in found.inputs([key])} for key in back}
    return {
        key: [one for one in inputs if not any(one in behind[other] for other in inputs)]
        for key, inputs in back.items()
    }


def _line(points: Sequence[tuple[int, int]]) -> str:
    """Through the points: straight down where it passes a row, and in a curve from one row to the next."""
    (x, y), *rest = points
    path = f"M{x} {y}"
    for index, (x2, y2) in enumerate(rest):
        middle = (y + y2) // 2
        path += f"C{x} {middle} {x2} {middle} {x2} {y2}" if index % 2 == 0 else f"V{y2}"
        x, y = x2, y2
    return path
