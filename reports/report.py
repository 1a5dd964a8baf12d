"""Report what a run's filters did, or what other thresholds would do.

Usage: `python -m reports.report --recipe URI [--set filter.KEY=VALUE ...]`. Without `--set`, it prints the report: the
funnel next to RefinedWeb's, every drop reason with sampled snippets, tables by domain and language, and a histogram of
every score with its thresholds. `--output FILE.md` writes the report to a file, with figures (SVG) in the same folder.
`--no-snippets` leaves out text of pages, for a report that is passed on. With `--set`, for example
`--set filter.min_words=40`, it decides again on the existing scores and prints what would be kept. Nothing is written
to the store.
"""

import argparse
import bisect
import operator
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from contract import contamination
from contract import recipe as recipes
from contract.documents import parts_of, read_documents, stored_columns
from contract.errors import GristmillError, NotReadyError, RecipeError, exit_code_of
from contract.funnel import levels
from contract.kinds import Kind
from contract.manifest import Manifest, find
from contract.plan import Run, open_run
from contract.printable import printable
from contract.scores import SCORES
from contract.settings.filter import Filter, Rule
from contract.stages import STAGES
from contract.tables import read_rows
from pipelines.pii import mask as pii
from pipelines.rules.decide import decide, rules_for
from reports import charts
from reports.refinedweb import funnel, funnel_table

SNIPPETS, SNIPPET_CHARS, TABLE_ROWS = 10, 120, 25
DROPPING = [stage.name for stage in STAGES.values() if stage.drops]


def domain_of(url: str | None) -> str:
    """The host of a URL without `www.`, or `-` if it has none."""
    try:
        host = urlsplit(url or "").hostname or "-"
    except ValueError:
        return "-"
    return host.removeprefix("www.")


def smallest_ids(rows: list[dict[str, Any]], row: dict[str, Any], size: int = SNIPPETS) -> None:
    """Insert a row, and keep in `rows` only the `size` rows of smallest id.

    Ids are hashes, so these rows are a random sample that does not depend on the order of insertion.
    """
    bisect.insort(rows, row, key=operator.itemgetter("id"))
    del rows[size:]


def reason_section(drops: Iterable[dict[str, Any]], snippets: bool = True) -> list[str]:
    """Every drop reason with its count and sampled snippets, the most frequent first.

    Personal data in snippets is masked, even if the recipe does not mask it.
    """
    counts: Counter[tuple[str, str]] = Counter()
    samples: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in drops:
        key = row["stage"], row["reason"]
        counts[key] += 1
        smallest_ids(samples[key], row)
    if not snippets:
        table = [f"| {stage} | {reason} | {count:,} |" for (stage, reason), count in counts.most_common()]
        return ["", "| stage | reason | documents |", "|---|---|--:|", *table]
    lines = []
    for (stage, reason), count in counts.most_common():
        lines += ["", f"### {stage}: {reason} ({count:,})", ""]
        lines += [
            f"- `{row['value']}` {_cell(row['url'] or '')}: {_cell(row['snippet'] or '')}"
            for row in samples[stage, reason]
        ]
    return lines


def _cell(text: str) -> str:
    """Text as one line, escaped for Markdown, cut to SNIPPET_CHARS and with personal data masked."""
    text, _ = pii.mask(text, ("email", "ip", "phone"))
    flat = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    for sign in "\\`*_[]<>|#":
        flat = flat.replace(sign, "\\" + sign)
    return flat[:SNIPPET_CHARS]


def count_table(title: str, kept: Counter[str], dropped: Counter[str]) -> list[str]:
    """A table of documents read and kept by key, for the TABLE_ROWS most frequent keys."""
    lines = [f"| {title} | read | kept | share |", "|---|--:|--:|--:|"]
    for key, total in (kept + dropped).most_common(TABLE_ROWS):
        lines.append(f"| {_cell(key)} | {total:,} | {kept[key]:,} | {kept[key] / total:.1%} |")
    return lines


def judged(
    columns: dict[str, np.ndarray], languages: Sequence[str], settings: Filter
) -> tuple[dict[str, np.ndarray], list[Rule]]:
    """Set scores to nan in documents whose language has no rule for them, if another language has one.

    columns: scores by name, in the order of `languages`. Returns the scores, and all rules of these languages.
    """
    asked = {language: rules_for(settings, language) for language in sorted(set(languages))}
    rules = list(dict.fromkeys(rule for one in asked.values() for rule in one))
    names = {language: {rule.score for rule in one} for language, one in asked.items()}
    kept = dict(columns)
    for name in columns.keys() & {rule.score for rule in rules}:
        kept[name] = np.where([name in names[language] for language in languages], columns[name], np.nan)
    return kept, rules


