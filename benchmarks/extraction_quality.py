"""Extraction quality with the recipe's settings, on two public sets: `python -m benchmarks.extraction_quality [--data DIR]`.

article-extraction-benchmark: F1 over 4-word shingles of the whole article. trafilatura's evaluation set: per page, snippets that the
text must hold and snippets that it must not, counted over all pages into precision, recall and F1.

The bars are for the extractor's text as both benchmarks score it. The stage then takes URLs and spaces out of it (RefinedWeb), which is no
loss of content: a second line per set gives F1 with the gold text cleaned in the same way.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bars import Bars
from contract.settings import Extract
from pipelines.extract import clean, decode, main_content
from pipelines.text.rangefile import RangeFile
from pipelines.text.warc import Page, read_pages

ARTICLES, MULTILINGUAL = 0.955, 0.915
WORD = re.compile(r"\w+")
SHINGLE = 4
MAX_PAYLOAD = 64 << 20


def texts(file: Path, settings: Extract) -> Iterator[tuple[str, str]]:
    """(URL, the extractor's text) of every page; an empty text where it found none."""
    with RangeFile(str(file)) as source:
        for page in read_pages(source, MAX_PAYLOAD):
            if isinstance(page, Page):
                yield page.url, main_content(settings, (), decode(page.payload, page.charset))


def f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall)


def shingles(text: str) -> Counter[tuple[str, ...]]:
    """4-word shingles with their counts; a shorter text is one shingle."""
    words = WORD.findall(text)
    if not words:
        return Counter()
    return Counter(tuple(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1)))


def article_f1(gold: dict[str, str], found: dict[str, str]) -> float:
    """F1 of mean precision and mean recall over the pages, as the benchmark computes it: no text, no precision."""
    precisions, recalls = [], []
    for url, text in found.items():
        ours, theirs = shingles(text), shingles(gold[url])
        both = (ours & theirs).total()
        if ours:
            precisions.append(both / ours.total())
        if theirs:
            recalls.append(both / theirs.total())
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    print(f"article-extraction-benchmark: {len(recalls)} pages, precision {precision:.3f}, recall {recall:.3f}")
    return f1(precision, recall)


def snippet_f1(gold: list[dict[str, Any]], found: dict[str, str]) -> float:
    """F1 over all snippets: a wanted one that is there is a hit, an unwanted one that is there a false alarm."""
    hits = misses = alarms = 0
    for row in gold:
        text = found.get(row["url"], "")
        hits += sum(snippet in text for snippet in row["with"])
        misses += sum(snippet not in text for snippet in row["with"])
        alarms += sum(snippet in text for snippet in row["without"])
    precision, recall = hits / (hits + alarms), hits / (hits + misses)
    unread = sum(row["url"] not in found for row in gold)
    print(
        f"multilingual snippets: {len(gold)} pages ({unread} not read), precision {precision:.3f}, recall {recall:.3f}"
    )
    return f1(precision, recall)


def gold_articles(folder: Path) -> dict[str, str]:
    rows = json.loads((folder / "aeb_ground-truth.dev.json").read_text()).values()
    return {row["url"]: row["articleBody"] for row in rows}


def gold_snippets(folder: Path) -> list[dict[str, Any]]:
    """One row a page; some of the set's URLs end in a space."""
    rows = json.loads((folder / "trafilatura_evaldata.dev.json").read_text())
    return [{"url": url.strip(), "with": row["with"], "without": row["without"]} for url, row in rows.items()]


def cleaned(texts: dict[str, str]) -> dict[str, str]:
    return {url: clean(text) for url, text in texts.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction_quality", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--default", action="store_true", help="with the fall-back extractors (extract.fast=false)")
    given = parser.parse_args()
    settings = Extract(fast=not given.default)
    folder = given.data / "html_gold"
    articles, snippets = gold_articles(folder), gold_snippets(folder)
    found = dict(texts(folder / "aeb.dev.warc.gz", settings))
    multilingual = dict(texts(folder / "trafilatura_eval.dev.warc.gz", settings))
    bars = Bars()
    bars.at_least("extraction_f1_articles", article_f1(articles, found), ARTICLES)
    bars.at_least("extraction_f1_multilingual", snippet_f1(snippets, multilingual), MULTILINGUAL)
    print("and as the stage keeps the text, without URLs, the gold text likewise:")
    tidy = [{**row, "with": [*map(clean, row["with"])], "without": [*map(clean, row["without"])]} for row in snippets]
    print(f"F1 {article_f1(cleaned(articles), cleaned(found)):.4f}")
    print(f"F1 {snippet_f1(tidy, cleaned(multilingual)):.4f}")
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
