"""What the extractor finds and takes, on two public sets: `python -m perf.extraction_quality [--data DIR]`.

article-extraction-benchmark: F1 over 4-word shingles of the whole article. trafilatura's evaluation set: per page, snippets that the
text must hold and snippets that it must not, counted over all pages into precision, recall and F1.

Each page is extracted in three ways: without the fall-back extractors, always with them, and as the stage does it, with them where the text
looks too short. The stage must be as good as the better of the others, to .001, in a tenth more time than the first. Times are the
processor's, of the ways in turn on each page; the least of some runs counts.

The frontier shows what other rules would give, from the same texts and times: which pages are suspicious, and what a second extraction of
them takes.

The bars are for the extractor's text as both benchmarks score it. The stage then takes URLs and spaces out of it (RefinedWeb), which is no
loss of content: a second line per set gives F1 with the gold text cleaned in the same way.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from perf.bars import Bars
from pipelines.extract import clean, decode, plain_tables
from pipelines.html.maintext import MAIN_SHARE, PAGE_SHARE, SHORT, find_text, main_text
from pipelines.warc.pages import read_pages
from pipelines.warc.rangefile import RangeFile
from pipelines.warc.record import Page

ARTICLES, MULTILINGUAL = 0.956, 0.922
BELOW_THE_BETTER, SLOWER, TWICE = 0.001, 1.10, 0.03
WAYS = {
    "stage": lambda page: find_text(page).text,
    "never": lambda page: main_text(page, True) or "",
    "always": lambda page: main_text(page, False) or "",
}
RULES = ((MAIN_SHARE, PAGE_SHARE), (4, 20), (4, 10), (3, 10), (2, 20), (2, 5), (1, 10), (0, 10))
"""The stage's own rule and others: a text is suspicious below 1/(first) of the main content and 1/(second) of the page, 0 asks for neither."""
WORD = re.compile(r"\w+")
SHINGLE = 4
MAX_PAYLOAD = 64 << 20


@dataclass(frozen=True)
class Sizes:
    """Characters that resiliparse finds on a page, and the processor seconds of each way and of looking (`look`)."""

    main: int
    page: int
    seconds: dict[str, float]


@dataclass
class Run:
    """Each way's processor seconds, and how many pages the stage extracted twice."""

    seconds: Counter[str] = field(default_factory=Counter)
    twice: int = 0
    pages: int = 0
    sizes: dict[str, Sizes] = field(default_factory=dict)


def extract(file: Path, repeats: int, run: Run) -> dict[str, dict[str, str]]:
    """Each way's texts of a file's pages, empty where there is none; times and counts are added to the run."""
    texts: dict[str, dict[str, str]] = {way: {} for way in WAYS}
    with RangeFile(str(file)) as source:
        for page in read_pages(source, MAX_PAYLOAD):
            if isinstance(page, Page):
                decoded = decode(page.payload, page.charset)
                times: dict[str, list[float]] = {way: [] for way in WAYS}
                for turn in range(repeats * len(WAYS)):
                    # In each order on as many pages: what runs behind another finds the page in the processor's cache.
                    way = list(WAYS)[(turn * (1 + run.pages % 2) + run.pages) % len(WAYS)]
                    began = time.process_time()
                    texts[way][page.url] = plain_tables(WAYS[way](decoded))
                    times[way].append(time.process_time() - began)
                run.seconds.update({way: min(taken) for way, taken in times.items()})
                run.twice += find_text(decoded).twice
                run.pages += 1
                began = time.process_time()
                tree = HTMLTree.parse(decoded)
                main = len(extract_plain_text(tree, main_content=True, comments=False, alt_texts=False))
                whole = len(extract_plain_text(tree, alt_texts=False))
                least = {way: min(taken) for way, taken in times.items()}
                run.sizes[page.url] = Sizes(main, whole, least | {"look": time.process_time() - began})
    return texts


def by_rule(
    texts: dict[str, dict[str, str]], run: Run, main_share: float, page_share: float
) -> tuple[dict[str, str], set[str]]:
    """(each page's text by a rule, the pages that it extracts twice)."""
    chosen, twice = dict(texts["never"]), set()
    for url, fast in texts["never"].items():
        sizes = run.sizes[url]
        if len(fast) < SHORT and len(fast) * main_share < sizes.main and len(fast) * page_share < sizes.page:
            twice.add(url)
            chosen[url] = max(fast, texts["always"][url], key=len)
    return chosen, twice


def time_to_never(run: Run, texts: dict[str, str], twice: set[str]) -> float:
    """Seconds with these pages extracted twice, per second without any."""
    seconds = sum(sizes.seconds["never"] for sizes in run.sizes.values())
    looked = sum(run.sizes[url].seconds["look"] for url, text in texts.items() if len(text) < SHORT)
    return (seconds + looked + sum(run.sizes[url].seconds["always"] for url in twice)) / seconds


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
    parser = argparse.ArgumentParser(prog="python -m perf.extraction_quality", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--repeats", type=int, default=4)
    given = parser.parse_args()
    folder = given.data / "html_gold"
    gold, snippets = gold_articles(folder), gold_snippets(folder)
    for work in WAYS.values():
        work("<html><body><p>warm</p></body></html>")
    run = Run()
    articles = extract(folder / "aeb.dev.warc.gz", given.repeats, run)
    multilingual = extract(folder / "trafilatura_eval.dev.warc.gz", given.repeats, run)
    scores = {}
    for way in WAYS:
        print(f"{way}: {run.pages / run.seconds[way]:.1f} pages/s")
        scores[way] = article_f1(gold, articles[way]), snippet_f1(snippets, multilingual[way])
        print("  F1 {:.4f}, {:.4f}".format(*scores[way]))
    print(f"frontier: share twice, time, F1 articles, F1 multilingual ({len(gold)} and {len(snippets)} pages)")
    for main_share, page_share in RULES:
        (first, some), (second, others) = (
            by_rule(one, run, main_share, page_share) for one in (articles, multilingual)
        )
        slower = time_to_never(run, articles["never"] | multilingual["never"], some | others)
        found = article_f1(gold, first), snippet_f1(snippets, second)
        rule = f"main 1/{main_share:g}, page 1/{page_share:g}" if main_share else f"page 1/{page_share:g}"
        print(f"  {rule}: {len(some | others) / run.pages:.1%} {slower:.3f} {found[0]:.4f} {found[1]:.4f}")
    print("stage, as it keeps the text, without URLs, the gold text likewise:")
    tidy = [{**row, "with": [*map(clean, row["with"])], "without": [*map(clean, row["without"])]} for row in snippets]
    kept = article_f1(cleaned(gold), cleaned(articles["stage"])), snippet_f1(tidy, cleaned(multilingual["stage"]))
    print("  F1 {:.4f}, {:.4f}".format(*kept))
    print(f"extracted twice: {run.twice} of {run.pages} pages ({run.twice / run.pages:.1%})")
    bars = Bars()
    for name, at, least in (("articles", 0, ARTICLES), ("multilingual", 1, MULTILINGUAL)):
        better = max(scores["never"][at], scores["always"][at])
        bars.at_least(f"extraction_f1_{name}", scores["stage"][at], least)
        bars.at_least(f"extraction_f1_{name}_to_the_better", scores["stage"][at] - better, -BELOW_THE_BETTER)
    bars.at_most("extraction_time_to_never", run.seconds["stage"] / run.seconds["never"], SLOWER)
    bars.at_most("extraction_share_twice", run.twice / run.pages, TWICE)
    return bars.code


if __name__ == "__main__":
    sys.exit(main())
