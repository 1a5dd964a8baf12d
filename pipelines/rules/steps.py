"""Counts what every step of a threshold would move, so that a page can try thresholds without reading the scores again.

A step is a number of two significant digits (0.15, 34, 1500), as people write thresholds, or the threshold that the
recipe has. Each document counts at one step of each rule that is asked in its language: the one at which the rule's
decision about it changes. So for a threshold that is a step, `comparison(step, threshold)` tells exactly which
documents the rule drops. A threshold decides about a document alone if no other rule drops it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contract.schema import STEPS
from contract.settings.filter import COMPARISONS, Filter, Rule
from pipelines.rules.decide import asked_in

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]
SAMPLES = 10  # ids of each step
FIRST = 1 << 12  # documents in which most steps find their samples
POWERS = range(-5, 15)  # of ten: scores below 1e-4 count at 0 or there, and no threshold of ours is as fine
GRID = (0.0, *(float(f"{digits}e{power}") for power in POWERS for digits in range(10, 100)))
NOWHERE = 1 << 11  # above all places: a grid has at most 1,802 steps
"""The place of a document in whose language a rule is not asked, or whose score was not measured."""


@dataclass(frozen=True)
class Judged:
    """What some rules say of some documents, in few bytes.

    ids: of 16 bytes each. words: of each document. dropping: how many rules drop it. first, value: which rule is the
    first that drops it, and the score that broke this rule; of no meaning for what is kept. places, broken: a row for
    each rule: where each document counts in the rule's grid, and whether the rule drops it.
    """

    ids: npt.NDArray[np.bytes_]
    words: Values
    dropping: npt.NDArray[np.uint16]
    first: npt.NDArray[np.uint16]
    value: Values
    places: npt.NDArray[np.uint16]
    broken: Mask

    @property
    def dropped(self) -> Mask:
        """Which documents some rule drops."""
        return self.dropping > 0


def judge(columns: pa.RecordBatch | pa.Table, rules: Sequence[Rule]) -> Judged:
    """What rules say of documents.

    columns: `id` (16 bytes), `language`, `kept_words`, and the scores that the rules judge; null if not measured.
    """
    count = columns.num_rows
    values = {name: _numbers(columns[name]) for name in {rule.score for rule in rules}}
    languages = _flat(columns["language"]).fill_null("en").dictionary_encode()
    asked = {name: _asked(languages, name) & ~np.isnan(values[name]) for name in values}
    places, broken = np.empty((len(rules), count), np.uint16), np.empty((len(rules), count), bool)
    first, value = np.zeros(count, np.uint16), np.zeros(count)
    for at, rule in reversed([*enumerate(rules)]):
        found = values[rule.score]
        broken[at] = asked[rule.score] & COMPARISONS[rule.comparison](found, rule.limit)
        first[broken[at]] = at
        np.copyto(value, found, where=broken[at])
        places[at] = np.where(asked[rule.score], places_of(found, rule, grid_of(rule)), NOWHERE)
    counted = "kept_words" in columns.schema.names  # results that are older than this score lack it
    words = _numbers(columns["kept_words"], 0.0) if counted else np.zeros(count)
    dropping = broken.sum(axis=0, dtype=np.uint16)
    return Judged(_bytes(_flat(columns["id"])), words, dropping, first, value, places, broken)


def count_steps(columns: pa.Table, settings: Filter) -> pa.Table:
    """The table `STEPS` of some documents, by setting and step. columns: as `judge` takes them."""
    return counted([judge(columns, settings.rules())], settings.rules())


def counted(judged: Sequence[Judged], rules: Sequence[Rule]) -> pa.Table:
    """The table `STEPS` of documents that `judge` has judged by these rules, by setting and step."""
    if not judged or not rules:
        return STEPS.empty_table()
    ids = np.concatenate([one.ids for one in judged])
    halves = ids.view(">u8").reshape(-1, 2).astype(np.uint64)
    by_id = np.lexsort((halves[:, 1], halves[:, 0]))
    ids, words, dropping = (np.concatenate(each)[by_id] for each in _columns(judged))
    found = []
    for at in sorted(range(len(rules)), key=lambda at: rules[at].setting):
        places = np.concatenate([one.places[at] for one in judged])[by_id]
        broken = np.concatenate([one.broken[at] for one in judged])[by_id]
        found.append(_counted(rules[at], places, dropping == broken, words, ids))
    return pa.concat_tables(found)


def _columns(judged: Sequence[Judged]) -> tuple[list[npt.NDArray[np.generic]], ...]:
    return [one.ids for one in judged], [one.words for one in judged], [one.dropping for one in judged]


@cache
def grid_of(rule: Rule) -> Values:
    """Every step that a rule can have, ascending."""
    return np.unique([*GRID, rule.limit])


def places_of(values: Values, rule: Rule, grid: Values) -> Places:
    """The place in the grid of the step at which a rule's decision about each value changes.

    For `<` and `>=` it is the last step that is not above the value, else the first that is not below it.
    """
    if rule.comparison in ("<", ">="):
        return np.maximum(np.searchsorted(grid, values, "right") - 1, 0)
    return np.minimum(np.searchsorted(grid, values, "left"), len(grid) - 1)


def _counted(
    rule: Rule, places: npt.NDArray[np.uint16], alone: Mask, words: Values, ids: npt.NDArray[np.bytes_]
) -> pa.Table:
    """The rows of one rule. The documents are in the order of their ids."""
    grid = grid_of(rule)
    own = np.where(alone, places, NOWHERE)
    documents = np.bincount(places, minlength=NOWHERE + 1)[: len(grid)]
    single = np.bincount(own, minlength=NOWHERE + 1)[: len(grid)]
    weight = np.bincount(own, words, NOWHERE + 1)[: len(grid)].astype(np.int64)  # exact: far below 2**53
    there = np.flatnonzero(documents)
    samples = _samples(own)
    starts = np.searchsorted(own[samples], there)
    chosen = [samples[start : start + min(single[at], SAMPLES)] for at, start in zip(there, starts, strict=True)]
    lists = pa.ListArray.from_arrays(
        pa.array(np.cumsum([0, *map(len, chosen)]), pa.int32()),
        _as_ids(ids[np.concatenate([np.zeros(0, np.intp), *chosen])]),
    )
    columns = [
        pa.repeat(pa.scalar(rule.setting), len(there)),
        *(one[there] for one in (grid, documents, single, weight)),
        lists,
    ]
    return pa.table(dict(zip(STEPS.names, columns, strict=True)), STEPS)


def _samples(places: npt.NDArray[np.uint16]) -> Places:
    """At least the first SAMPLES documents of each place, by place and then in their order.

    Most steps find theirs among the first documents; only those of the other steps are looked for in all.
    """
    filled = np.bincount(places[:FIRST], minlength=NOWHERE + 1) >= SAMPLES
    filled[NOWHERE] = True
    wanted = ~filled[places]
    wanted[:FIRST] = True
    found = np.flatnonzero(wanted)
    return found[np.argsort(places[found], kind="stable")]  # NumPy sorts 16 bits in linear time


def _numbers(column: pa.Array | pa.ChunkedArray, missing: float = float("nan")) -> Values:
    numbers: Values = _flat(column).cast(pa.float64()).fill_null(missing).to_numpy(zero_copy_only=False)
    return numbers


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _asked(languages: pa.DictionaryArray, score: str) -> Mask:
    """In which documents a rule on a score is asked, by their languages."""
    known = np.array([asked_in(language or "en", score) for language in languages.dictionary.to_pylist()], dtype=bool)
    return known[languages.indices.to_numpy()] if len(known) else np.zeros(len(languages), bool)


def _bytes(ids: pa.Array) -> npt.NDArray[np.bytes_]:
    return np.frombuffer(ids.buffers()[1], "S16", len(ids), ids.offset * 16)


def _as_ids(ids: npt.NDArray[np.bytes_]) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(ids), [None, pa.py_buffer(ids.tobytes())])
