"""What a run's filters did and what other thresholds would do: `python -m pipelines.report --recipe URI [--output FILE] [--set KEY=VALUE]`.

Without `--set` it writes the report: the funnel beside RefinedWeb's, every reason with sampled snippets, tables by domain and language,
and a histogram of every score with its threshold. With `--set filter.min_words=40` it decides again on the scores that are there and
shows what would be kept; nothing is written to the store.
"""

import argparse
import bisect
import operator
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from contract import contamination
from contract import recipe as recipes
from contract.errors import GristmillError, NotReadyError
from contract.funnel import Level, human_bytes, levels
from contract.manifest import Manifest, find
from contract.plan import Run, open_run
from contract.settings import Filter
from contract.store import Store
from pipelines.job import read_rows
from pipelines.schema import SCORES
from pipelines.text.rules import Rule, decide, rules_for

# RefinedWeb, figure 2: cumulative percentage of documents that are left; exact deduplication counts tokens.
REFINEDWEB = {
    "crawl": ("URL filter", 97.76),
    "extract": ("extraction", 96.31),
    "langid": ("language", 47.51),
    "filter": ("repetition, document-wise, line-wise", 23.34),
    "dedup_fuzzy": ("fuzzy deduplication", 14.50),
    "dedup_substring": ("exact deduplication", 11.67),
}
SNIPPETS, SNIPPET_CHARS, TABLE_ROWS, BINS, BAR_CHARS = 10, 120, 25, 12, 30
STAGES = ("crawl", "extract", "langid", "filter", "dedup_url", "dedup_fuzzy", "dedup_substring", "decontaminate")


def domain_of(url: str | None) -> str:
    """The host of a URL without `www.`, or `-`."""
    try:
        host = urlsplit(url or "").hostname or "-"
    except ValueError:
        return "-"
    return host.removeprefix("www.")


def funnel_table(found: Sequence[Level]) -> list[str]:
    """Our funnel in cumulative percent of documents, RefinedWeb's beside it."""
    lines = ["| stage | documents | left | bytes | RefinedWeb | its step |", "|---|--:|--:|--:|--:|---|"]
    first = found[0].read if found else 0
    for level in found:
        step, left = REFINEDWEB.get(level.stage, ("", None))
        share = level.kept / first if first else 0.0
        published = "" if left is None else f"{left:.2f} %"
        lines.append(
            f"| {level.stage} | {level.kept:,} | {share:.2%} | {human_bytes(level.bytes_kept)} | {published} | {step} |"
        )
    return lines


def smallest_ids(rows: list[dict[str, Any]], row: dict[str, Any], size: int = SNIPPETS) -> None:
    """Keep in `rows` the `size` rows with the smallest ids: ids are hashes, so this is a sample, and the same one in any order."""
    bisect.insort(rows, row, key=operator.itemgetter("id"))
    del rows[size:]


