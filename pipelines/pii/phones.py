"""Find telephone numbers in running text, in the digits, separators and brackets of any script.

Each run of digits and separators is first translated to ASCII. A number in it is recognised by an international prefix,
by a national format that dates, prices and serial numbers do not have, or by what precedes it: a word that announces a
number ("Tel."), or another number of a list.
"""

import re
from collections.abc import Iterator

from pipelines.pii.latin import LATIN

PLACEHOLDER = "+1 555-555-0100"
MIN_DIGITS, MAX_DIGITS = 7, 15  # ITU-T E.164: at most 15
MAX_NATIONAL_DIGITS = 13
MIN_DIGITS_00 = 10  # fewest digits of a number with the prefix 00; 0055/2005 is not a number in Brazil

# The zero of every script in the Basic Multilingual Plane; the script's other nine digits follow it.
ZEROS = "0٠۰߀०০੦૦୦௦౦೦൦෦๐໐༠၀႐០᠐᥆᧐᪀᪐᭐᮰᱀᱐꘠꣐꤀꧐꧰꩐꯰０"
_SPACES, _DASHES = "\u00a0\u2002-\u200a\u202f\u3000", "\u2010-\u2015\u2212\uff0d"
_DIGITS = "".join(f"{zero}-{chr(ord(zero) + 9)}" for zero in ZEROS)
# Every number is inside such a run, so only runs are examined further. The ranges are explicit because `re` looks them
# up in a table, which is faster than testing whether each character is a digit.
RUN = re.compile(rf"[+＋(（{_DIGITS}][+＋()（）./．／ \-{_SPACES}{_DASHES}{_DIGITS}]{{{MIN_DIGITS - 1},}}+")
# Each character maps to one character, so that offsets stay valid.
ASCII = {ord(zero) + value: str(value) for zero in ZEROS for value in range(10)}
ASCII |= {ord(wide): chr(ord(wide) - 0xFEE0) for wide in "（）＋．／－"}
ASCII |= dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")
ASCII |= dict.fromkeys((0xA0, *range(0x2002, 0x200B), 0x202F, 0x3000), " ")

