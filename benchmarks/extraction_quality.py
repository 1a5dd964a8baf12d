"""Extraction quality with the recipe's settings, on two public sets: `python -m benchmarks.extraction_quality [--data DIR]`.

article-extraction-benchmark: F1 over 4-word shingles of the whole article. trafilatura's evaluation set: per page, snippets that the
text must hold and snippets that it must not, counted over all pages into precision, recall and F1.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars import Bars
from contract.settings import Extract
from pipelines.extract import clean, extract_page
from pipelines.text.rangefile import RangeFile
from pipelines.text.warc import Page, read_pages

ARTICLES, MULTILINGUAL = 0.955, 0.915
WORD = re.compile(r"\w+")
SHINGLE = 4
MAX_PAYLOAD = 64 << 20


def texts(file: Path, settings: Extract) -> Iterator[tuple[str, str]]:
    """(URL, extracted text) of every page; an empty text where the extractor found none."""
    with RangeFile(str(file)) as source:
        for page in read_pages(source, MAX_PAYLOAD):
            if isinstance(page, Page):
                found = extract_page(settings, (), page.payload, f"html {page.charset or ''}")
                yield page.url, json.loads(found)[1] if found else ""


def shingles(text: str) -> Counter[tuple[str, ...]]:
    """4-word shingles with their counts; a shorter text is one shingle."""
    words = WORD.findall(text)
    if not words:
        return Counter()
    return Counter(tuple(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1)))


def article_f1(folder: Path, settings: Extract) -> float:
    """F1 of mean precision and mean recall over the pages, as the benchmark computes it: no text, no precision."""
    gold = {
        row["url"]: row["articleBody"]
        for row in json.loads((folder / "aeb_ground-truth.dev.json").read_text()).values()
    }
    precisions, recalls = [], []
    for url, text in texts(folder / "aeb.dev.warc.gz", settings):
        ours, theirs = shingles(text), shingles(clean(gold[url]))  # our texts hold no URLs, by design
        both = (ours & theirs).total()
        if ours:
            precisions.append(both / ours.total())
        if theirs:
            recalls.append(both / theirs.total())
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    print(f"article-extraction-benchmark: {len(recalls)} pages, precision {precision:.3f}, recall {recall:.3f}")
    return 2 * precision * recall / (precision + recall)


def snippet_f1(folder: Path, settings: Extract) -> float:
    """F1 over all snippets: a wanted one that is there is a hit, an unwanted one that is there a false alarm."""
    gold = json.loads((folder / "trafilatura_evaldata.dev.json").read_text())
    found = dict(texts(folder / "trafilatura_eval.dev.warc.gz", settings))
    hits = misses = alarms = 0
    for url, row in gold.items():
        text = found.get(url.strip(), "")  # some of the set's URLs end in a space
        hits += sum(snippet in text for snippet in row["with"])
        misses += sum(snippet not in text for snippet in row["with"])
        alarms += sum(snippet in text for snippet in row["without"])
    precision, recall = hits / (hits + alarms), hits / (hits + misses)
    unread = sum(url.strip() not in found for url in gold)
    print(
        f"multilingual snippets: {len(gold)} pages ({unread} not read), precision {precision:.3f}, recall {recall:.3f}"
    )
    return 2 * precision * recall / (precision + recall)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction_quality", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--default", action="store_true", help="with the fall-back extractors (extract.fast=false)")
    given = parser.parse_args()
    settings = Extract(fast=not given.default)
    bars = Bars()
    articles = article_f1(given.data / "html_gold", settings)
    snippets = snippet_f1(given.data / "html_gold", settings)
    bars.at_least("extraction_f1_articles", articles, ARTICLES)
    bars.at_least("extraction_f1_multilingual", snippets, MULTILINGUAL)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