def reason_section(drops: Iterable[dict[str, Any]]) -> list[str]:
    """Every reason with its count and sampled snippets, the most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    samples: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in drops:
        key = row["stage"], row["reason"]
        counts[key] += 1
        smallest_ids(samples[key], row)
    lines = []
    for (stage, reason), count in counts.most_common():
        lines += ["", f"### {stage}: {reason} ({count:,})", ""]
        lines += [
            f"- `{row['value']}` {_cell(row['url'] or '')}: {_cell(row['snippet'] or '')}"
            for row in samples[stage, reason]
        ]
    return lines


def _cell(text: str) -> str:
    """One line that Markdown shows as it is."""
    flat = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    for sign in "\\`*_[]<>|#":
        flat = flat.replace(sign, "\\" + sign)
    return flat[:SNIPPET_CHARS]


def count_table(title: str, kept: Counter[str], dropped: Counter[str]) -> list[str]:
    """Documents kept and dropped by some key, the largest first."""
    lines = [f"| {title} | read | kept | share |", "|---|--:|--:|--:|"]
    for key, total in (kept + dropped).most_common(TABLE_ROWS):
        lines.append(f"| {_cell(key)} | {total:,} | {kept[key]:,} | {kept[key] / total:.1%} |")
    return lines


def histogram(name: str, values: np.ndarray, rules: Sequence[Rule]) -> list[str]:
    """Documents by score, 1st to 99th percentile in equal bins, what each threshold drops alone."""
    measured = values[~np.isnan(values)]
    lines = ["", f"#### {name}", ""]
    lines += [
        f"{rule.reason.value}: drops when {rule.side} {rule.limit:g}, {sum(map(rule.drops, measured)):,} of {len(measured):,}"
        for rule in rules
    ]
    if not len(measured):
        return [*lines, "not measured"]
    low, high = np.percentile(measured, [1, 99])
    counts, edges = np.histogram(np.clip(measured, low, high), bins=BINS if high > low else 1)
    most = counts.max()
    lines += ["", "```"]
    for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
        marks = " ".join(f"<- {rule.side} {rule.limit:g}" for rule in rules if start <= rule.limit < end)
        lines.append(
            f"{start:>10.4g} {'#' * round(BAR_CHARS * count / most):<{BAR_CHARS}} {count:>8,} {marks}".rstrip()
        )
    return [*lines, "```"]


def report(run: Run) -> str:
    """The report as Markdown. Raises NotReadyError before any stage is done."""
    found = levels(run)
    if not found:
        raise NotReadyError(f"{run.uri}: no stage is done yet; run crawl first")
    kept: dict[str, Counter[str]] = {"domain": Counter(), "language": Counter()}
    dropped: dict[str, Counter[str]] = {"domain": Counter(), "language": Counter()}
    for row in _rows(run, ["langid"], "drops", ["reason", "value"]):
        dropped["language"][row["value"].partition(" ")[0]] += 1
    for row in _rows(run, ["filter"], "documents", ["url", "language"]):
        kept["domain"][domain_of(row["url"])] += 1
        kept["language"][row["language"] or "-"] += 1
    for row in _rows(run, ["crawl", "extract", "langid", "filter"], "drops", ["url"]):
        dropped["domain"][domain_of(row["url"])] += 1
    columns, languages = scores_of(run)
    dropped["language"].update(Counter(languages) - kept["language"])
    rules = rules_for(run.recipe.filter, run.recipe.langid.languages[0] if run.recipe.langid.languages else "en")
    lines = [f"# What the filters did: {run.recipe.name}", "", *funnel_table(found)]
    for what, searched in contamination.reports(run).items():
        lines += ["", "## Evaluation sets", "", "```", *contamination.render(what, searched), "```"]
    for key in ("language", "domain"):
        lines += ["", f"## By {key}, up to `filter`", "", *count_table(key, kept[key], dropped[key])]
    lines += ["", "## Reasons", *reason_section(_rows(run, STAGES, "drops"))]
    lines += ["", "## Scores"]
    for name in SCORES if languages else ():
        lines += histogram(name, columns[name], [rule for rule in rules if rule.score == name])
    return "\n".join(lines) + "\n"


def scores_of(run: Run) -> tuple[dict[str, np.ndarray], list[str]]:
    """(every score of every document, nan where it was not measured; the documents' languages), in one order."""
    values: dict[str, list[float]] = {name: [] for name in SCORES}
    languages = []
    for row in _rows(run, ["score"], "documents", ["language", *SCORES]):
        languages.append(row["language"] or "-")
        for name in SCORES:
            values[name].append(np.nan if row[name] is None else row[name])
    return {name: np.array(column, dtype=float) for name, column in values.items()}, languages


def what_if(run: Run, settings: Filter) -> str:
    """What other settings of the filter would keep of the documents that are scored already."""
    now, then = (lru_cache(maxsize=None)(partial(rules_for, one)) for one in (run.recipe.filter, settings))
    moves: Counter[tuple[str, str]] = Counter()
    sizes: Counter[str] = Counter()
    for row in _rows(run, ["score"], "documents", ["language", *SCORES]):
        before, after = decide(row, now(row["language"])), decide(row, then(row["language"]))
        moves[before[0].value if before else "kept", after[0].value if after else "kept"] += 1
        for name, verdict in (("now", before), ("then", after)):
            sizes[name] += 0 if verdict else int(row["words"])
    if not moves:
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


def _rows(run: Run, stages: Iterable[str], kind: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    store: Store = run.store
    for (stage, _), task in run.tasks().items():
        manifest: Manifest | None = find(store, task) if stage in stages else None
        for file in manifest.of(kind) if manifest else ():
            yield from read_rows(store, file.path, columns)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.report", description=__doc__)
    parser.add_argument("--recipe", required=True, help="URI of a resolved run's recipe.yaml")
    parser.add_argument("--output", help="file for the report; default: standard output")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="try filter.KEY=VALUE"
    )
    given = parser.parse_args(arguments)
    try:
        run = open_run(given.recipe)
        if given.overrides:
            print(what_if(run, recipes.load(given.recipe, given.overrides).filter))
        elif given.output:
            with open(given.output, "w") as sink:
                sink.write(report(run))
        else:
            print(report(run), end="")
    except GristmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