GLUES = re.compile(rf"[{LATIN}_]")
WORD = re.compile(r"(?:\A|\s)[^\W\d_]{2,24}\Z")
WORD_CHARS = 26
_OTHER = r"\d\d?[./]\d\d?[./]\d\d|(?:19|20)\d\d(?!\d)|0\d\d"  # a date, a year or a further number
# The separator that may follow an area code.
_WIDE = rf"(?:[ ./-]|(?:[ ][/-][ ]?|[/-][ ]|[ ][ ])(?!{_OTHER}))"
_EXTENSION = r"(?:(?:-|[ ]-[ ]?|-[ ]|/)(?!(?:19|20)\d\d(?!\d))\d{1,4}+(?!/))?"
_WORLD_REST = (
    rf"(?:{_WIDE}?\(\d{{1,5}}\)[.]?)?+(?:(?<=[).]){_WIDE}?\d++)?+(?:{_WIDE}\d{{1,5}}+(?!\d)){{0,3}}"
    rf"(?:{_WIDE}\d++)?(?:[ ./-]\d++){{0,8}}{_EXTENSION}"
)
_END = r"(?![\dx,:]|[.-]\d)"
# The searched text is a run between one character from `_before` and one from `_after`. Every repetition is possessive
# or bounded, which keeps the search linear.
PHONE = re.compile(
    rf"""(?P<world>(?:\((?<![\d+x]\()[+][ ]?[1-9]\d{{0,2}}(?:[ -]\d{{1,4}})?\)            # (+48) 22 123 45 67
        | [+](?<![\d+xpw][+])[ ]?0?[1-9]\d*+ | [+](?<=[pw][+])(?=(?:[ ().-]{{0,3}}\d){{10}})[1-9]\d*+
        | 0(?<![\d+xpw./-]0)0[1-9]\d{{0,3}}(?=[ ./(-])) {_WORLD_REST}           # +49 (0)30 / 123 45-67, 0049 30 1234567
        (?: {_END} | (?<=\d\d\d)(?=x) ) )
      | (?P<national>\d(?<![\d+xpw./-].)(?:
        (?<=0)(?:[ ]?[1-9]\d?(?:[ ]\d\d)?(?=[ ]?/) | [ ]?\(\d{{2,5}}\)(?=[ /-])
            | [1-9](?![ ]\d[ ])\d{{0,4}}+)                                             # 030/1234-0, 0 61 51 / 12 34 56
            (?:[ /-]|[ ][/-][ ]?|[/-][ ]|(?<=0\d\d)[.](?=\d{{4}})|(?<=0\d\d\d)[.](?=\d{{4}}))
            \d{{1,9}}+(?:[ -]\d{{1,4}}+(?!\d)){{0,5}}{_EXTENSION}
      | (?<=8)(?:[ ]?\(\d{{3,5}}\)[ ]?|[ -]\d{{3}}[ -])\d{{2,3}}(?P<ru>[ -]?)\d\d(?P=ru)\d\d # 8 (495) 123-45-67
      | (?<=1)(?P<us>[.-])\d{{3}}(?P=us)\d{{3}}(?P=us)\d{{4}}(?!-x)                          # 1-800-555-0199
      | (?<=1)[ ]?\(\d{{3}}\)[ -]?\d{{3}}[ .-]\d{{4}}(?:-\d{{1,2}})?(?!-x)                    # 1 (876) 555-0123-4
      | \d\d(?:(?P<sep>[-.])\d{{3}}(?P=sep)|[/ ]\d{{3}}-)\d{{4}}(?:-\d{{1,2}})?(?!-x)        # 555-123-4567
      | (?<=0)[1-9](?:(?:\.\d\d){{4}}|\d{{1,2}}\.\d{{3}}\.\d{{3,4}})                # 06.12.34.56.78, 0984.555.123
      ) {_END} )
      | (?P<glued>0(?<=w0)[1-9]\d{{1,3}}(?:[ ]\d{{2,4}}){{2,4}} {_END})                       # Call0800 123 45 67
      | (?P<bracket>\((?<![\d+./-]\()(?:
        \d{{3}}\)[ ]?-?\d{{3}}[ .-]\d{{4}}(?:-\d{{1,2}})?(?!-x)                                # (555) 123-4567
      | (?:0\d{{1,4}}|0\d?[ ]\d\d(?:[ ]\d\d)?)\)[ ]?[/-]?[ ]?\d{{1,9}}+
            (?:[ -]\d{{1,5}}+){{0,4}}{_EXTENSION}                                                  # (0 30) 12 34-0
      | (?<!\d[ ]\()\d{{2,5}}\)[ .\-/]?(?:\d{{3}}(?P<at>[ -])\d\d(?P=at)\d\d
            | (?:9[ ])?\d{{3,5}}(?:[ .\-/]?\d{{2,5}})?)                                      # (11) 98765-4321
      ) {_END} )""",
    re.VERBOSE,
)
# Any format, for numbers that are announced.
ANNOUNCED = re.compile(
    rf"(?:\d{{8,12}}|\(?(?<![xpw]\()\d{{1,12}}+\)?(?:{_WIDE}?\(\d{{1,5}}\))?+(?:{_WIDE}\d{{1,12}}+)?"
    rf"(?:[ .-]\d{{1,5}}+){{0,5}}){_EXTENSION}{_END}"
)
LISTED = re.compile(rf"[ /]{{0,3}}(\d{{8,11}}){_END}")  # follows a number in the same run

