"""What another threshold of `filter` would keep, from the steps that `filter` counted (`pipelines.rules.steps`).

Counts are exact at every step: at every number of two significant digits, and at the recipe's own threshold. Nothing is
decided again and no score is read, so an answer costs one small row group of each table, whatever the corpus.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.errors import InputError
from contract.plan import Run
from contract.schema import STEPS
from contract.settings.filter import COMPARISONS, Rule
from contract.store import Store
from pipelines.rules.steps import GRID
from reports.indexes import Indexed, Table, find, indexed, together
from reports.search import Hit, hits

SAMPLES = 10


@dataclass(frozen=True)
class Steps:
    """One rule's counts by step, ascending: see `contract.schema.STEPS`. ids: at most ten of each step."""

    step: tuple[float, ...]
    documents: tuple[int, ...]
    alone: tuple[int, ...]
    words: tuple[int, ...]
    ids: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Tried:
    """What a threshold keeps instead of the recipe's. documents, words: kept now, and the change.

    limit: the step that was counted, the nearest to what was asked. override: what to write to have it. changed: up to
    ten documents that change sides, those of the smallest ids; all of them are now kept, or all are dropped.
    """

    rule: Rule
    limit: float
    kept: int
    change: int
    words_change: int
    override: str
    changed: tuple[Hit, ...]


def rules(run: Run) -> list[Rule]:
    """The rules that the recipe asks, in order."""
    return run.recipe.filter.rules()


def rule_of(run: Run, setting: str) -> Rule:
    """The rule of a threshold by its dotted key below `filter`. Raises InputError if the recipe does not ask it."""
    for rule in rules(run):
        if rule.setting == setting:
            return rule
    raise InputError(f"filter.{setting[:80]}: is no threshold that this recipe uses; switch its rule set on first")


def counted(run: Run) -> list[Indexed]:
    """The committed tasks of `filter`."""
    return indexed(run, ["filter"])[0]


def steps(run: Run, setting: str) -> Steps:
    """The counts of one threshold over the whole run.

    Raises InputError as `rule_of` does, and if the threshold has judged no document.
    """
    rule, tasks = rule_of(run, setting), counted(run)
    found = _steps(run.store, tuple(Table(task, file, run.store) for task in tasks for file in task.steps), setting)
    if not found.step:
        raise InputError(f"filter.{setting} cannot be tried: {_unjudged(rule, tasks)}")
    return found


def _unjudged(rule: Rule, tasks: Sequence[Indexed]) -> str:
    """Why a rule has judged no document."""
    if not tasks:
        return "filter is not done yet."
    if not any(task.rows.read for task in tasks):
        return "filter was given no document."
    needs = f"score measures it only if score.{rule.needs} is set" if rule.needs else "score did not measure it"
    return f"no document in whose language the rule is asked has the score {rule.score}; {needs}."


@lru_cache(maxsize=64)  # of at most a few thousand steps each; what is committed never changes
def _steps(store: Store, tables: tuple[Table, ...], setting: str) -> Steps:
    def look(table: Table) -> pa.Table:
        return table.read(table.groups(setting, setting))

    read = [table.filter(pc.equal(table["setting"], setting)) for table in together(store, look, tables)]
    held = pa.concat_tables([STEPS.empty_table(), *read])
    if not len(held):
        return Steps((), (), (), (), ())
    step = held["step"].to_numpy()
    names, place = np.unique(step, return_inverse=True)
    sums = [
        np.bincount(place, held[name].to_numpy(), len(names)).astype(np.int64)
        for name in ("documents", "alone", "words")
    ]
    ids: list[list[str]] = [[] for _ in names]
    for at, some in zip(place.tolist(), held["ids"].to_pylist(), strict=True):
        ids[at] += [one.hex() for one in some]
    smallest = tuple(tuple(sorted(some)[:SAMPLES]) for some in ids)
    documents, alone, words = (tuple(one.tolist()) for one in sums)
    return Steps(tuple(names.tolist()), documents, alone, words, smallest)


def attempt(run: Run, setting: str, limit: float) -> Tried:
    """What another limit would keep. Raises InputError for a limit that is no number that a recipe may have."""
    rule = rule_of(run, setting)
    if not math.isfinite(limit) or limit < 0:
        raise InputError(f"filter.{setting}: {limit} is no threshold; write a number of 0 or more")
    limit = nearest(limit, rule.limit)
    found, compare = steps(run, setting), COMPARISONS[rule.comparison]
    moved = [at for at, step in enumerate(found.step) if compare(step, rule.limit) != compare(step, limit)]
    sign = 1 if any(compare(found.step[at], rule.limit) for at in moved) else -1
    ids = sorted(one for at in moved for one in found.ids[at])[:SAMPLES]
    return Tried(
        rule,
        limit,
        sum(task.rows.kept for task in counted(run)),
        sign * sum(found.alone[at] for at in moved),
        sign * sum(found.words[at] for at in moved),
        override(setting, limit),
        tuple(_hits(run, ids)),
    )


def nearest(limit: float, own: float) -> float:
    """The step that is nearest to a limit: two significant digits, or the recipe's own limit if it is that."""
    if limit == own:
        return limit
    smallest = GRID[1]
    return float(f"{limit:.1e}") if limit >= smallest else smallest * round(limit / smallest)


def override(setting: str, limit: float) -> str:
    """What to write into the form or behind `--set` to use a limit."""
    return f"filter.{setting}={int(limit) if limit == int(limit) else f'{limit:.12g}'}"


def choices(found: Steps, rule: Rule) -> list[float]:
    """The limits that a slider offers: every step at which something changes, and the recipe's own."""
    return sorted({*found.step, rule.limit})


def _hits(run: Run, ids: Sequence[str]) -> Iterator[Hit]:
    """The documents with some ids, as `score` has them, in their order."""
    tasks, _ = indexed(run, ["score"])
    places = find(run.store, tasks, ids)
    yield from hits(run.store, [places[one][0] for one in ids if one in places])
