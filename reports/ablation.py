"""Which variant of a recipe is better: `python -m reports.ablation --recipe RUN [--output FILE]`.

RUN is the run whose recipe names the variants, or the run that compares them.
"""

import argparse
import sys
from collections.abc import Sequence

from contract import ablation
from contract.errors import exit_code_of
from contract.kinds import Kind
from contract.manifest import need
from contract.plan import Run, open_run
from contract.printable import printable_lines
from reports.report import deliver


def report(run: Run) -> str:
    """The Markdown that the stage `ablate` committed. Raises NotReadyError if it is not done."""
    comparison = run if run.recipe.ablate.measured else ablation.resolve(run).comparison
    made = need(comparison.store, comparison.task("ablate"))
    (page,) = [file for file in made.of(Kind.COMPARISON) if file.path.endswith(".md")]
    with page.open(comparison.store) as source:
        text: str = source.read().decode()
    return printable_lines(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.ablation", description=__doc__)
    parser.add_argument("--recipe", required=True, help="URI of a resolved run's recipe.yaml")
    parser.add_argument("--output", help="Markdown file for the report. Default: standard output")
    given = parser.parse_args(arguments)
    return exit_code_of(lambda: deliver(given.output, lambda _: (report(open_run(given.recipe)), {})))


if __name__ == "__main__":
    sys.exit(main())
