"""trafilatura, made faster without a change to its output: a test compares the texts with those of the library as it comes.

What it pays for and gets nothing from: lxml asks a Python function for the class of every element; libxml2 walks `.//*[...]` in two
steps; every regular expression is called for elements that lack the attribute; a union of paths is a walk for each and a sort; options
are read from a configuration for every page; and a copy of the tree is kept for extractors that `fast` leaves out.
"""

import re
from copy import copy
from functools import lru_cache
from importlib import import_module
from typing import Any

import lxml.html
import trafilatura
from lxml import etree
from trafilatura import core, utils, xpaths
from trafilatura.settings import Extractor

baseline = import_module("trafilatura.baseline")  # the package has a function of that name
XPATH_LISTS = (
    "RAW_TREE_PRUNE_XPATH",
    "REMOVE_COMMENTS_XPATH",
    "REMOVE_COMMENTS_AND_LISTS_XPATH",
    "OVERALL_DISCARD_XPATH",
    "TEASER_DISCARD_XPATH",
    "DISCARD_IMAGE_ELEMENTS",
    "BODY_XPATH",
)
SLOW_STEP = re.compile(r"\.//\*\[")
ATTRIBUTE_TEST = re.compile(r"re:test\((@[\w@|-]+), '([^']*)'(, 'i')?\)")
SIBLING_POSITION = re.compile(r"\]\s*\[\s*\d+\s*\]")  # not the 1 of `(...)[1]`, which counts over the whole result
UNION_OF_TAGS = re.compile(r"\.//(\w+)(\[[^\]]*\])?")


def main_text(page: str, fast: bool) -> str | None:
    """trafilatura's text of a page without its comments, or None where it finds none."""
    found = trafilatura.bare_extraction(page, options=_prepared(fast))
    return found.text if found else None  # type: ignore[union-attr]


@lru_cache(maxsize=2)
def _prepared(fast: bool) -> Extractor:
    _quicken()
    return Extractor(output_format="python", fast=fast, comments=False)


@lru_cache(maxsize=1)
def _quicken() -> None:
    """Once a process. Lists of expressions change in place, because trafilatura's other modules hold the same lists."""
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
        expressions[:] = [_compiled(one_walk(expression.path)) for expression in expressions]
    baseline.BASIC_CLEAN_XPATH = _compiled(one_union(baseline.BASIC_CLEAN_XPATH.path))
    library_prepare = core._prepare_tree

    def prepare(tree: Any, options: Extractor, url: str | None) -> tuple[Any, Any]:
        if not options.fast or options.comments:
            return library_prepare(tree, options, url)
        cleaned = core.tree_cleaning(copy(tree), options)
        return core.convert_tags(cleaned, options, url), cleaned  # the second is read by what fast leaves out

    core._prepare_tree = prepare


def _compiled(path: str) -> etree.XPath:
    return etree.XPath(path, namespaces={"re": xpaths.REGEXP_NS})


def one_walk(path: str) -> str:
    """An equal XPath that walks once, and asks a pattern only of elements that have the attribute.

    `descendant::*` counts positions over all descendants and `.//*` among siblings: a path that counts those keeps its step. A
    missing attribute tests as the empty string, so a pattern that matches the empty string keeps its form too.
    """
    if not SIBLING_POSITION.search(path):
        path = SLOW_STEP.sub("descendant::*[", path)
    return ATTRIBUTE_TEST.sub(_guarded, path)


def _guarded(match: re.Match[str]) -> str:
    if re.search(match[2], "", re.IGNORECASE):
        return match[0]
    return f"({match[1]} and {match[0]})"


def one_union(path: str) -> str:
    """`.//a|.//b[x]|.//*[y]` as one walk: `descendant::*[self::a or self::b[x] or (y)]`. Another shape comes back as it is."""
    tags, _, rest = path.rpartition("|.//*[")
    if not tags or not rest.endswith("]"):
        return path
    tests = [f"self::{match[1]}{match[2] or ''}" for match in UNION_OF_TAGS.finditer(tags)]
    if "|".join(match[0] for match in UNION_OF_TAGS.finditer(tags)) != tags:
        return path
    return one_walk(f"descendant::*[{' or '.join(tests)} or ({rest[:-1]})]")
