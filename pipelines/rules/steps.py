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
Ranks = npt.NDArray[np.int64]
SAMPLES = 10  # ids of each step
SMALLEST = 1e-4  # scores below it count at 0 or here: no threshold of ours is as fine


def count_steps(columns: pa.Table, settings: Filter) -> pa.Table:
    """The table `STEPS` of some documents, by setting and step.

    columns: `id` (16 bytes), `language`, `kept_words`, and the scores that `settings` judge; null if not measured.
    """
    rules = settings.rules()
    values = {name: _numbers(columns[name]) for name in {rule.score for rule in rules}}
    asked = {rule.setting: _asked(columns["language"], rule.score) & ~np.isnan(values[rule.score]) for rule in rules}
    broken = {
        rule.setting: asked[rule.setting] & COMPARISONS[rule.comparison](values[rule.score], rule.limit)
        for rule in rules
    }
    total = np.sum(list(broken.values()), axis=0) if rules else np.zeros(0)
    counted = "kept_words" in columns.column_names  # results that are older than this score lack it
    words = np.nan_to_num(_numbers(columns["kept_words"])).astype(np.int64) if counted else np.zeros(len(columns), int)
    ids = columns["id"].combine_chunks()
    ranks = np.argsort(np.argsort(_bytes(ids)))
    found = []
    for rule in sorted(rules, key=lambda rule: rule.setting):
        here = np.flatnonzero(asked[rule.setting])
        alone = (total == broken[rule.setting])[here]
        steps = step_of(values[rule.score][here], rule)
        found.append(_counted(rule, steps, alone, words[here], ranks[here], ids.take(pa.array(here))))
    return pa.concat_tables(found) if found else STEPS.empty_table()


def step_of(values: Values, rule: Rule) -> Values:
    """The step at which a rule's decision about each value changes: above, or at or below it, as the rule compares."""
    if rule.comparison in ("<", ">="):
        steps = _below(values)
        return np.where((steps < rule.limit) & (rule.limit <= values), rule.limit, steps)
    steps = _above(values)
    return np.where((values <= rule.limit) & (rule.limit < steps), rule.limit, steps)


def _below(values: Values) -> Values:
    """The largest number of two significant digits that is not above each value; 0 below SMALLEST."""
    count, scale = _digits(values)
    count = np.where(_at(count, scale) > values, count - 1, count)
    count = np.where(_at(count + 1, scale) <= values, count + 1, count)
    return np.where(values < SMALLEST, 0.0, _at(count, scale))


def _above(values: Values) -> Values:
    """The smallest number of two significant digits that is not below each value; 0 for 0, else at least SMALLEST."""
    count, scale = _digits(values)
    count = np.where(_at(count, scale) < values, count + 1, count)
    count = np.where(_at(count - 1, scale) >= values, count - 1, count)
    steps = np.where(values < SMALLEST, SMALLEST, _at(count, scale))
    return np.where(values <= 0, 0.0, steps)


def _digits(values: Values) -> tuple[Values, npt.NDArray[np.int64]]:
    """About the two leading digits of each value as a number, and the power of ten that they are multiplied by."""
    scale = np.floor(np.log10(np.maximum(values, SMALLEST))).astype(np.int64) - 1
    return np.floor(values / 10.0**scale), scale


def _at(count: Values, scale: npt.NDArray[np.int64]) -> Values:
    """count * 10**scale, as exactly as a person's literal: both powers of ten are whole numbers."""
    return count * 10.0 ** np.maximum(scale, 0) / 10.0 ** np.maximum(-scale, 0)


def _counted(
    rule: Rule, steps: Values, alone: Mask, words: npt.NDArray[np.int64], ranks: Ranks, ids: pa.Array
) -> pa.Table:
    order = np.lexsort((ranks, ~alone, steps))  # within a step, those alone come first, by id
    names, starts = np.unique(steps[order], return_index=True)
    counts = np.diff([*starts, len(order)])
    single = np.add.reduceat(alone[order].astype(np.int64), starts) if len(starts) else starts
    weight = np.add.reduceat(np.where(alone, words, 0)[order], starts) if len(starts) else starts
    shown = np.minimum(single, SAMPLES)
    taken = [order[start : start + count] for start, count in zip(starts, shown, strict=True)]
    offsets = pa.array(np.concatenate([[0], np.cumsum(shown)]), pa.int32())
    samples = ids.take(pa.array(np.concatenate([np.zeros(0, np.int64), *taken])))
    lists = pa.ListArray.from_arrays(offsets, samples)
    columns = [pa.repeat(pa.scalar(rule.setting), len(names)), names, counts, single, weight, lists]
    return pa.table(dict(zip(STEPS.names, columns, strict=True)), STEPS)


def _numbers(column: pa.ChunkedArray) -> Values:
    numbers: Values = column.cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return numbers


def _asked(languages: pa.ChunkedArray, score: str) -> Mask:
    """In which documents a rule on a score is asked, by their languages."""
    held = languages.combine_chunks().fill_null("en").dictionary_encode()
    known = np.array([asked_in(language or "en", score) for language in held.dictionary.to_pylist()], dtype=bool)
    return known[held.indices.to_numpy()] if len(known) else np.zeros(len(held), bool)


def _bytes(ids: pa.Array) -> npt.NDArray[np.bytes_]:
    return np.frombuffer(ids.buffers()[1], "S16", len(ids), ids.offset * 16)
