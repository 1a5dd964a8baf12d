"""The report on what a run's models can do: put together from their records, as JSON and as Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import fmean

from pydantic import TypeAdapter, ValidationError

from contract.benchmarks import LEAST_EXTRACTED
from contract.contamination import Found, Searched
from contract.errors import DamagedError
from contract.printable import printable
from evals.abilities import Change, Results, Row, alignment_tax, balance, below, closing, table, told, untold
from evals.grading import Score, of_several
from evals.intervals import CONFIDENCE
from evals.leaks import Gap, Split, split

TUNED, ALIGNED = "sft", "aligned"
"""What the instruction-tuned and the aligned model of a run are called."""
FOUND: tuple[Found, ...] = ("clean", "overlapping", "leaked", "too short")
SIGNS = {"worse": "WORSE", "better": "better", "same": "", "cannot be told": "cannot be told"}


@dataclass(frozen=True)
class Contamination:
    """What `decontaminate` found of one benchmark in the corpus, and how the models answer its items apart by that.

    items: how many of each; empty if the benchmark was not searched for. stays: items that leaked into documents which
    are still in the corpus.
    """

    benchmark: str
    items: Mapping[Found, int]
    stays: int
    models: Mapping[str, Split]


@dataclass(frozen=True)
class Report:
    """What a run's models can do. extraction: benchmark -> model -> share of outputs in which an answer was found.

    bounded: whether the recipe bounds what the aligned model may lose or must reach. closing: why it is to be kept back
    by these bounds. judged: sentences on the aligned model's win rates. untold: abilities that `max_drop` cannot hold
    to anything, since they have too few sources. shots: benchmark -> examples before an item. several: benchmark ->
    `pass@K`, `majority` or `best by reward` -> model -> its score, where items have several outputs.
    """

    models: tuple[str, ...]
    confidence: float
    rows: tuple[Row, ...]
    extraction: Mapping[str, Mapping[str, float]]
    changes: tuple[Change, ...]
    alignment_tax: str
    judged: tuple[str, ...]
    bounded: bool
    closing: tuple[str, ...]
    contamination: tuple[Contamination, ...]
    untold: tuple[str, ...] = ()
    shots: Mapping[str, int] = field(default_factory=dict)
    several: Mapping[str, Mapping[str, Mapping[str, Score]]] = field(default_factory=dict)


@cache
def _adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


def dumped(report: Report) -> str:
    """The report as JSON."""
    return _adapter().dump_json(report, indent=1).decode()


def parsed(content: bytes, where: str) -> Report:
    """The report that `dumped` wrote. Raises DamagedError, which says where, for anything else."""
    try:
        return _adapter().validate_json(content)
    except ValidationError as error:
        raise DamagedError(f"{where}: is no report on abilities ({error.error_count()} fields are wrong)") from None


def put_together(
    results: Results,
    chain: Sequence[str],
    searched: Mapping[str, Mapping[str, Searched]],
    max_drop: float | None = None,
    at_least: Mapping[str, float] | None = None,
    judged: Sequence[str] = (),
    confidence: float = CONFIDENCE,
    shots: Mapping[str, int] | None = None,
) -> Report:
    """The report on models. chain: those that were trained one after the other, in order; others have scores alone.

    searched: benchmark -> item id -> what was found of it in the corpus, for the benchmarks of which all items were
    searched for. max_drop, at_least: as `evals.abilities.closing` and `below` take them. shots: benchmark -> examples
    before an item. Raises InputError if two models of the chain were not asked the same items of a benchmark.
    """
    rows = table(results, confidence)
    changes = balance({model: results[model] for model in chain}, confidence)
    closed = [] if max_drop is None else [_closed(one) for one in closing(changes, ALIGNED, TUNED, max_drop)]
    names = dict.fromkeys(name for asked in results.values() for name in asked)
    return Report(
        models=tuple(results),
        confidence=confidence,
        rows=tuple(rows),
        extraction={name: _extracted(results, name) for name in names},
        changes=tuple(changes),
        alignment_tax=alignment_tax(changes, TUNED, ALIGNED),
        judged=tuple(judged),
        bounded=max_drop is not None or bool(at_least),
        closing=(*closed, *(below(rows, ALIGNED, at_least or {}) if ALIGNED in results else [])),
        contamination=tuple(_contamination(results, name, searched.get(name), confidence) for name in names),
        untold=() if max_drop is None else tuple(untold(changes, ALIGNED, TUNED)),
        shots=dict(shots or {}),
        several={name: found for name in names if (found := _several(results, name, confidence))},
    )


def _closed(change: Change) -> str:
    return f"{told(change)}, against {change.against}"


def _extracted(results: Results, name: str) -> dict[str, float]:
    return {
        model: fmean(one.extracted is not None for one in asked[name])
        for model, asked in results.items()
        if name in asked
    }


def _several(results: Results, name: str, confidence: float) -> dict[str, dict[str, Score]]:
    found: dict[str, dict[str, Score]] = {}
    for model, asked in results.items():
        if name in asked:
            for what, one in of_several(asked[name], confidence).named.items():
                found.setdefault(what, {})[model] = one
    return found


def _contamination(
    results: Results, name: str, searched: Mapping[str, Searched] | None, confidence: float
) -> Contamination:
    if searched is None:
        return Contamination(name, {}, 0, {})
    counts = Counter(one.found for one in searched.values())
    found = {item: one.found for item, one in searched.items()}
    models = {model: split(asked[name], found, confidence) for model, asked in results.items() if name in asked}
    items = {one: counts[one] for one in FOUND}
    return Contamination(name, items, sum(one.stays for one in searched.values()), models)


# ---------------------------------------------------------------- Markdown


def markdown(report: Report, name: str, figures: Sequence[tuple[str, str]] = ()) -> str:
    """The report as Markdown. figures: (what it shows, file) of pictures that stand beside the text."""
    lines = [f"# What the models of {cell(name)} can do", ""]
    lines += [line for what, file in figures for line in (f"![{cell(what)}]({file})", "")]
    lines += [*ability_table(report), "", *_extraction(report)]
    if report.changes:
        lines += ["## Each model against those before it", "", *changes_table(report), ""]
    for said in (report.alignment_tax, *report.judged, gate_line(report)):
        lines += [cell(said), ""] if said else []
    lines += ["## Items that stand in the training corpus", "", *contamination_table(report)]
    return "\n".join(map(printable, lines)) + "\n"


def ability_table(report: Report) -> list[str]:
    """Make a row for each ability and each benchmark: every model's score in percent with its interval, and n.

    Where items have several outputs, rows for pass@k, the majority and the best by reward follow their benchmark's.
    """
    lines = [
        f"Scores in percent with {report.confidence:.0%} intervals over sources. There is no average over abilities.",
        "",
        f"| ability | {' | '.join(map(cell, report.models))} | n | sources |",
        f"|---|{'---|' * len(report.models)}--:|--:|",
    ]
    for row in report.rows:
        shots = report.shots.get(row.benchmark or "")
        of_shots = "" if shots is None else f", {shots}-shot"
        label = f"**{cell(row.ability)}**" if row.benchmark is None else cell(row.benchmark) + of_shots
        lines.append(_score_row(label, row.scores, report.models))
        for what, several in report.several.get(row.benchmark or "", {}).items():
            lines.append(_score_row(f"{cell(row.benchmark or '')}, {what}", several, report.models))
    return lines


def _score_row(label: str, scores: Mapping[str, Score | None], models: Sequence[str]) -> str:
    first = next((one for one in scores.values() if one), None)
    cells = " | ".join(shown(scores.get(model)) for model in models)
    return f"| {label} | {cells} | {first.n if first else 0:,} | {first.sources if first else 0:,} |"


def shown(score: Score | None) -> str:
    """A score in percent with its interval, or a dash."""
    return f"{100 * score.mean:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})" if score else "-"


def _extraction(report: Report) -> list[str]:
    low = [
        f"- {cell(name)}, {cell(model)}: an answer was found in only {100 * rate:.1f} % of the outputs."
        for name, rates in report.extraction.items()
        for model, rate in rates.items()
        if rate < LEAST_EXTRACTED
    ]
    said = f"Below {LEAST_EXTRACTED:.0%} a score tells how answers are written rather than whether they are right:"
    return [said, "", *low, ""] if low else []


def changes_table(report: Report) -> list[str]:
    """Every comparison, with the drops marked."""
    lines = [
        "Paired tests on the same items. p is corrected for the number of abilities, and for how many models the best",
        "so far was chosen of.",
        "",
        "| model | against | ability | before | after | points | n | p | |",
        "|---|---|---|--:|--:|---|--:|--:|---|",
    ]
    for change in report.changes:
        one = change.difference
        points = f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
        against = cell(change.against) + (", the best so far" if change.why == "best" else "")
        lines.append(
            f"| {cell(change.model)} | {against} | {cell(change.ability)} | {100 * one.first:.1f} | "
            f"{100 * one.second:.1f} | {points} | {one.n:,} | {one.adjusted:.2g} | {SIGNS[change.verdict]} |"
        )
    return lines


def gate_line(report: Report) -> str:
    """What the recipe's bounds decided, in a sentence; empty if there are none."""
    if not report.bounded or ALIGNED not in report.models:
        return ""
    said = "The aligned model is within the bounds of the recipe."
    if report.closing:
        said = f"The aligned model is kept back: {'; '.join(report.closing)}."
    few = f" Too few sources to tell a drop from noise: {', '.join(report.untold)}." if report.untold else ""
    return said + few


