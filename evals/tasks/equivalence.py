r"""Whether two mathematical expressions, in LaTeX or plain, say the same: `\frac{1}{2}` and `0.5`, `2x+2`, `2(x+1)`.

Both are made alike as text (Hendrycks et al. 2021; Lewkowycz et al. 2022, appendix D.1) and compared. Where they
differ, both are computed at fixed values of their letters by a small parser of our own, and are the same if all values
agree, exactly while they are rational: no output of a model is ever evaluated as code, and an expression of any kind
takes time linear in its at most MOST_CHARS characters. What the parser does not know, for example a matrix, is compared
as text alone, and so is text: what stands in `\text{}`, three letters in a row, and two with an `o`, as in `no`.
"""

import cmath
import math
import random
import re
from fractions import Fraction
from functools import cache

from evals.tasks import rounding
from evals.tasks.rounding import Rounded, Value, irrational, negative, over, plus, raised, times

MOST_CHARS = 500
MOST_DEPTH = 30
POINTS = 3  # at each every letter has a value of its own: one between 0 and 1, one below -1, one above 1
MARK = "\x02"  # before what was text, which the parser refuses

REMOVED = re.compile(
    r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle|,|!|;|:|quad|qquad|\\| )(?![a-zA-Z])"
    r"|\\(?:left|right)(?=[|(\[{.\\])|~|\$"
)
NAMED = re.compile(r"\\(?:mathbf|mathrm|operatorname|mathit)\s?\{([^{}]*)\}")
TEXT = re.compile(r"\\(?:text|textbf|mbox|textrm|textit)\s?\{([^{}]*)\}")
UNIT = re.compile(r"(?<=[0-9})])\s?\\(?:text|mathrm|mbox|textrm)\s?\{[^{}]*\}(?:\^\{?[23]\}?)?\Z")
WORDS = re.compile(r"(?<=[0-9})%]) ?(?:[a-z]{2,20}\.?(?: |\Z)){1,4}(?:\^\{?[23]\}?)?\Z")
DEGREES = re.compile(r"\^\{?\\circ\}?|\\degree|°")
ASSIGNED = re.compile(r"\s?[a-zA-Z](?:_\{?\w{1,3}\}?|\([a-z]\))?\s?(?:=|\\in(?![a-z]))")
NUMBER = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.[0-9]*)?\Z")
TOKEN = re.compile(
    r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+|\\[a-zA-Z]+|\\[{}|%]|[a-zA-Z]{3,}|[a-zA-Z]?[oO][a-zA-Z]?|[a-zA-Z]|\*\*|\S"
)
LETTERS_OF_TEXT = re.compile(r"[a-zA-Z]+")
SHORT_FRACTION = re.compile(r"\\frac\s?([0-9a-z])\s?([0-9a-z])")
FUNCTIONS = {
    "\\sin": cmath.sin, "\\cos": cmath.cos, "\\tan": cmath.tan, "\\ln": cmath.log, "\\log": cmath.log10,
    "\\exp": cmath.exp, "\\arcsin": cmath.asin, "\\arccos": cmath.acos, "\\arctan": cmath.atan,
}  # fmt: skip
PLAIN_WORDS = {
    "sqrt": "\\sqrt",
    "pi": "\\pi",
    "sin": "\\sin",
    "cos": "\\cos",
    "tan": "\\tan",
    "ln": "\\ln",
    "log": "\\log",
}
PLAIN_WORD = re.compile(r"(?<![\\a-zA-Z])(sqrt|pi|sin|cos|tan|ln|log)(?![a-zA-Z])")
CHOICE = re.compile(r"\(([A-Z])\)\Z")
PAIRS = {"(": ")", "[": "]", "\\{": "\\}"}


def equivalent(found: str, right: str) -> bool:
    """Whether an answer says what the right one says. False for what is longer than MOST_CHARS."""
    if max(len(found), len(right)) > MOST_CHARS:
        return False
    one, other = _marked(found), _marked(right)
    if _bare(one) == _bare(other):
        return True
    if not _bare(one) or not _bare(other):
        return False
    if NUMBER.match(one) and NUMBER.match(other) and one.strip("-.") and other.strip("-."):
        return _rational(one) == _rational(other)
    return _same_values(one, other)


def alike(text: str) -> str:
    """The expression as it is compared as text: no spaces, units, degrees or signs of currency; `x = 5` is 5."""
    return _bare(_marked(text))


def _bare(text: str) -> str:
    return text.replace(MARK, "")


