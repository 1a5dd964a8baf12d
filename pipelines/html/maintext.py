"""Extracts the main text of a page with trafilatura: first without its fall-back extractors, then, if it seems to have
missed the text, with them.

`quicken` makes trafilatura faster without changing its output; a test compares the texts with those of the unchanged
library. It removes this overhead:
- lxml calls a Python function for the class of every element;
- XPath expressions that test only tags and attributes run slowly in libxml2 (see `treewalk`);
- a pattern searches each page for characters that pages do not contain;
- options are read from a configuration for every page;
- the tree is copied for extractors that `fast` skips;
- jusText calls a function for every space, and hashes a tuple of 154,000 stop words for every page.
"""

import math
import re
import time
from copy import copy
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

import justext.utils
import lxml.html
import numpy as np
import trafilatura
from lxml import etree
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree
from trafilatura import core, external, utils, xpaths
from trafilatura.settings import Extractor

from pipelines.html.treewalk import Untranslated, Walk

baseline: Any = import_module("trafilatura.baseline")  # the package also exports a function `baseline`
XPATH_LISTS = (
    "RAW_TREE_PRUNE_XPATH",
    "REMOVE_COMMENTS_XPATH",
    "REMOVE_COMMENTS_AND_LISTS_XPATH",
    "OVERALL_DISCARD_XPATH",
    "TEASER_DISCARD_XPATH",
    "DISCARD_IMAGE_ELEMENTS",
    "BODY_XPATH",
)
SPACES = (b"\t", b"\n", b"\r")
WHITE_SPACE = re.compile(r"[^\S ]\s*| \s+")  # jusText's pattern without single spaces, which do not change
NO_CHARACTERS = (b"\xef\xbf\xbe", b"\xef\xbf\xbf")  # U+FFFE and U+FFFF

SHORT = 1000
"""A fast text of this many characters is accepted. The other 12 % of pages are checked, which takes 2 % of the time."""
MAIN_SHARE, PAGE_SHARE = 2, 10
"""A fast text is suspicious if it has less than half of resiliparse's main content and less than a tenth of the page's
text. docs/reading.md shows F1 for other values. Without the half, two and a half times as many pages would be extracted
twice, for the same F1."""


class Found(NamedTuple):
    """The main text of a page, empty if there is none, and whether the page was extracted twice."""

    text: str
    twice: bool


def find_text(page: str, seconds: float = math.inf) -> Found:
    """trafilatura's text without its fall-backs, or with them if that text is suspicious and they find more.

    seconds: the processor time that the page may take. A text that was found without the fall-backs is kept if half of
    this time has passed, or if the fall-backs fail.
    """
    began = time.process_time()
    fast = main_text(page, True) or ""
    if len(fast) >= SHORT:
        return Found(fast, False)
    tree = HTMLTree.parse(page)
    main = extract_plain_text(tree, main_content=True, comments=False, alt_texts=False)
    if not suspicious(len(fast), len(main), len(extract_plain_text(tree, alt_texts=False))):
        return Found(fast, False)
    if fast and time.process_time() - began >= seconds / 2:
        return Found(fast, False)
    try:
        return Found(max(fast, main_text(page, False) or "", key=len), True)
    except Exception:
        if not fast:
            raise
        return Found(fast, True)


def suspicious(found: int, main: int, page: int) -> bool:
    """Whether the extractor seems to have missed the main text.

    found, main, page: characters of the fast text, of resiliparse's main content, and of all text of the page.
    """
    return found < SHORT and found * MAIN_SHARE < main and found * PAGE_SHARE < page


def main_text(page: str, fast: bool) -> str | None:
    """trafilatura's text of a page without readers' comments, or None if it finds no text."""
    document = trafilatura.bare_extraction(page, options=_prepared(fast))
    return document.text if document else None  # type: ignore[union-attr]


@lru_cache(maxsize=2)
def _prepared(fast: bool) -> Extractor:
    quicken()
    return Extractor(output_format="python", fast=fast, comments=False)


@lru_cache(maxsize=1)
def quicken() -> None:
    """Patch trafilatura for speed, once in each process; best before a fork, so that children share the stop words.

    Changes the lists of expressions in place, because other modules of trafilatura refer to the same lists.
    """
    classes = etree.ElementDefaultClassLookup(
        element=lxml.html.HtmlElement,
        comment=lxml.html.HtmlComment,
        pi=lxml.html.HtmlProcessingInstruction,
        entity=lxml.html.HtmlEntity,
    )
    for parser in (utils.HTML_PARSER, lxml.html.html_parser):
        parser.set_element_class_lookup(classes)
    for name in XPATH_LISTS:
        expressions = getattr(xpaths, name)
        only_first = name == "BODY_XPATH"  # the library uses only the first element found
        expressions[:] = [walked(expression, only_first) for expression in expressions]
    baseline.BASIC_CLEAN_XPATH = walked(baseline.BASIC_CLEAN_XPATH)
    utils.INVALID_XML_CHARS = SearchFirst(utils.INVALID_XML_CHARS)  # type: ignore[assignment]
    justext.utils.MULTIPLE_WHITESPACE_PATTERN = WHITE_SPACE
    # Unlike a tuple, a frozenset computes its hash only once.
    external.JT_STOPLIST = frozenset(external.jt_stoplist_init())  # type: ignore[assignment]
    library: Any = core
    library_prepare = core._prepare_tree

    def prepare(tree: Any, options: Extractor, url: str | None) -> tuple[Any, Any]:
        if not options.fast or options.comments:
            return library_prepare(tree, options, url)
        cleaned = library.tree_cleaning(copy(tree), options)
        return library.convert_tags(cleaned, options, url), cleaned  # only extractors that `fast` skips read the second

    core._prepare_tree = prepare


def walked(expression: etree.XPath, only_first: bool = False) -> Walk | etree.XPath:
    """A Walk equal to the expression, or the expression itself if it cannot be translated.

    With `only_first`, a final `[1]` becomes that of the whole path: `.//a[x][1]` finds first what `(.//a[x])[1]` finds.
    """
    path = expression.path.strip()
    if only_first and path.endswith("][1]") and not path.startswith("("):
        path = f"({path[:-3]})[1]"
    try:
        return Walk(path)
    except Untranslated:
        return expression


class SearchFirst:
    """The library's pattern for characters that XML forbids. Runs only over texts that contain such a character."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def sub(self, replacement: str, text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        low = np.count_nonzero(np.frombuffer(data, np.uint8) < ord(" "))
        if low == sum(map(data.count, SPACES)) and not any(one in data for one in NO_CHARACTERS):
            return text
        return self._pattern.sub(replacement, text)