def score_table(columns: dict[str, np.ndarray], languages: Sequence[str], rules: Sequence[Rule]) -> list[str]:
    """A table of scores: percentiles, what each rule alone drops, and in which languages a score was not judged."""
    lines = ["| score | 1 % | median | 99 % | dropped by its rule alone | not judged |", "|---|--:|--:|--:|---|---|"]
    for name, values in columns.items():
        absent = np.isnan(values)
        there = values[~absent]
        ends = [charts.short(one) for one in np.percentile(there, [1, 50, 99])] if len(there) else ["", "", ""]
        drops = "; ".join(
            f"{rule.reason} {rule.comparison} {rule.limit:g}: {sum(map(rule.drops, there.tolist())):,}"
            for rule in rules
            if rule.score == name
        )
        where = Counter(language for language, gone in zip(languages, absent, strict=True) if gone)
        missing = f"{where.total():,}: {', '.join(code for code, _ in where.most_common(8))}" if where else ""
        lines.append(f"| {name} | {' | '.join(ends)} | {drops} | {missing} |")
    return lines


def tables(run: Run) -> list[str]:
    """Tables of documents by language and by domain, for the stages up to `filter`."""
    kept: dict[str, Counter[str]] = {"domain": Counter(), "language": Counter()}
    dropped: dict[str, Counter[str]] = {"domain": Counter(), "language": Counter()}
    for row in _drops(run, ["langid"], ["reason", "value"]):
        dropped["language"][row["value"].partition(" ")[0]] += 1
    for row in _documents(run, "filter", ["url", "language"]):
        kept["domain"][domain_of(row["url"])] += 1
        kept["language"][row["language"] or "-"] += 1
    for row in _drops(run, ["crawl", "extract", "langid", "filter"], ["url"]):
        dropped["domain"][domain_of(row["url"])] += 1
    scored = Counter(row["language"] or "-" for row in _documents(run, "score", ["language"]))
    dropped["language"].update(scored - kept["language"])
    lines = []
    for key in ("language", "domain"):
        lines += ["", f"## By {key}, up to `filter`", "", *count_table(key, kept[key], dropped[key])]
    return lines


def report(run: Run, snippets: bool = True, figures: str = "") -> tuple[str, dict[str, str]]:
    """Make the report. Returns it as Markdown, and its figures (SVG) by file name.

    figures: the prefix of the figures' names; if empty, histograms are drawn as text and no figures are returned.
    Raises NotReadyError if no stage is done.
    """
    found = levels(run)
    if not found:
        raise NotReadyError(f"{run.uri}: no stage is done yet; run crawl first")
    columns, languages = scores_of(run)
    columns, rules = judged(columns, languages, run.recipe.filter)
    of = {name: [rule for rule in rules if rule.score == name] for name in SCORES}
    bars = [charts.Bar(step.name, step.share, step.published and step.published / 100) for step in funnel(found)]
    drawn = {
        f"{figures}-funnel.svg": charts.funnel(bars, run.recipe.name, "RefinedWeb"),
        f"{figures}-scores.svg": charts.histograms([(name, columns[name], of[name]) for name in SCORES]),
    }
    read = f"{len(languages):,} scored documents of {len(run.segments)} segments"
    lines = [f"# What the filters did: {run.recipe.name}", "", f"Made by `python -m reports.report` from {read}.", ""]
    if figures:
        lines += [f"![what is left after each step]({figures}-funnel.svg)", ""]
    lines += [*funnel_table(found), *tables(run)]
    for what, searched in contamination.reports(run).items():
        lines += ["", "## Evaluation sets", "", "```", *contamination.render(what, searched), "```"]
    lines += ["", "## Reasons"]
    lines += [*reason_section(_drops(run, DROPPING), snippets), "", "## Scores", ""]
    if figures:
        lines += [f"![a histogram of every score with its thresholds]({figures}-scores.svg)", ""]
    lines += score_table(columns, languages, rules) if languages else []
    for name in SCORES if languages and not figures else ():
        lines += charts.as_text(name, columns[name], of[name])
    return "\n".join(map(printable, lines)) + "\n", drawn if figures else {}


def scores_of(run: Run) -> tuple[dict[str, np.ndarray], list[str]]:
    """Scores by name, nan if not measured, and the documents' languages, all in the same document order."""
    values: dict[str, list[float]] = {name: [] for name in SCORES}
    languages = []
    for row in _documents(run, "score", ["language", *SCORES]):
        languages.append(row["language"] or "-")
        for name in SCORES:
            score = row.get(name)  # results that are older than a score lack its column
            values[name].append(np.nan if score is None else score)
    return {name: np.array(column, dtype=float) for name, column in values.items()}, languages