ANNOUNCING = re.compile(
    r"""(?:(?:\b(?:
          t[eé]l(?:[eé](?:f[oó]n|ph?on|fax|phone)\w{0,8}|f|s)? | tlf|tlph|tfn | (?:tele)?phones?
        | (?:tele)?(?:fax|faks)(?:nummer|nr|as|e)?
        | (?:mobil|handy|cell|cel|m[oó]vil|mob)(?:e|telefon|phone|nummer|nr|ular|ulares|\sphone)? | celulare?s?
        | fon[eo]? | (?:ph|gsm|info)(?=[.:])
        | (?:hot|help|info)line|rufnummer|switchboard|whats?app|viber|sms|puh(?:elin)?|v[aä]xel|numero\sverde
        | telepon|điện\sthoại|sđt|đt
        | s[ií]m(?:i|a|ar)|tālr(?:u\w{1,4})?|тел(?:ефон\w{0,3})?|факс|моб(?:ильный)?
        | τηλ(?:[eέ]φωνο)?|φαξ|טלפון|טל|נייד|פקס
        | هاتف|تلفن|تليفون|فاكس|جوال|موبایل|फ़?ोन|मोबाइल
        ) | 电话|電話|手机|手機|热线|熱線|传真|傳真|携帯|来电|โทร(?:ศัพท์|สาร)?|แฟกซ์|전화|휴대폰|팩스|연락처)
      [.:]?[\s-]?(?:(?:nr|no|num(?:ber|mer|ero)|n[uú]mero|n[°º]|番号|号码|號碼|번호)[.:]?)?(?:\s?\([^()\n]{1,40}\))?
      | \b(?:call|ring|dial|phone|contact|text|reach)(?:\s(?:us|me|him|her|them))?(?:\s(?:now|today|directly))?
      | \b(?:call|ring|phone|telephone|contact|text|reach)(?:ing|ed)?\b[^.;:\n\d]{0,56}\s(?=(?:at|on)\b)
      | \b(?:llam|appel|chiam|zavol|dzwo|звон)\w{1,7}|vol[ae]jte|ligue
      )(?:\s?\b(?:at|on|under|unter|is|al|au|em|sur|na|на|på|pod))?[\s:：.\-–/|=]{0,5}\Z""",
    re.VERBOSE | re.IGNORECASE,
)
ANNOUNCING_CHARS = 80
BETWEEN_LISTED = re.compile(r"\s{0,2}(?:[,;/|、]|\b(?:or|and|und|oder|ou|et|o|y|e|или|и)\b)?\s{0,2}")
BETWEEN_CHARS = 9
# Digits after one of these identify a thing or an account.
NUMBERING = re.compile(
    r"(?:\b(?:isbn|issn|ean|iban|blz|kto|konto|account|sku|ssn|cas|art|artikel|article|order|invoice|ref|serial|part)"
    r"(?:[ .-]{0,2}(?:nr|no))?|[#№])[.:]?\s{0,2}\Z",
    re.IGNORECASE,
)
NUMBERING_CHARS = 20
ACCOUNT = re.compile(r"(?:\d{4}|[xpw]\d{1,4}) \Z")  # a group of four, or one that begins with letters

