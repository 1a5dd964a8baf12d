"""The published mixtures: epochs that are really drawn over sources of the published sizes, scaled down."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from contract.mixture import PRESETS, Preset, Schedule, epochs_of, schedule
from contract.settings.training import Mixture
from perf.bars import Bars
from training.data.drawing import drawn_in

ROW = 1e6  # tokens that a row stands for
BATCH = 1000


def drawn(made: Schedule, rows: Mapping[str, int]) -> dict[str, float]:
    """Epochs over each source, counted sequence by sequence. Checks that no sequence is drawn out of turn."""
    times = {source: np.zeros(count, dtype=np.int64) for source, count in rows.items()}
    for step in range(made.steps):
        for source, row in drawn_in(made, step, seed=0):
            times[source][row] += 1
    for source, seen in times.items():
        if seen.max() - seen.min() > 1:
            raise AssertionError(f"{source}: a sequence was drawn {seen.max()} times, another {seen.min()} times")
    return {source: float(seen.mean()) for source, seen in times.items()}


def off(name: str, preset: Preset) -> float:
    """The largest difference between the epochs that are drawn and the published ones; prints all of them."""
    rows = {source: round(row.size / ROW) for source, row in preset.sources.items()}
    made = schedule([(round(preset.tokens / ROW / BATCH), Mixture(preset=name), rows)], BATCH)
    counted = drawn(made, rows)
    proportions = {source: row.proportion for source, row in preset.sources.items()}
    formula = epochs_of(proportions, {source: row.size for source, row in preset.sources.items()}, preset.tokens)
    print(f"{name}, {preset.tokens / 1e9:,.0f} B tokens, a row for each {ROW:,.0f}")
    for source, row in preset.sources.items():
        paper = f"the paper says {row.stated}"
        if row.stated.endswith("billion tokens") and row.derived:
            stated = float(row.stated.split()[0]) * 1e9
            paper += f", at which the formula gives {formula[source] * row.size / stated:.2f}"
        print(
            f"  {source:<14}{row.proportion:>7.1%}  published {row.epochs:.2f}  drawn {counted[source]:.4f}  "
            f"size {row.size / 1e9:g} B {'from the epochs' if row.derived else 'from the paper'}; {paper}"
        )
    return max(abs(counted[source] - row.epochs) for source, row in preset.sources.items())


def run(bars: Bars, data: Path) -> None:
    for name, preset in PRESETS.items():
        bars.at_most(f"mixture_{name}_off", off(name, preset), 0.02)
