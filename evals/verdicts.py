"""The verdicts of an ablation in words and tables: Markdown that also reads well in a log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from evals.ablation import Measure, Verdict, best, decide

LOWER, HIGHER = "lower is better", "higher is better"


@dataclass(frozen=True)
class Comparison:
    """The variants of a recipe, compared. `main` are the verdicts of the first measure, `others` those of the rest.

    The two are decided apart: the more sources and tasks there are, the less could be told otherwise of the main one.
    """

    measures: tuple[Measure, ...]
    main: tuple[Verdict, ...]
    others: tuple[Verdict, ...]

    @property
    def variants(self) -> list[str]:
        return [*self.measures[0].values]

    @property
    def best(self) -> str | None:
        return best(self.main)

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        if len(self.variants) == 2:
            (one,) = self.main
            if one.better:
                return f"{one.better} is better than {_other(one)}: {_told(one)}"
            return f"{' and '.join(self.variants)}: {one.said}"
        if self.best:
            return f"{self.best} is better than every other variant in {self.main[0].measure}"
        told = [f"{one.better} is better than {_other(one)}" for one in self.main if one.better]
        return (
            f"no variant is better than every other; {', '.join(told) or 'no difference between any two can be told'}"
        )


def _other(one: Verdict) -> str:
    return one.second if one.better == one.first else one.first


def _told(one: Verdict) -> str:
    low, high = sorted(map(abs, one.interval))
    size = f"{abs(one.estimate.mean):.3g} {one.measure}"
    return f"a difference of {size}, {one.confidence:.0%} interval {low:.3g} to {high:.3g}"


def compare(measures: Sequence[Measure], confidence: float) -> Comparison:
    """Compare variants; the first measure decides which is best. All have the same variants, in the same order."""
    first, *rest = measures
    return Comparison(tuple(measures), tuple(decide([first], confidence)), tuple(decide(rest, confidence)))


def mean_and_spread(measure: Measure, variant: str) -> tuple[float, float, int]:
    """(The mean of a variant's figures, their standard deviation, their number); the deviation of one is 0."""
    found = measure.figures(variant)
    return fmean(found), stdev(found) if len(found) > 1 else 0.0, len(found)


def figures_table(comparison: Comparison) -> list[str]:
    """A row for each variant, with the mean of its models in each measure; the first measure also has its spread."""
    first, *rest = comparison.measures
    head = ["variant", "models", first.name, "spread", *(one.name for one in rest)]
    rows = []
    for variant in comparison.variants:
        mean, spread, models = mean_and_spread(first, variant)
        others = [f"{mean_and_spread(one, variant)[0]:.4f}" for one in rest]
        rows.append([variant, str(models), f"{mean:.4f}", f"{spread:.4f}", *others])
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
        ["## Verdicts", "", *verdicts_table(comparison.main), ""],
        ["## By source and task", "", *verdicts_table(comparison.others), ""] if comparison.others else [],
    ]
    return "\n".join(line for part in parts for line in part)