def _marked(text: str) -> str:
    """The expression as `alike` has it, with a mark before every word that was text."""
    text = text.strip().rstrip(".").replace("\\$", "").replace("\\%", "").replace("%", "")
    text = text.replace("−", "-").replace("π", "\\pi").replace("∞", "\\infty").replace("√", "\\sqrt")
    text = text.replace("{,}", ",").replace("\\!", "")
    for long, short in (
        ("\\leq", "\\le"),
        ("\\geq", "\\ge"),
        ("dfrac", "frac"),
        ("tfrac", "frac"),
        ("cfrac", "frac"),
        ("\\cdot", "*"),
        ("\\times", "*"),
    ):
        text = text.replace(long, short)
    text = REMOVED.sub("", text)
    text = DEGREES.sub("", text).strip()
    if unit := UNIT.search(text):
        text = text[: unit.start()]
    if match := ASSIGNED.match(text):
        text = text[match.end() :]
    if unit := WORDS.search(text):
        text = text[: unit.start()]
    text = TEXT.sub(lambda match: LETTERS_OF_TEXT.sub(rf"{MARK}\g<0>", match[1]), text)
    text = NAMED.sub(r"\1", text).strip()
    text = PLAIN_WORD.sub(lambda match: PLAIN_WORDS[match[1]], text)
    text = SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = re.sub(r"([_^])\{(\w)\}", r"\1\2", "".join(text.split()))
    if match := CHOICE.match(_bare(text)):
        return match[1]
    return text if "\\" in text or len(_bare(text)) == 1 else text.casefold()


def _rational(text: str) -> Fraction:
    return Fraction(text.replace(",", "").rstrip(".") or "0")


def _same_values(one: str, other: str) -> bool:
    """Whether two expressions, tuples, sets or lists have the same values at every point."""
    (ends, mine), (other_ends, theirs) = _members(one), _members(other)
    if len(mine) != len(theirs) or (ends != other_ends and len(mine) > 1):
        return False
    ordered = ends in ("()", "[]", "[)", "(]")
    left = [*theirs]
    for at, member in enumerate(mine):
        matching = [at] if ordered else range(len(left))
        hit = next((place for place in matching if left[place] is not None and _same(member, left[place])), None)
        if hit is None:
            return False
        left[hit] = ""  # an empty expression equals nothing
    return True


def _same(one: str, other: str) -> bool:
    if not other:
        return False
    if _bare(one) == _bare(other):
        return True
    try:
        sides = [_differences(text) for text in (one, other)]
        if len(sides[0]) != len(sides[1]):
            return False
        mine, theirs = (_at_points(side) for side in sides)
        if all(map(rounding.close, mine, theirs)):
            return True
        return len(sides[0]) == 2 and all(map(rounding.close, mine, map(negative, theirs)))  # x = y and y = x
    except (ValueError, ArithmeticError, RecursionError):
        return False


def _differences(text: str) -> list[str]:
    sides = text.split("=")
    if len(sides) > 2:
        raise ValueError("more than one equation")
    return sides


def _at_points(sides: list[str]) -> list[Value]:
    values = []
    for point in range(POINTS):
        each = [_Parser(side, point).value() for side in sides]
        values.append(plus(each[0], negative(each[1])) if len(each) == 2 else each[0])
    return values


@cache
def letter_value(letter: str, point: int) -> Fraction:
    """What a letter stands for at a point, always the same; letters are in no relation that could hold by chance."""
    share = Fraction(random.Random(f"{letter} {point}").randrange(1, 9973), 9973)  # noqa: S311 (no secret)
    return (share, -1 - share, 1 + share)[point]


def _members(text: str) -> tuple[str, list[str]]:
    """(The brackets around, the members between commas) of a tuple, interval, set or list; one member if it is none."""
    if NUMBER.match(text):
        return "", [text.replace(",", "")]
    if "\\pm" in text and text.count("\\pm") == 1:
        return "", [text.replace("\\pm", "+"), text.replace("\\pm", "-")]
    opening = next((one for one in PAIRS if text.startswith(one)), "")
    closing = next((one for one in PAIRS.values() if text.endswith(one)), "")
    inner = text[len(opening) : len(text) - len(closing)] if opening and closing else text
    members = _split(inner)
    if members is None or len(members) < 2:
        whole = _split(text)
        return "", whole or [text]
    ends = f"{opening}{closing}" if opening and closing else ""
    return ("" if "{" in ends else ends), members


