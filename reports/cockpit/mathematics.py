r"""Text with formulas in TeX, as HTML: `$x^2$`, `\(x^2\)`, `$$x^2$$` and `\[x^2\]` become MathML.

Formulas come from models and the web. So of what the converter makes only the elements and attributes named here are
kept, and their text is escaped; a formula that is too long, or that cannot be read, stays as it was written.
"""

import re
from collections.abc import Iterator
from html import unescape
from xml.etree.ElementTree import Element

from markupsafe import Markup, escape

FORMULA_CHARS = 1_000  # the longest formula
TEXT_CHARS = 4_000  # of all formulas of one text: 2,000 take a tenth of a second
LEAST_CHARS = 20  # what a formula counts for at least
DEEPEST = 60  # elements within each other
OPENING = re.compile(r"\$\$|\$|\\\(|\\\[")
CLOSING = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
BLOCK = ("$$", r"\[")
ELEMENTS = frozenset({
    "math", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded", "mphantom", "mprescripts", "mroot", "mrow",
    "mspace", "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover",
    "none",
})  # fmt: skip
ATTRIBUTES = {
    name: re.compile(values)
    for name, values in {
        "accent": "true|false", "columnalign": "[a-z ]{1,100}", "display": "block|inline", "displaystyle": "true|false",
        "fence": "true|false", "form": "prefix|infix|postfix", "linethickness": r"[0-2](\.[0-9]{1,4})?(pt|em|px)?",
        "mathvariant": "[a-z-]{1,30}", "maxsize": r"[0-9](\.[0-9]{1,4})?(em)?", "minsize": r"[0-9](\.[0-9]{1,4})?(em)?",
        "movablelimits": "true|false", "scriptlevel": "[+-]?[0-9]", "separator": "true|false", "stretchy": "true|false",
        "width": r"[0-2](\.[0-9]{1,4})?em",
    }.items()
}  # fmt: skip


def with_formulas(text: str) -> Markup:
    """A text as HTML, everything escaped but its formulas."""
    return Markup("").join(_parts(text))


def _parts(text: str) -> Iterator[str | Markup]:
    done = at = 0
    room = TEXT_CHARS
    while mark := OPENING.search(text, at):
        start, at = mark.end(), mark.end()
        end = text.find(closing := CLOSING[mark[0]], start, start + min(room, FORMULA_CHARS) + len(closing))
        if end < 0 or not _is_formula(text, mark[0], start, end):
            continue
        room -= max(end - start, LEAST_CHARS)
        at = end + len(closing)
        if formula := mathml(text[start:end], block=mark[0] in BLOCK):
            yield text[done : mark.start()]
            yield formula
            done = at
    yield text[done:]


def _is_formula(text: str, opening: str, start: int, end: int) -> bool:
    """Whether a formula stands between two marks.

    Between dollars, as Pandoc has it: no blank beside them on the inside, no digit behind, so `$5 and $10` are amounts.
    """
    formula = text[start:end]
    if not formula.strip() or "\n\n" in formula:
        return False
    return opening != "$" or not (formula[0].isspace() or formula[-1].isspace() or text[end + 1 : end + 2].isdigit())


def mathml(formula: str, block: bool) -> Markup | None:
    """A formula in TeX as MathML; None if it cannot be read."""
    from latex2mathml.converter import convert_to_element  # slow to import, and most texts hold no formula

    try:
        made = convert_to_element(formula, display="block" if block else "inline")
        return Markup("").join(_rendered(made))
    except Exception:  # the converter raises errors of many kinds, and so does one nested too deeply
        return None


def _rendered(element: Element, depth: int = 0) -> Iterator[Markup]:
    """An element, piece by piece. Raises ValueError if it is none of those that are kept, or nested too deeply."""
    if element.tag not in ELEMENTS or depth > DEEPEST:
        raise ValueError(f"{element.tag}, {depth} elements deep, is not kept")
    yield Markup("<{}").format(element.tag)
    for name, value in element.attrib.items():
        if name in ATTRIBUTES and ATTRIBUTES[name].fullmatch(value):
            yield Markup(' {}="{}"').format(name, value)
    yield Markup(">{}").format(unescape(element.text or ""))
    for inner in element:
        yield from _rendered(inner, depth + 1)
        yield escape(unescape(inner.tail or ""))
    yield Markup("</{}>").format(element.tag)