# Signed numbers with grouped thousands: +1 000 000, and +12 345 678, too short for a two-digit country code.
THOUSANDS = re.compile(r"\+\d{1,3}(?:([ .])\d{3}(?:\1\d{3})*)")
YEAR = re.compile(r"(?:19|20)\d\d")
TIMES = re.compile(r"\d\d?\.\d\d ?- ?\d\d?\.\d\d")
# An ISSN, a Japanese postal code, a US social security number, a byte dump, a file number, a star catalogue number.
OTHERS = re.compile(r"\d{4}-\d{4}|0\d\d-\d{4}|\d{3}-\d\d-\d{4}|\d\d(?: \d\d){5,}|0\d{4}[/-]\d{4}|0\d{3}-\d{3}")
LAST_GROUP = re.compile(r"(?<!\D)\D++\d++$")


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of every telephone number except placeholders, in order."""
    last = -BETWEEN_CHARS
    for run in RUN.finditer(text):
        start = run.start()
        plain = _before(text, start) + run[0].translate(ASCII) + _after(text, run.end())
        listed = start - last < BETWEEN_CHARS and bool(BETWEEN_LISTED.fullmatch(text, last, start))
        for first, end in _numbers(plain, text[max(0, start - ANNOUNCING_CHARS) : start], listed):
            last = start + end - 1
            yield start + first - 1, last


def phone(found: str, most: int = MAX_DIGITS) -> str:
    """The leading part of a match in ASCII that is a telephone number of at most `most` digits, or "".

    The result is "" if that part has too few digits or reads as a date, a year in brackets, a time range, or a signed
    number with grouped thousands.
    """
    while sum(map(str.isdigit, found)) > most:
        cut = LAST_GROUP.search(found)
        if cut is None:
            return ""
        found = found[: cut.start()]
    groups = re.findall(r"\d+", found)
    years = [group for group in groups if YEAR.fullmatch(group)]
    dated = years and (
        found.startswith("(" + years[0]) or all(len(group) <= 2 for group in groups if group not in years)
    )
    digits = sum(map(len, groups))
    counted = THOUSANDS.fullmatch(found) and (digits < 9 or groups[-1] == "000")
    return "" if dated or counted or TIMES.fullmatch(found) or digits < MIN_DIGITS else found


def _numbers(plain: str, before: str, listed: bool) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the numbers in a run that is enclosed by one character from `_before` and `_after` each."""
    at = 1
    if plain[0] != "x" and not PHONE.match(plain, 1) and (match := ANNOUNCED.match(plain, 1)):
        number = phone(match[0], MAX_NATIONAL_DIGITS)
        if number and (listed or ANNOUNCING.search(before)):
            at = 1 + len(number)
            yield 1, at
    end = at if at > 1 else 0  # end of the previous number, 0 if there is none
    while match := PHONE.search(plain, at):
        start = match.start()
        number = _judge(match, before if start == 1 else "", bool(end) and plain[end:start].strip(" /") == "")
        at = start + len(number) if number else match.end()
        end = at if number else 0  # a rejected match breaks a list of numbers
        if number:
            yield start, at
            while follower := LISTED.match(plain, at):
                at = end = follower.end()
                yield follower.start(1), at


def _judge(match: re.Match[str], before: str, listed: bool) -> str:
    """The leading part of a match that is a telephone number, judged by its shape and the text before it, or ""."""
    if match[0].startswith(PLACEHOLDER):
        return ""
    if match.lastgroup == "world" and match[0][0] != "0":
        return phone(match[0])
    start = match.start()
    if NUMBERING.search(before[-NUMBERING_CHARS:]) or (
        not listed and ACCOUNT.search(match.string, max(0, start - 6), start) and match.lastgroup != "bracket"
    ):
        return ""
    number = phone(match[0], MAX_DIGITS if match.lastgroup == "world" else MAX_NATIONAL_DIGITS)
    if match.lastgroup == "world" and sum(map(str.isdigit, number)) < MIN_DIGITS_00:
        return ""
    return number if not OTHERS.fullmatch(number) or ANNOUNCING.search(before) else ""


def _before(text: str, start: int) -> str:
    """A character for the text before a run. PHONE's look-behinds test it to reject numbers at the run's start.

    `x`: a digit or a plus sign; `w`: a word written together with its number; `p`: other text that makes a number
    unlikely, so that only long international and bracketed ones are accepted; a space: no objection.
    """
    one = text[start - 1 : start]
    if one in ("+", "＋") or one.isdecimal():
        return "x"
    if GLUES.match(one):
        return "w" if WORD.search(text, max(0, start - WORD_CHARS), start) else "p"
    if not one or one not in ".,/:-":
        return " "
    free = one in ",:" and not text[start - 2 : start - 1].isdecimal()
    return " " if free or ANNOUNCING.search(text[max(0, start - ANNOUNCING_CHARS) : start]) else "p"


def _after(text: str, end: int) -> str:
    """A character for the text after a run.

    `x`: a word continues; a comma or a colon: digits follow after it; a space: anything else.
    """
    one, two = text[end : end + 1], text[end + 1 : end + 2]
    if GLUES.match(one):
        return "x"
    goes_on = (one == "," and two.isdecimal()) or (one == ":" and two in "0123456789abcdefABCDEF" and two)
    return one if goes_on else " "
