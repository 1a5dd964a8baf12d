"""The funnel: documents and bytes after each stage of a run, and why documents were dropped.

Examples for chat models are made of documents or read from files, so they stand in a table of their own.
"""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contract.errors import StoreError
from contract.fetch import warn
from contract.manifest import Manifest, Rows, find
from contract.plan import Run, Task
from contract.printable import printable
from contract.stages import STAGES, upstream

REASONS = 6  # so many of a stage's most frequent reasons are shown


@dataclass(frozen=True)
class Level:
    """One stage, summed over its segments."""

    stage: str
    read: int
    kept: int
    bytes_kept: int
    reasons: Counter[str]
    losses: Counter[str]


def levels(run: Run, counts: str = "documents") -> list[Level]:
    """One level for each finished Spark stage that judges documents, in pipeline order; or `counts="examples"`."""
    made: list[Level] = []
    tasks = run.tasks()
    for name in (stage.name for stage in STAGES.values() if stage.drops and stage.counts == counts):
        done = list(filter(None, (_readable(run, task) for (stage, _), task in tasks.items() if stage == name)))
        if any(one.rows.read or one.rows.losses for one in done):
            made.append(summed(name, [one.rows for one in done]))
    return made


def _readable(run: Run, task: Task) -> Manifest | None:
    """The task's manifest; None if it is not done, and with a warning if its manifest cannot be read."""
    try:
        return find(run.store, task)
    except StoreError as error:
        warn(f"left out: {error}")
        return None


def summed(stage: str, counts: Iterable[Rows]) -> Level:
    """The level of a stage from the counts of its segments."""
    reasons: Counter[str] = Counter()
    losses: Counter[str] = Counter()
    read = kept = size = 0
    for one in counts:
        reasons.update(one.reasons)
        losses.update(one.losses)
        read, kept, size = read + one.read, kept + one.kept, size + one.bytes_kept
    return Level(stage, read, kept, size, reasons, losses)


def entered(found: Sequence[Level], level: Level) -> int:
    """How many documents the stages read that stand first on the way to a level: of the crawl, and of its sources."""
    read = {one.stage: one.read for one in reversed(found)}
    way = {level.stage, *upstream(level.stage)} & read.keys()
    return sum(read[stage] for stage in way if not upstream(stage) & read.keys())


def render(found: list[Level]) -> str:
    """The funnel as a table for the terminal."""
    lines = [f"{'stage':<16}{'documents':>11}{'kept':>8}{'of all':>8}{'bytes':>10}  dropped because"]
    for level in found:
        share = level.kept / level.read if level.read else 0.0
        everything = entered(found, level)
        of_all = level.kept / everything if everything else 0.0
        size = human_bytes(level.bytes_kept)
        lines.append(f"{level.stage:<16}{level.kept:>11,}{share:>8.1%}{of_all:>8.1%}{size:>10}  {_why(level)}")
        if level.losses:
            losses = ", ".join(f"{kind} {count:,}" for kind, count in level.losses.most_common())
            lines += textwrap.wrap(
                f"records that gave no document: {losses}", 110, initial_indent=" " * 16, subsequent_indent=" " * 18
            )
    return "\n".join(map(printable, lines))


def render_examples(found: list[Level]) -> list[str]:
    """The levels of stages that judge examples, as the lines of a table; none without such a stage."""
    lines = [f"{'stage':<16}{'examples':>11}{'kept':>8}{'bytes':>18}  dropped because"] if found else []
    for level in found:
        share = level.kept / level.read if level.read else 0.0
        size = human_bytes(level.bytes_kept)
        lines.append(f"{level.stage:<16}{level.kept:>11,}{share:>8.1%}{size:>18}  {_why(level)}")
    return list(map(printable, lines))


def tables(run: Run) -> list[str]:
    """The funnel of a run and the table of its examples, as lines."""
    examples = render_examples(levels(run, "examples"))
    return [render(levels(run)), *([""] if examples else []), *examples]


def _why(level: Level) -> str:
    """The reasons of a level, the most frequent first."""
    why = ", ".join(f"{reason} {count:,}" for reason, count in level.reasons.most_common(REASONS)) or "-"
    if len(level.reasons) > REASONS:
        others = level.reasons.total() - sum(count for _, count in level.reasons.most_common(REASONS))
        why += f", {len(level.reasons) - REASONS} other reasons {others:,}"
    return why


def human_bytes(count: float) -> str:
    """Bytes with a binary unit: 1536 -> 1.5 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