def filter_with(uri: str, overrides: Sequence[str]) -> Filter:
    """A recipe's filter settings with overrides. Raises RecipeError for a key outside `filter`."""
    for item in overrides:
        if not item.startswith("filter."):
            raise RecipeError(f"--set {item}: only filter.KEY=VALUE can be tried on existing scores")
    return recipes.load(uri, overrides).filter


def what_if(run: Run, settings: Filter) -> str:
    """Compare what the recipe's and other filter settings keep of the scored documents. Returns the text to print.

    Raises NotReadyError if there are no scores, or if they lack one that the other settings judge.
    """
    now, then = (lru_cache(maxsize=None)(partial(rules_for, one)) for one in (run.recipe.filter, settings))
    asked = {rule.score for rule in settings.rules()}
    moves: Counter[tuple[str, str]] = Counter()
    sizes: Counter[str] = Counter()
    for row in _documents(run, "score", ["language", *SCORES]):
        if lacking := asked.difference(row):
            raise NotReadyError(
                f"{run.uri}: was scored before {', '.join(sorted(lacking))} was measured; "
                "resolve its recipe again with these overrides, and run score"
            )
        before, after = decide(row, now(row["language"])), decide(row, then(row["language"]))
        moves[before[0] if before else "kept", after[0] if after else "kept"] += 1
        for name, verdict in (("now", before), ("then", after)):
            sizes[name] += 0 if verdict else int(row["kept_words"])
    if not moves and not all(find(run.store, task) for (stage, _), task in run.tasks().items() if stage == "score"):
        raise NotReadyError(f"{run.uri}: score is not done; run: python -m pipelines score --recipe {run.uri}")
    kept_now = sum(count for (before, _), count in moves.items() if before == "kept")
    kept_then = sum(count for (_, after), count in moves.items() if after == "kept")
    lines = [
        f"{moves.total():,} documents scored",
        f"kept now      {kept_now:>10,} documents {sizes['now']:>14,} words",
        f"kept then     {kept_then:>10,} documents {sizes['then']:>14,} words",
    ]
    changed = [(pair, count) for pair, count in moves.most_common() if pair[0] != pair[1]]
    lines += [f"{before:>32} -> {after:<32}{count:>8,}" for (before, after), count in changed]
    return "\n".join(lines)


def _done(run: Run, stages: Iterable[str]) -> Iterator[Manifest]:
    for (stage, _), task in run.tasks().items():
        manifest = find(run.store, task) if stage in stages else None
        if manifest:
            yield manifest


def _drops(run: Run, stages: Iterable[str], columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    for manifest in _done(run, stages):
        for file in manifest.of(Kind.DROPS):
            yield from read_rows(run.store, file, columns)


def _documents(run: Run, stage: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows that a stage left. Those of a result that is older than a score lack the score's column."""
    for manifest in _done(run, [stage]):
        for part in parts_of(manifest):
            lacking = {*SCORES}.difference(stored_columns(run.store, part, SCORES))
            yield from read_documents(run.store, part, [name for name in columns if name not in lacking])


def deliver(output: str | None, make: Callable[[str], tuple[str, Mapping[str, str]]]) -> None:
    """Print a page, or write it to the file `output` with its figures beside it.

    `make` gives the Markdown and the figures by name; it gets the stem of the file, with which their names begin.
    """
    target = Path(output) if output else None
    markdown, figures = make(target.stem if target else "")
    if target is None:
        print(markdown, end="")
    else:
        write(target, {target.name: markdown, **figures})


def write(target: Path, files: Mapping[str, str]) -> None:
    """Write the report and its figures, by name, to the target's folder, which is created if missing.

    Raises GristmillError if that fails.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            target.with_name(name).write_text(content)
    except OSError as error:
        raise GristmillError(f"--output {target}: {error}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.report", description=__doc__)
    parser.add_argument("--recipe", required=True, help="URI of a resolved run's recipe.yaml")
    parser.add_argument(
        "--output", help="Markdown file for the report; its figures go beside it. Default: standard output"
    )
    parser.add_argument("--no-snippets", action="store_true", help="leave out what pages say")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="try filter.KEY=VALUE"
    )
    given = parser.parse_args(arguments)

    def tell() -> None:
        run = open_run(given.recipe)
        if given.overrides:
            print(what_if(run, filter_with(given.recipe, given.overrides)))
        else:
            deliver(given.output, partial(report, run, not given.no_snippets))

    return exit_code_of(tell)


if __name__ == "__main__":
    sys.exit(main())
