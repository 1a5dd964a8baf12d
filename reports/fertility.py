"""Report how many tokens a run's tokenizer makes of each language, beside the recipe's reference tokenizer.

Usage: `python -m reports.fertility --recipe URI [--output FILE.md]`. It prints tables by language of what the stage
`tokenizer` measured on held-out documents. `--output` writes them to a file, with a chart (SVG) beside it. Nothing is
written to the store.
"""

import argparse
import sys
from collections.abc import Sequence

from contract.errors import exit_code_of
from contract.fertility import Counts, Fertility, read_fertility, whole
from contract.manifest import need
from contract.plan import Run, open_run
from contract.printable import printable
from reports import charts
from reports.report import deliver

FIGURES = {
    "tokens per word": "tokens_per_word",
    "bytes per token": "bytes_per_token",
    "characters per token": "characters_per_token",
    "unknown": "unknown_rate",
}
"""Title -> property of `contract.fertility.Counts`."""
DRAWN = ("tokens per word", "bytes per token", "unknown")


def report(run: Run, figure: str = "") -> tuple[str, dict[str, str]]:
    """Make the report. Returns it as Markdown, and its chart (SVG) by file name.

    figure: the chart's name without `.svg`; if empty, none is drawn. Raises NotReadyError if `tokenizer` is not done.
    """
    manifest = need(run.store, run.task("tokenizer"))
    found = read_fertility(run.store, manifest)
    lines = [f"# What the tokenizer makes of each language: {run.recipe.name}", ""]
    lines += [
        f"Made by `python -m reports.fertility` from {whole(found.own).documents:,} held-out documents. A word stands "
        "between white space; in scripts without spaces each character is one.",
        "",
    ]
    drawn = {f"{figure}.svg": chart(found, run.recipe.name)} if figure else {}
    lines += [f"![figures by language]({name})\n" for name in drawn]
    lines += table(found)
    return "\n".join(map(printable, lines)) + "\n", drawn


def table(found: Fertility) -> list[str]:
    """A row for each language and one for all, with the reference's figure after a stroke."""
    lines = [f"| language | documents | {' | '.join(FIGURES)} |", f"|---|--:|{'--:|' * len(FIGURES)}"]
    rows = [*found.own.items(), *([("all", whole(found.own))] if found.own else [])]
    other = {**found.reference, "all": whole(found.reference)} if found.reference is not None else {}
    for language, own in rows:
        cells = [_cell(name, own, other.get(language)) for name in FIGURES.values()]
        lines.append(f"| {language} | {own.documents:,} | {' | '.join(cells)} |")
    return lines


def _cell(name: str, own: Counts, reference: Counts | None) -> str:
    form = ".2%" if name == "unknown_rate" else ".2f"
    return " / ".join(format(getattr(one, name), form) for one in (own, reference) if one is not None)


def chart(found: Fertility, name: str) -> str:
    """Bars by language, the language with most bytes first."""
    languages = sorted(found.own, key=lambda language: -found.own[language].bytes)
    panels = [
        (
            title,
            [
                charts.Bar(
                    language,
                    getattr(found.own[language], FIGURES[title]),
                    getattr(found.reference[language], FIGURES[title]) if found.reference else None,
                )
                for language in languages
            ],
        )
        for title in DRAWN
    ]
    return charts.by_language(panels, name)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.fertility", description=__doc__)
    parser.add_argument("--recipe", required=True, help="URI of a resolved run's recipe.yaml")
    parser.add_argument(
        "--output", help="Markdown file for the report; its chart goes beside it. Default: standard output"
    )
    given = parser.parse_args(arguments)
    return exit_code_of(lambda: deliver(given.output, lambda stem: report(open_run(given.recipe), stem)))


if __name__ == "__main__":
    sys.exit(main())
