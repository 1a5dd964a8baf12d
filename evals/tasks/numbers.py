"""Numbers in text, as people and models write them: digits, separators, fractions, English words, Chinese numerals.

All functions take time linear in the text. A number is an exact Fraction of at most MOST_DIGITS digits.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

MOST_DIGITS = 60
MOST_EXPONENT = 60
MOST_BASE = 1000  # of a power that is computed, as 10^6

PLAIN = str.maketrans(
    "０１２３４５６７８９．％－−–＋／：＝（）",
    "0123456789.%---+/:=()",
) | {ord("½"): " 1/2", ord("¼"): " 1/4", ord("¾"): " 3/4", ord("⅓"): " 1/3", ord("⅔"): " 2/3"}  # fmt: skip
SPACES = "\u00a0\u2009\u202f"
GROUP = rf"[ {SPACES}][0-9]{{3}}(?![0-9]|[.,][0-9]{{3}})"
RUN = re.compile(rf"[0-9][0-9.,]*(?:{GROUP})*(?:(?<= [0-9]{{3}})[.,][0-9]{{1,2}}(?![0-9.,]))?|\.[0-9]+")
LATEX_COMMA = re.compile(r"\{,\}|\\[,!](?=[0-9]{3})|(?<=[0-9])，(?=[0-9]{3})|(?<=[0-9])'(?=[0-9]{3})")
LATEX_FRACTION = re.compile(r"\\[dt]?frac ?\{ ?([0-9]{1,30}) ?\} ?\{ ?([0-9]{1,30}) ?\}")
EXPONENT = re.compile(
    r"[eE]([+-]?[0-9]{1,4})(?![0-9A-Za-z])| ?(?:\\times|×|\*|x) ?10(?:\^|\*\*)\{?([+-]?[0-9]{1,4})\}?"
)
POWER = re.compile(r"\^\{?([0-9]{1,2})(?![0-9])\}?")
FRACTION = re.compile(r" ?/ ?([0-9]{1,30})(?![0-9./]|,[0-9])")
MIXED = re.compile(r"(?: | and )([0-9]{1,30})/([0-9]{1,30})(?![0-9./])")
SCALE = re.compile(
    r"[ -]?(hundred|thousand|million|billion|trillion|dozen|万亿|百万|千万|亿|万|千|百|k|K|M|bn)(?![A-Za-z])"
)
SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12, "百": 100,
    "千": 1000, "万": 10**4, "百万": 10**6, "千万": 10**7, "亿": 10**8, "万亿": 10**12, "k": 10**3, "K": 10**3,
    "M": 10**6, "bn": 10**9,
}  # fmt: skip
NEGATIVE = re.compile(r"(?:minus|negative|负) ?[$€£¥￥]?\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Number:
    """A number and the characters of the text, after `plain`, that spell it."""

    value: Fraction
    start: int
    end: int


def plain(text: str) -> str:
    """The text with full-width digits, typographic minus signs, LaTeX's commas and fractions as ASCII writes them."""
    text = LATEX_COMMA.sub(",", text.translate(PLAIN)).replace("\\$", "$").replace("\\%", "%")
    return LATEX_FRACTION.sub(r" \1/\2", text)


