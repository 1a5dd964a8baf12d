"""What the language prefilter costs and saves, at several thresholds: `python -m perf.prefilter [--data DIR]`.

A keeper is a page that, extracted without the prefilter, passes the language stage and the default filters of a recipe for its own
language; it is lost when the prefilter of that recipe would skip it. Every language counts, since every recipe has its own. The
threshold was chosen on one archive and is reported on all others.
"""

import argparse
import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contract.recipe import Recipe
from contract.settings.corpus import Extract
from perf.bars import Bars
from pipelines.extract import clean, decode, main_content
from pipelines.html.prefilter import foreign
from pipelines.langid import identify, language_verdict
from pipelines.rules.decide import decide, rules_for
from pipelines.rules.measure import Tools, clean_and_score
from pipelines.text.fasttext_model import model
from pipelines.warc.pages import read_pages
from pipelines.warc.rangefile import RangeFile
from pipelines.warc.record import Page

CHOSEN_ON = "trafilatura_eval.dev.warc.gz"
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
LOST_KEEPERS = 0.003
MAX_PAYLOAD = 8 << 20


@dataclass(frozen=True)
class Judged:
    """A page: its language once extracted, whether all stages keep it, and what the prefilter sees of that language."""

    url: str
    file: str
    language: str
    kept: bool
    seen: float


def archives(data: Path) -> list[Path]:
    """Every WARC file of the test data that is no test of damage."""
    names = ("*.warc.gz", "*.warc")
    found = [file for folder in ("html_gold", "warc") for name in names for file in (data / folder).rglob(name)]
    return sorted(
        file for file in found if not {"bad", "broken", "trunc"} & set(file.stem.replace(".", "-").split("-"))
    )


def judged(file: Path, recipe: Recipe) -> Iterator[Judged]:
    settings = Extract(prefilter_probability=0)
    with RangeFile(str(file)) as source:
        for page in read_pages(source, MAX_PAYLOAD):
            if not isinstance(page, Page) or page.kind != "html" or page.too_large:
                continue
            text = decode(page.payload, page.charset)
            found = clean(main_content(settings, (), text).text)
            if len(found) < settings.min_chars:
                continue
            language, probability = identify(found[: recipe.langid.sample_chars])
            unwanted = language_verdict(
                language, probability, recipe.langid.model_copy(update={"languages": (language,)})
            )
            scores = clean_and_score(found, language, recipe.score, Tools())[1]
            kept = not unwanted and decide(scores, rules_for(recipe.filter, language)) is None
            seen = foreign(
                text, (language,), 2.0, model().f
            )  # a threshold above every probability: the probability itself
            yield Judged(page.url, file.name, language, kept, 1.0 if seen is None else seen)


def upper_bound(lost: int, total: int, confidence: float = 0.95) -> float:
    """The share below which the true one lies with this confidence (Clopper and Pearson 1934), by bisection."""

    def at_most(share: float) -> float:
        return sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(lost + 1))

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) > 1 - confidence else (low, middle)
    return high


def table(pages: list[Judged], english: list[Judged]) -> None:
    """Keepers lost by threshold, and the share of the pages in other languages than English that an English recipe skips."""
    for threshold in THRESHOLDS:
        lost = [page for page in pages if page.kept and page.seen < threshold]
        keepers = sum(page.kept for page in pages)
        skipped = sum(page.seen < threshold for page in english) / max(len(english), 1)
        print(
            f"  below {threshold:<5g} {len(lost):>3} of {keepers:,} keepers lost ({len(lost) / keepers:.2%}; below"
            f" {upper_bound(len(lost), keepers):.2%} with 95 % confidence); English: {skipped:.1%} of foreign pages skipped"
        )


def english_view(file: Path) -> Iterator[Judged]:
    """The pages that are surely in another language than English, as a recipe for English sees them before extraction."""
    with RangeFile(str(file)) as source:
        for page in read_pages(source, MAX_PAYLOAD):
            if isinstance(page, Page) and page.kind == "html" and not page.too_large:
                text = decode(page.payload, page.charset)
                language, probability = identify(
                    clean(main_content(Extract(extractor="resiliparse"), (), text).text)[:2000]
                )
                if language not in ("en", "und") and probability >= 0.65:
                    seen = foreign(text, ("en",), 2.0, model().f)
                    yield Judged(page.url, file.name, language, False, 1.0 if seen is None else seen)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.prefilter", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    recipe = Recipe()
    files = archives(given.data)
    pages = [page for file in files for page in judged(file, recipe)]
    english = [page for file in files for page in english_view(file)]
    chosen_on = [page for page in pages if page.file == CHOSEN_ON]
    others = [page for page in pages if page.file != CHOSEN_ON]
    print(f"the threshold was chosen on {CHOSEN_ON}:")
    table(chosen_on, [page for page in english if page.file == CHOSEN_ON])
    print(f"all other {len(files) - 1} archives:")
    table(others, [page for page in english if page.file != CHOSEN_ON])
    threshold = Extract().prefilter_probability
    lost = [page for page in pages if page.kept and page.seen < threshold]
    for page in lost:
        print(f"  lost at {threshold:g}: {page.language} {page.seen:.3f} {page.url}")
    keepers = sum(page.kept for page in pages)
    print(f"together {len(lost)} of {keepers:,}, below {upper_bound(len(lost), keepers):.2%} with 95 % confidence")
    bars = Bars()
    bars.at_most("prefilter_lost_keepers", len(lost) / keepers, LOST_KEEPERS)
    reported = [page for page in others if page.kept]
    bars.at_most(
        "prefilter_lost_keepers_elsewhere",
        sum(page.seen < threshold for page in reported) / max(len(reported), 1),
        LOST_KEEPERS,
    )
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
