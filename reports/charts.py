"""The report's figures as SVG: a funnel next to a published one, and a histogram of each score with its thresholds.

The SVG is self-contained, without scripts, external fonts or images, and readable on light and dark pages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from contract.printable import printable
from contract.settings.filter import Rule

# Not matplotlib: 36 histograms take it 3.4 s and 600 kB, not 0.4 s and 130 kB, and it and its packages take 98 MB.
PAPER, INK, FAINT, GRID = "#ffffff", "#1f2933", "#697586", "#e4e7eb"
OURS, THEIRS, GONE = "#2b6cb0", "#b8c4d0", "#d9534f"
BINS, COLUMNS = 32, 4
TEXT_BINS, TEXT_CHARS = 12, 30
PANEL_WIDTH, PANEL_HEIGHT, LEFT, TOP = 250, 132, 14, 34
# Scores that range over several powers of ten.
LOGARITHMIC = {"words", "kept_words", "sentences", "perplexity", "long_lines"}
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bar:
    """One step of a funnel, with the shares of all documents that are left; or one language, with its figures."""

    label: str
    ours: float
    theirs: float | None


def document(width: int, height: int, parts: Sequence[str]) -> str:
    """A whole SVG file."""
    style = (
        f"text{{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:11px;fill:{INK}}}"
        f".faint{{fill:{FAINT}}}.gone{{fill:{GONE}}}.title{{font-weight:600;font-size:12px}}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}">',
            f"<style>{style}</style>",
            f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(printable(words))}</text>'


def box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" fill="{colour}"/>'


def funnel(bars: Sequence[Bar], name: str, their_name: str) -> str:
    """A bar chart of the share of documents left after each step, with the published share below this run's."""
    width, left, row = 820, 210, 38
    full = width - left - 80
    parts = [
        text(left, 20, f"Documents left after each step: {name}", "title"),
        box(left, 30, 10, 10, OURS),
        text(left + 15, 39, "this run"),
        box(left + 90, 30, 10, 10, THEIRS),
        text(left + 105, 39, their_name),
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(box(left + share * full, 52, 1, row * len(bars), GRID))
        parts.append(text(left + share * full, 66 + row * len(bars), f"{share:.0%}", "faint", "middle"))
    for index, bar in enumerate(bars):
        top = 56 + index * row
        parts += [
            text(left - 10, top + 14, bar.label, "", "end"),
            box(left, top, bar.ours * full, 15, OURS),
            text(left + bar.ours * full + 5, top + 12, f"{bar.ours:.1%}"),
        ]
        if bar.theirs is not None:
            parts.append(box(left, top + 17, bar.theirs * full, 9, THEIRS))
            parts.append(text(left + bar.theirs * full + 5, top + 26, f"{bar.theirs:.1%}", "faint"))
    return document(width, 80 + row * len(bars), parts)


def by_language(panels: Sequence[tuple[str, Sequence[Bar]]], name: str) -> str:
    """Bar charts side by side with a row for each language: this run's value, and the reference's below it.

    panels: (title, bars), all with the same languages in the same order.
    """
    left, row, gap = 70, 30, 270
    parts = [
        text(left, 20, f"Tokenizer by language: {name}", "title"),
        box(left, 30, 10, 10, OURS),
        text(left + 15, 39, "this run"),
        box(left + 90, 30, 10, 10, THEIRS),
        text(left + 105, 39, "reference"),
    ]
    for index, (title, bars) in enumerate(panels):
        x, full = left + index * gap, gap - 90
        most = max((one for bar in bars for one in (bar.ours, bar.theirs or 0.0)), default=0.0) or 1.0
        parts.append(text(x, 62, title, "title"))
        for number, bar in enumerate(bars):
            top = 70 + number * row
            if index == 0:
                parts.append(text(x - 10, top + 12, bar.label, "", "end"))
            for value, y, height, colour, kind in (
                (bar.ours, top, 13, OURS, ""),
                (bar.theirs, top + 14, 7, THEIRS, "faint"),
            ):
                if value is not None:
                    parts.append(box(x, y, value / most * full, height, colour))
                    parts.append(text(x + value / most * full + 5, y + height - 1, f"{value:.3g}", kind))
    rows = max((len(bars) for _, bars in panels), default=0)
    return document(left + len(panels) * gap, 80 + row * rows, parts)


def histograms(scores: Sequence[tuple[str, Values, Sequence[Rule]]]) -> str:
    """A histogram of each score. The documents that a threshold alone would drop are red.

    scores: (name, values, rules). A value is nan if the score was not measured in that document.
    """
    rows = math.ceil(len(scores) / COLUMNS)
    width = COLUMNS * PANEL_WIDTH + LEFT
    parts = [
        text(LEFT, 16, "Documents by score", "title"),
        text(
            LEFT + 150,
            16,
            "height: square root of the count; red: what the threshold alone would drop; "
            "the first and the last bar hold what lies beyond them",
            "faint",
        ),
    ]
    for index, (name, values, rules) in enumerate(scores):
        x = LEFT + index % COLUMNS * PANEL_WIDTH
        y = TOP + index // COLUMNS * PANEL_HEIGHT
        parts.append(f'<g transform="translate({x},{y})">')
        parts += panel(name, values[~np.isnan(values)], rules)
        parts.append("</g>")
    return document(width, TOP + rows * PANEL_HEIGHT, parts)


def panel(name: str, values: Values, rules: Sequence[Rule]) -> list[str]:
    """One histogram, from the 1st to the 99th percentile, extended to thresholds near these.

    The first and last bars include the values beyond.
    """
    width, base = PANEL_WIDTH - 24, 94
    parts = [text(0, 10, name, "title")]
    summary = "; ".join(f"{rule.comparison} {rule.limit:g}: {share(values, rule):.1%}" for rule in rules)
    parts.append(text(0, 24, summary or "no rule", "gone" if summary else "faint"))
    if not len(values):
        return [*parts, box(0, base, width, 1, GRID), text(width / 2, base - 20, "not measured", "faint", "middle")]
    logarithmic = name in LOGARITHMIC
    low, high = bounds(values, rules, logarithmic)
    edges = np.geomspace(low, high, BINS + 1) if logarithmic else np.linspace(low, high, BINS + 1)
    counts = np.histogram(np.clip(values, low, high), edges)[0]
    gone = np.zeros(len(values), bool)
    for rule in rules:
        gone |= np.array([rule.drops(value) for value in values])
    dropped = np.histogram(np.clip(values[gone], low, high), edges)[0]
    step = width / BINS
    for index, (count, lost) in enumerate(zip(counts, dropped, strict=True)):
        whole, red = (64 * math.sqrt(one / counts.max()) for one in (count, lost))
        parts.append(box(index * step, base - whole, step - 1, whole, OURS))
        if red:
            parts.append(box(index * step, base - red, step - 1, red, GONE))
    parts.append(box(0, base, width, 1, FAINT))
    for rule in rules:
        if low <= rule.limit <= high:
            at = place(rule.limit, low, high, logarithmic) * width
            parts.append(f'<path d="M{at:.1f} 28V{base + 4}" stroke="{GONE}" stroke-dasharray="3 2"/>')
    middle = math.sqrt(low * high) if logarithmic else (low + high) / 2
    ends = ((0.0, low, "start"), (width / 2, middle, "middle"), (width, high, "end"))
    return [*parts, *(text(x, base + 15, short(value), "faint", anchor) for x, value, anchor in ends)]


def short(value: float) -> str:
    """Format a number with three significant digits, or as a whole number from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(values: Values, rule: Rule) -> float:
    """The share of documents that one rule alone would drop."""
    return sum(map(rule.drops, values.tolist())) / len(values) if len(values) else 0.0


def bounds(values: Values, rules: Sequence[Rule], logarithmic: bool) -> tuple[float, float]:
    """The lowest and highest value that a panel shows. They are never equal."""
    if logarithmic:
        low, high = (max(float(one), 1.0) for one in np.percentile(values, [1, 99]))
        near = [rule.limit for rule in rules if low / 10 <= rule.limit <= high * 10]
        low, high = min([low, *near]), max([high, *near])
        return low, high if high > low else low * 10
    low, high = (float(one) for one in np.percentile(values, [1, 99]))
    span = high - low
    near = [rule.limit for rule in rules if low - 3 * span <= rule.limit <= high + 3 * span]
    low, high = min([low, *near]), max([high, *near])
    return low, high if high > low else low + 1.0


def place(value: float, low: float, high: float, logarithmic: bool) -> float:
    """The position of a value between the ends of the axis, from 0 to 1."""
    if logarithmic:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def as_text(name: str, values: Values, rules: Sequence[Rule]) -> list[str]:
    """A histogram for a terminal, in equal bins from the 1st to the 99th percentile, and what each rule alone drops.

    The first and last bins include the values beyond and print how many these are.
    """
    measured = values[~np.isnan(values)]
    lines = ["", f"#### {name}", ""]
    lines += [
        f"{rule.reason}: drops when {rule.comparison} {rule.limit:g}, "
        f"{sum(map(rule.drops, measured)):,} of {len(measured):,}"
        for rule in rules
    ]
    if not len(measured):
        return [*lines, "not measured"]
    low, high = np.percentile(measured, [1, 99])
    counts, edges = np.histogram(np.clip(measured, low, high), bins=TEXT_BINS if high > low else 1)
    most = counts.max()
    lines += ["", "```"]
    for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
        marks = " ".join(f"<- {rule.comparison} {rule.limit:g}" for rule in rules if start <= rule.limit < end)
        lines.append(
            f"{start:>10.4g} {'#' * round(TEXT_CHARS * count / most):<{TEXT_CHARS}} {count:>8,} {marks}".rstrip()
        )
    below, above = int((measured < low).sum()), int((measured > high).sum())
    if below:
        lines[-len(counts)] += f" ({below:,} of them below, from {measured.min():.4g})"
    if above:
        lines[-1] += f" ({above:,} of them above {high:.4g}, up to {measured.max():.4g})"
    return [*lines, "```"]


def intervals(rows: Sequence[tuple[str, Sequence[tuple[str, float, float, float]]]], title: str) -> str:
    """Dots with intervals from 0 to 1: for each row, such as an ability, (name, mean, low, high) of each model."""
    width, left, line, gap = 820, 260, 18, 14
    full = width - left - 60
    parts = [text(left, 20, title, "title")]
    top = 40.0
    for label, models in rows:
        parts += [text(10, top + 12, label, "title"), box(left, top - 2, full, 1, GRID)]
        for name, mean, low, high in models:
            parts += [
                text(left - 10, top + 12, name[:TEXT_CHARS], "faint", "end"),
                box(left + low * full, top + 7, (high - low) * full, 2, OURS),
                f'<circle cx="{left + mean * full:.1f}" cy="{top + 8:.1f}" r="4" fill="{OURS}"/>',
                text(left + full + 8, top + 12, f"{mean:.1%}"),
            ]
            top += line
        top += gap
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(text(left + share * full, top + 8, f"{share:.0%}", "faint", "middle"))
    return document(width, int(top) + 20, parts)
