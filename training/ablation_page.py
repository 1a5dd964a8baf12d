"""The page of an ablation: Markdown that also reads well in a log."""

from collections.abc import Mapping, Sequence

from evals.ablation import Verdict
from evals.verdicts import Comparison, mean_and_spread

LOWER, HIGHER = "lower is better", "higher is better"


def figures_table(comparison: Comparison) -> list[str]:
    """A row for each variant, with the mean of its models in each measure; the first measure also has its spread."""
    if not comparison.measures:
        return []
    first, *rest = comparison.measures
    head = ["variant", "models", first.name, "spread", *(one.name for one in rest)]
    rows = []
    for variant in comparison.variants:
        mean, spread, models = mean_and_spread(first, variant)
        others = [f"{mean_and_spread(one, variant)[0]:.4f}" for one in rest]
        rows.append([variant, str(models), f"{mean:.4f}", f"{spread:.4f}", *others])
    for variant, seeds in comparison.diverged.items():
        rows.append([variant, f"{len(seeds)} diverged", *["-"] * (len(head) - 2)])
    return table(head, rows)


def verdicts_table(verdicts: Sequence[Verdict]) -> list[str]:
    """A row for each pair of variants in each measure."""
    confidence = f"{verdicts[0].confidence:.0%} interval"
    rows = []
    for one in verdicts:
        low, high = one.interval
        span = f"{low:+.4f} to {high:+.4f}" if one.estimate.known else "-"
        pair = f"{one.first} - {one.second}"
        rows.append([one.measure, pair, f"{one.estimate.mean:+.4f}", span, f"{one.p:.2g}", one.said])
    return table(["measure", "pair", "difference", confidence, "p", "verdict"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, whose columns are padded so that it also reads well as plain text."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]


def render(comparison: Comparison, facts: Sequence[str], overrides: Mapping[str, Sequence[str]]) -> str:
    """The whole report as Markdown. `facts` are sentences on how the models were trained and measured."""
    named = [
        f"- {name}: {', '.join(f'`{one}`' for one in overrides[name]) or 'the recipe itself'}" for name in overrides
    ]
    lower = ", ".join(one.name for one in comparison.measures if one.lower_is_better)
    higher = ", ".join(one.name for one in comparison.measures if not one.lower_is_better)
    reading = [f"{names}: {word}." for names, word in ((lower, LOWER), (higher, HIGHER)) if names]
    parts = [
        ["# Ablation", "", f"**{comparison.verdict}**", "", *named, "", *facts, ""],
        ["## Figures", "", *reading, "", *figures_table(comparison), ""],
        ["## Verdicts", "", *verdicts_table(comparison.main), ""] if comparison.main else [],
        ["## By source and task", "", *verdicts_table(comparison.others), ""] if comparison.others else [],
    ]
    return "\n".join(line for part in parts for line in part)