def _split(text: str) -> list[str] | None:
    """The parts between commas outside of brackets; None if the brackets do not match."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return None
        if character == "," and not depth:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]] if not depth else None


class _Parser:
    """Computes an expression while it reads it. `point` says which value each letter has."""

    def __init__(self, text: str, point: int) -> None:
        self._words = TOKEN.findall(text)
        self._at, self._depth, self._point = 0, 0, point

    def value(self) -> Value:
        """The value of the whole expression. Raises ValueError or ArithmeticError if it has none or is not known."""
        value = self._sum()
        if self._at < len(self._words):
            raise ValueError("not an expression")
        return value

    def _next(self) -> str:
        return self._words[self._at] if self._at < len(self._words) else ""

    def _take(self, expected: str | None = None) -> str:
        word = self._next()
        if not word or (expected is not None and word != expected):
            raise ValueError(f"{expected or 'something'} is missing")
        self._at += 1
        return word

    def _sum(self) -> Value:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise ValueError("nested too deeply")
        value = self._product()
        while self._next() in ("+", "-"):
            added = self._take() == "+"
            term = self._product()
            value = plus(value, term if added else negative(term))
        self._depth -= 1
        return value

    def _product(self) -> Value:
        value = self._signed()
        while word := self._next():
            if word in ("*", "/", "\\div"):
                self._take()
                factor = self._signed()
                value = times(value, factor) if word == "*" else over(value, factor)
            elif word[0].isalnum() or word in ("(", "[", "{", "\\frac", "\\sqrt", "\\pi", *FUNCTIONS):
                value = times(value, self._power())
            else:
                break
        return value

    def _signed(self) -> Value:
        below = False
        while self._next() in ("-", "+"):
            below ^= self._take() == "-"
        value = self._power()
        return negative(value) if below else value

    def _power(self) -> Value:
        value = self._atom()
        while self._next() == "!":
            self._take()
            value = rounding.factorial(value)
        if self._next() in ("^", "**"):
            self._take()
            self._depth += 1
            if self._depth > MOST_DEPTH:
                raise ValueError("nested too deeply")
            below = self._next() == "-"
            if below:
                self._take()
            exponent = self._power()
            self._depth -= 1
            value = raised(value, negative(exponent) if below else exponent)
        return value

    def _atom(self) -> Value:
        word = self._take()
        if word[0].isdigit() or (word[0] == "." and len(word) > 1):
            return self._mixed(word)
        if word in ("(", "[", "{"):
            value = self._sum()
            self._take({"(": ")", "[": "]", "{": "}"}[word])
            return value
        if word == "|":
            value = self._sum()
            self._take("|")
            return rounding.absolute(value)
        if word == "\\frac":
            above, below = self._group(), self._group()
            return over(above, below)
        if word == "\\sqrt":
            return self._root()
        if word == "\\pi":
            return irrational(math.pi)
        if word in FUNCTIONS:
            return self._function(word)
        if len(word) == 1 and word.isalpha() and word.isascii():
            return self._letter(word)
        raise ValueError(f"{word} is not known")

    def _mixed(self, word: str) -> Value:
        """A number; an integer before a fraction of integers is added to it, as in `1\\frac{1}{2}`."""
        value: Value = Fraction(word.rstrip("."))
        ahead = self._words[self._at : self._at + 7]
        if word.isdigit() and len(ahead) == 7 and ahead[0] == "\\frac" and ahead[2].isdigit() and ahead[5].isdigit():
            value = plus(value, self._atom())
        return value

    def _group(self) -> Value:
        if self._next() != "{":
            return self._atom()
        self._take()
        value = self._sum()
        self._take("}")
        return value

    def _root(self) -> Value:
        degree: Value = Fraction(2)
        if self._next() == "[":
            self._take()
            degree = self._sum()
            self._take("]")
        return raised(self._group(), over(Fraction(1), degree))

    def _function(self, name: str) -> Value:
        """A function of what stands in brackets or directly behind it; `\\sin^2 x` is the square of the sine."""
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise ValueError("nested too deeply")
        exponent: Value = Fraction(1)
        if self._next() == "^":
            self._take()
            exponent = self._group()
        value = rounding.applied(FUNCTIONS[name], self._atom() if self._next() in ("(", "{") else self._power())
        self._depth -= 1
        return raised(value, exponent) if exponent != 1 else value

    def _letter(self, word: str) -> Value:
        if word == "e":
            return irrational(math.e)
        if word == "i":
            return Rounded(1j, 0.0)
        return letter_value(word, self._point)
