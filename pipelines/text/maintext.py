"""trafilatura, made faster without a change to its output: a test compares the texts with those of the library as it comes.

Two things cost it much and give it nothing. lxml asks a Python function for the class of every element, to serve `<a>`, `<form>`
and the like with classes of their own, of which trafilatura uses none. And libxml2 walks `.//*[...]` in two steps, every node and then
its children; `descendant::*[...]` names the same elements in the same order in one, where no predicate counts positions.
"""

import re
from functools import lru_cache
from typing import Any

import lxml.html
import trafilatura
from lxml import etree
from trafilatura import baseline, core, htmlprocessing, main_extractor, utils, xpaths

SLOW_STEP = re.compile(r"\.//\*\[")
POSITION = re.compile(r"\]\s*\[\s*\d+\s*\]|\[\s*\d+\s*\]\s*(?=$|\|)|position\(|last\(")
XPATH_LISTS = (
    "RAW_TREE_PRUNE_XPATH",
    "REMOVE_COMMENTS_XPATH",
    "REMOVE_COMMENTS_AND_LISTS_XPATH",
    "OVERALL_DISCARD_XPATH",
    "TEASER_DISCARD_XPATH",
    "PRECISION_DISCARD_XPATH",
    "DISCARD_IMAGE_ELEMENTS",
    "BODY_XPATH",
)


def main_text(page: str, fast: bool) -> str | None:
    """trafilatura's text of a page without its comments, or None where it finds none."""
    _prepare()
    found = trafilatura.bare_extraction(page, fast=fast, include_comments=False)
    return found.text if found else None  # type: ignore[union-attr]


@lru_cache(maxsize=1)
def _prepare() -> None:
    for parser in (utils.HTML_PARSER, lxml.html.html_parser):
        parser.set_element_class_lookup(
            etree.ElementDefaultClassLookup(
                element=lxml.html.HtmlElement,
                comment=lxml.html.HtmlComment,
                pi=lxml.html.HtmlProcessingInstruction,
                entity=lxml.html.HtmlEntity,
            )
        )
    for name in XPATH_LISTS:
        expressions = getattr(xpaths, name)
        expressions[:] = [one_step(expression) for expression in expressions]  # in place: other modules hold the list


def one_step(expression: Any) -> Any:
    """An equal XPath that walks the tree once, or the same one where it counts positions per parent."""
    path = expression.path
    # `(.//*[...])[1]` counts over the whole result and may change; `.//*[...][1]` counts among siblings and may not.
    if POSITION.search(re.sub(r"\)\s*\[1\]", ")", path)):
        return expression
    return etree.XPath(SLOW_STEP.sub("descendant::*[", path), namespaces={"re": xpaths.REGEXP_NS})


_USED = (baseline, core, htmlprocessing, main_extractor)  # they bind the lists by name, so the lists must change in place