def contamination_table(report: Report) -> list[str]:
    """Of each benchmark what was found in the corpus, and below it each model's scores apart by that."""
    searched = [one for one in report.contamination if one.items]
    unsearched = ", ".join(cell(one.benchmark) for one in report.contamination if not one.items)
    lines = [] if not searched else [
        "Leaked: a document held at least 80 % of the item. Overlapping: documents shared words with it, and no more.",
        "`decontaminate` took these documents out, or cut them, but for those of the items that are still there.",
        "A gap between leaked and clean items is memory, or leaked items are easier; the same gap of an earlier model",
        "tells which. The gap of overlapping items is what text of the same kind gains.",
        "",
        "| benchmark, model | clean | overlapping | leaked | too short | still there | leaked - clean | "
        "overlapping - clean |",
        "|---|---|---|---|---|--:|---|---|",
    ]  # fmt: skip
    for one in searched:
        counts = " | ".join(f"{one.items.get(found, 0):,} items" for found in FOUND)
        lines.append(f"| **{cell(one.benchmark)}** | {counts} | {one.stays:,} | | |")
        for model, apart in one.models.items():
            scores = " | ".join(shown(apart.scores.get(found)) for found in FOUND)
            gaps = f"{gap_shown(apart.leakage)} | {gap_shown(apart.in_distribution)}"
            lines.append(f"| {cell(model)} | {scores} | | {gaps} |")
    if unsearched:
        said = "`decontaminate.benchmarks` names no file or folder of the same content"
        lines += [*([""] if lines else []), f"Not searched for: {unsearched}. {said}."]
    return lines


def gap_shown(gap: Gap | None) -> str:
    """A gap in points with its interval, or a dash."""
    return f"{100 * gap.mean:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})" if gap else "-"


def cell(text: str) -> str:
    """Text as a cell of a table: one line, without Markdown of its own."""
    flat = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in flat)