def written(value: Fraction) -> str:
    """The number as it is recorded: an integer, a decimal that ends, or a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest > 1:
        return f"{value.numerator}/{value.denominator}"
    digits = value.denominator.bit_length()
    scaled = abs(value.numerator) * 10**digits // value.denominator
    whole, decimals = divmod(scaled, 10**digits)
    return f"{'-' if value < 0 else ''}{whole}.{decimals:0{digits}d}".rstrip("0")


def numbers(text: str) -> list[Number]:
    """The numbers of a text that are written with digits, in order. `text` has gone through `plain`."""
    found: list[Number] = []
    at = 0
    while match := RUN.search(text, at):
        end, value = _digits(match[0])
        at = match.start() + end
        if value is None:
            at = match.end()
            continue
        value, at = _followed(text, at, value)
        start = match.start()
        before = text[max(0, start - 12) : start]
        if _is_negative(before):
            value = -value
        found.append(Number(value, start, at))
    return found


def _is_negative(before: str) -> bool:
    """Whether a minus sign stands before, and is no hyphen, as in 3-5 and in COVID-19, and no operator, as in 9 - 5."""
    if NEGATIVE.search(before):
        return True
    near = before.rstrip("$€£¥￥")
    bare = near.removesuffix(" ")
    if not bare.endswith("-"):
        return False
    left = bare[:-1].removesuffix(" ")
    if not left:
        return True
    if bare != near:  # of 9 - 5 and of Answer - 5
        return left[-1] in "=(:[,<>*/+×≈"
    attached = left == bare[:-1]
    return not (left[-1].isdigit() or left[-1] in ")-%" or (attached and left[-1].isalnum()))


def _digits(run: str) -> tuple[int, Fraction | None]:
    """(How many characters of the run are one number, its value); None for what is none, as 1.2.3 and what is huge."""
    parts = re.split(rf"[ {SPACES}]", run)
    if len(parts) > 1 and parts[0].isdigit() and len(parts[0]) <= 3 and parts[0] != "0":
        whole = "".join(parts).replace(",", ".")
        return len(run), Fraction(whole) if len(whole) <= MOST_DIGITS else None
    first = parts[0]
    trimmed = first.rstrip(".,")
    return len(trimmed), _decimal(trimmed)


def _decimal(text: str) -> Fraction | None:
    """1,234.5 and 1.234,5 and 1,00,000 and 0,5 and .5; None for what has dots or commas elsewhere."""
    if len(text) > MOST_DIGITS:
        return None
    dots, commas = text.count("."), text.count(",")
    comma_last = text.rfind(",") > text.find(".") >= 0
    if commas and dots <= 1 and not comma_last and _grouped(text.partition(".")[0], ","):
        text = text.replace(",", "")
    elif commas == 1 and comma_last and _grouped(text.partition(",")[0], "."):
        text = text.replace(".", "").replace(",", ".")
    elif dots > 1 and not commas and _grouped(text, "."):
        text = text.replace(".", "")
    elif commas == 1 and not dots:  # a decimal comma; a list, as 1,2, is told from it nowhere
        text = text.replace(",", ".")
    elif dots > 1 or commas:
        return None
    whole, _, rest = text.partition(".")
    return Fraction(int(whole or "0")) + (Fraction(int(rest), 10 ** len(rest)) if rest else 0)


def _grouped(text: str, separator: str) -> bool:
    """Whether digits are in groups: the last has three, those between two or three, as in India, the first 1 to 3."""
    first, *others = text.split(separator)
    return bool(others) and 0 < len(first) <= 3 and len(others[-1]) == 3 and all(len(one) in (2, 3) for one in others)


def _followed(text: str, at: int, value: Fraction) -> tuple[Fraction, int]:
    """What the characters behind a run of digits make of it: a fraction, an exponent, a scale; and where they end."""
    if value.denominator == 1 and (match := MIXED.match(text, at)) and int(match[2]):
        part = Fraction(int(match[1]), int(match[2]))
        if part < 1:
            return value + part, match.end()
    if (match := FRACTION.match(text, at)) and int(match[1]):
        return value / int(match[1]), match.end()
    if (match := POWER.match(text, at)) and value.denominator == 1 and value <= MOST_BASE:
        value, at = value ** int(match[1]), match.end()
    if match := EXPONENT.match(text, at):
        power = int(match[1] or match[2])
        if abs(power) <= MOST_EXPONENT:
            value, at = value * Fraction(10) ** power, match.end()
    if match := SCALE.match(text, at):
        value, at = value * SCALES[match[1]], match.end()
        while match and match[1] in "万千亿" and (more := RUN.match(text, at)):
            end, small = _digits(more[0])
            behind = SCALE.match(text, at + end)
            small = None if small is None else small * (SCALES[behind[1]] if behind else 1)
            if small is None or small >= SCALES[match[1]]:  # 3万5千 is one number, 3万3万 two
                break
            value, at, match = value + small, behind.end() if behind else at + end, behind
    return value, at


ONES = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
TENS = {
    word: 10 * value
    for value, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
WORD = re.compile(r"[a-z]+")
PARTS = {"halves": Fraction(1, 2), "thirds": Fraction(1, 3), "quarters": Fraction(1, 4), "fourths": Fraction(1, 4)}
HALVES = {"half": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4)}


def worded(text: str) -> list[Number]:
    """The numbers of a text that are written as English words, in order: `one hundred and five`, `two and a half`."""
    found: list[Number] = []
    tokens = [(match[0], match.start(), match.end()) for match in WORD.finditer(text.lower())]
    at = 0
    while at < len(tokens):
        value, end = _phrase(tokens, at)
        if value is None:
            at += 1
            continue
        before = tokens[at - 1][0] if at else ""
        found.append(Number(-value if before in ("minus", "negative") else value, tokens[at][1], tokens[end - 1][2]))
        at = end
    return found


def _phrase(tokens: list[tuple[str, int, int]], at: int) -> tuple[Fraction | None, int]:
    """(The value of the number words from a token on, the first token behind them); None where there are none."""
    total, part, seen, words = Fraction(0), Fraction(0), False, [token[0] for token in tokens[at : at + 24]]
    here = 0
    while here < len(words):
        word, following = words[here], words[here + 1 : here + 3]
        if word in ONES or word in TENS:
            if seen and words[here - 1] in ONES and here:  # one two: two numbers
                break
            part += ONES.get(word, TENS.get(word, 0))
        elif word == "hundred" and (seen or here == 0):
            part = (part or Fraction(1)) * 100
        elif word == "dozen":
            part = (part or Fraction(1)) * 12
        elif word in LARGE and seen:
            total, part = total + (part or Fraction(1)) * LARGE[word], Fraction(0)
        elif word == "a" and following[:1] in (["hundred"], ["dozen"], ["thousand"], ["million"]):
            part = Fraction(1)
        elif word == "and" and seen and following[:1] and (following[0] in ONES or following[0] in TENS):
            if words[here - 1] not in ("hundred", *LARGE):
                break
        elif word == "and" and seen and following[:1] == ["a"] and following[1:] and following[1] in HALVES:
            return total + part + HALVES[following[1]], at + here + 3
        elif word in PARTS and seen:
            return (total + part) * PARTS[word], at + here + 1
        elif word == "half" and here == 0:
            return Fraction(1, 2), at + 1
        else:
            break
        seen, here = True, here + 1
    return (total + part, at + here) if seen else (None, at + 1)


CHINESE_DIGITS = {**{one: value for value, one in enumerate("零一二三四五六七八九")}, "〇": 0, "两": 2} | {
    one: value for value, one in enumerate("零壹贰叁肆伍陆柒捌玖")
}
CHINESE_UNITS = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000, "万": 10**4, "亿": 10**8}
CHINESE_RUN = re.compile("[零〇一二三四五六七八九两壹贰叁肆伍陆柒捌玖十拾百佰千仟万亿点分之负半]+")


def chinese(text: str) -> list[Number]:
    """The numbers of a text that are written with Chinese numerals, in order; no digit may be among them."""
    found = []
    for match in CHINESE_RUN.finditer(text.replace("个半", "点五")):
        value = chinese_value(match[0][:MOST_DIGITS])
        if value is not None:
            found.append(Number(value, match.start(), match.end()))
    return found


def chinese_value(run: str) -> Fraction | None:
    """三千五百, 二〇二四, 三点五, 四分之三, 百分之二十 (20, as 20 %), 负五; None for what is no number."""
    if run.startswith("负"):
        value = chinese_value(run[1:])
        return None if value is None else -value
    if run.startswith("百分之"):
        return chinese_value(run[3:])
    below, parted, above = run.partition("分之")
    if parted:
        lower, upper = _chinese_whole(below), _chinese_whole(above)
        return Fraction(upper, lower) if lower and upper is not None else None
    whole, dotted, decimals = run.partition("点")
    integer = _chinese_whole(whole)
    if integer is None:
        return None
    if dotted and decimals and all(one in CHINESE_DIGITS for one in decimals):
        digits = "".join(str(CHINESE_DIGITS[one]) for one in decimals)
        return integer + Fraction(int(digits), 10 ** len(digits))
    return None if dotted else Fraction(integer)


def _chinese_whole(run: str) -> int | None:
    if not run or any(one not in CHINESE_DIGITS and one not in CHINESE_UNITS for one in run):
        return None
    if all(one in CHINESE_DIGITS for one in run):
        return int("".join(str(CHINESE_DIGITS[one]) for one in run))
    total, part, digit, unit_before = 0, 0, 0, 10
    for one in run:
        if one in CHINESE_DIGITS:
            digit = CHINESE_DIGITS[one]
            unit_before = 10 if digit == 0 else unit_before
            continue
        unit = CHINESE_UNITS[one]
        if unit >= 10**4:
            total, part, digit = (total + part + digit) * unit if unit == 10**8 else total + (part + digit) * unit, 0, 0
        else:
            part, digit = part + (digit or 1) * unit, 0
        unit_before = unit
    return total + part + digit * (unit_before // 10 if run[-1] in CHINESE_DIGITS and unit_before > 10 else 1)


def every(text: str) -> Iterator[list[Number]]:
    """The numbers of a text by how they are written, the surest first: digits, Chinese numerals, English words."""
    yield numbers(text)
    yield chinese(text)
    yield worded(text)
