"""Counts what every step of a threshold would move, so that a page can try thresholds without reading the scores again.

A step is a number of two significant digits (0.15, 34, 1500), as people write thresholds, or the threshold that the
recipe has. Each document counts at one step of each rule that is asked in its language: the one at which the rule's
decision about it changes. So for a threshold that is a step, `comparison(step, threshold)` tells exactly which
documents the rule drops. A threshold decides about a document alone if no other rule drops it.
"""

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
POWERS = range(-5, 15)  # of ten: scores below 1e-4 count at 0 or there, and no threshold of ours is as fine
GRID = (0.0, *(float(f"{digits}e{power}") for power in POWERS for digits in range(10, 100)))


def count_steps(columns: pa.Table, settings: Filter) -> pa.Table:
    """The table `STEPS` of some documents, by setting and step.

    columns: `id` (16 bytes), `language`, `kept_words`, and the scores that `settings` judge; null if not measured.
    """
    rules = settings.rules()
    values = {name: _numbers(columns[name]) for name in {rule.score for rule in rules}}
    languages = columns["language"].combine_chunks().fill_null("en").dictionary_encode()
    asked = {rule.setting: _asked(languages, rule.score) & ~np.isnan(values[rule.score]) for rule in rules}
    broken = {
        rule.setting: asked[rule.setting] & COMPARISONS[rule.comparison](values[rule.score], rule.limit)
        for rule in rules
    }
    total = np.sum(list(broken.values()), axis=0) if rules else np.zeros(0)
    counted = "kept_words" in columns.column_names  # results that are older than this score lack it
    words = np.nan_to_num(_numbers(columns["kept_words"])) if counted else np.zeros(len(columns))
    ids = columns["id"].combine_chunks()
    by_id = np.argsort(_bytes(ids))
    found = []
    for rule in sorted(rules, key=lambda rule: rule.setting):
        alone = asked[rule.setting] & (total == broken[rule.setting])
        grid = grid_of(rule)
        places = np.where(asked[rule.setting], places_of(values[rule.score], rule, grid), len(grid))
        found.append(_counted(rule, grid, places, alone, words, ids, by_id))
    return pa.concat_tables(found) if found else STEPS.empty_table()


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
    rule: Rule, grid: Values, places: Places, alone: Mask, words: Values, ids: pa.Array, by_id: Places
) -> pa.Table:
    """The rows of one rule. places: where each document counts in the grid; behind its end, nowhere."""
    size = len(grid) + 1
    documents = np.bincount(places, minlength=size)[:-1]
    single = np.bincount(places[alone], minlength=size)[:-1]
    weight = np.bincount(places[alone], words[alone], size)[:-1].astype(np.int64)  # exact: far below 2**53
    mine = by_id[alone[by_id]]
    order = mine[np.argsort(places[mine].astype(np.uint16), kind="stable")]  # NumPy sorts 16 bits in linear time
    there = np.flatnonzero(documents)
    ends = np.cumsum(single)
    samples = [order[ends[at] - single[at] :][: min(single[at], SAMPLES)] for at in there]
    lists = pa.ListArray.from_arrays(
        pa.array(np.cumsum([0, *map(len, samples)]), pa.int32()),
        ids.take(pa.array(np.concatenate([np.zeros(0, np.intp), *samples]))),
    )
    columns = [
        pa.repeat(pa.scalar(rule.setting), len(there)),
        *(one[there] for one in (grid, documents, single, weight)),
        lists,
    ]
    return pa.table(dict(zip(STEPS.names, columns, strict=True)), STEPS)


def _numbers(column: pa.ChunkedArray) -> Values:
    numbers: Values = column.cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return numbers


def _asked(languages: pa.DictionaryArray, score: str) -> Mask:
    """In which documents a rule on a score is asked, by their languages."""
    known = np.array([asked_in(language or "en", score) for language in languages.dictionary.to_pylist()], dtype=bool)
    return known[languages.indices.to_numpy()] if len(known) else np.zeros(len(languages), bool)


def _bytes(ids: pa.Array) -> npt.NDArray[np.bytes_]:
    return np.frombuffer(ids.buffers()[1], "S16", len(ids), ids.offset * 16)
