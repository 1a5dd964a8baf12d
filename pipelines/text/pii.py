"""Personal data in running text: e-mail addresses, public IP addresses and telephone numbers become placeholders.

The placeholders are reserved for documentation (RFC 2606, 5737, 3849) or for fiction (555-0100), so masking twice changes nothing.
Private, loopback and reserved IP addresses stay: they name nobody. Telephone numbers are matched conservatively, by an
international prefix or a national writing that dates, prices and serial numbers do not have.
"""

import ipaddress
import re
from collections.abc import Collection, Iterator

EMAIL_PLACEHOLDER = "email@example.com"
IPV4_PLACEHOLDER = "192.0.2.1"
IPV6_PLACEHOLDER = "2001:db8::1"
PHONE_PLACEHOLDER = "+1 555-555-0100"

# What glues an address to what stands before it: ASCII and accented Latin letters. Scripts that put no space there are not among them.
_W = r"0-9A-Za-z_\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
# RFC 5321's lengths keep the match linear: 64 characters before the @, 63 a label. Patterns start with the characters of their first
# place and look behind after it: the engine then skips to those. Possessive quantifiers (++, *+) leave nothing to try again.
EMAIL = re.compile(
    rf"[{_W}%+](?<![{_W}.%+-].)[{_W}.%+'-]{{0,63}}+@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?\.)+[A-Za-z]{{2,24}}\b",
    re.ASCII,
)
IPV4 = re.compile(rf"\d(?<![{_W}.].)(?<!::.)\d{{0,2}}+(?:\.\d{{1,3}}){{3}}(?!\w|\.\w)", re.ASCII)
IPV6 = re.compile(rf"[0-9A-Fa-f:](?<![{_W}:.-].)[0-9A-Fa-f]{{0,3}}:[0-9A-Fa-f:]{{1,35}}+(?![\w:]|\.\d)", re.ASCII)
# Four numbers after one of these are a version.
VERSION = re.compile(
    r"(?:\b(?:version|versione|versi[oó]n|vers[aã]o|wersja|версия|ver|v|release|build|firmware|rev)|版本|バージョン)[.:：]?\s{0,2}\Z",
    re.IGNORECASE,
)
VERSION_CHARS = 12
_GAP = r"[ .\-/\u00a0\u2011\u2013]"
# Every telephone number stands within one such run; only there is it worth looking closer.
PHONE_RUN = re.compile(r"[+(\d][\d ().\-/\u00a0\u2011\u2013]{5,}+", re.ASCII)
PHONE = re.compile(
    rf"""[+(\d](?<![{_W}+.,/:-].)(?:
        (?<=\+)[1-9]\d*+(?:{_GAP}?\(\d{{1,5}}\){_GAP}?)?+\d*+(?:{_GAP}\d++){{0,9}}           # +49 (0)30 123 45 67
      | (?<=0)0[1-9]\d{{0,2}}+(?:{_GAP}\d++){{1,9}}                                          # 0049 30 123 45 67
      | (?<=8)(?:[ ]?\(\d{{3,5}}\)[ ]?|[ -]\d{{3}}[ -])\d{{2,3}}(?P<ru>[ -])\d\d(?P=ru)\d\d   # 8 (495) 123-45-67
      | (?<=1)(?P<us>[.-])\d{{3}}(?P=us)\d{{3}}(?P=us)\d{{4}}                                # 1-800-555-0199
      | (?<=\()\d{{2,5}}\){_GAP}?\d{{3}}(?P<at>[ -])\d\d(?P=at)\d\d(?!\d)                    # (495) 123-45-67
      | (?<=\()\d{{2,5}}\){_GAP}?\d{{3,5}}(?:{_GAP}?\d{{2,5}})?                              # (555) 123-4567
      | (?<=\d)\d{{2}}(?P<sep>[-.])\d{{3}}(?P=sep)\d{{4}}                                    # 555-123-4567
      | (?<=0)[1-9](?:\.\d\d){{4}}                                                           # 06.12.34.56.78
      | (?<=0)[1-9]\d{{0,3}}+[ /-]\d{{2,8}}+(?:[ -]\d{{2,4}}+(?!\d)){{0,4}}+                 # 030/123456, 06 12 34 56 78
    )(?!\w|[.,-]\d|:[0-9A-Fa-f:])""",
    re.VERBOSE | re.ASCII,
)
# +1 000 000, and +12 345 678, which is too short for a number of a country of two digits.
THOUSANDS = re.compile(r"\+\d{1,3}(?:([ .\u00a0])\d{3}(?:\1\d{3})*)")
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 7, 15  # ITU-T E.164: at most 15
YEAR = re.compile(r"(?:19|20)\d\d")
ISSN = re.compile(r"\d{4}-\d{4}")
LAST_GROUP = re.compile(r"\D+\d+$")


def mask(text: str, kinds: Collection[str]) -> tuple[str, int]:
    """(text with placeholders, how many stand for something). `kinds` are `email`, `ip` and `phone`."""
    count = 0
    if "email" in kinds and "@" in text:
        text, found = _replace(EMAIL, text, lambda match: EMAIL_PLACEHOLDER)
        count += found
    if "ip" in kinds:
        text, found = _replace(IPV4, text, _ipv4)
        count += found
        if "::" in text or text.count(":") >= 7:
            text, found = _replace(IPV6, text, lambda match: IPV6_PLACEHOLDER if is_public(match[0]) else None)
            count += found
    if "phone" in kinds:
        text, found = _mask_phones(text)
        count += found
    return text, count


def is_public(address: str) -> bool:
    """Whether a string is an IP address that is routed on the Internet; `::` alone, versions and times are not."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _ipv4(match: re.Match[str]) -> str | None:
    before = match.string[max(0, match.start() - VERSION_CHARS) : match.start()]
    return IPV4_PLACEHOLDER if is_public(match[0]) and not VERSION.search(before) else None


def phone(found: str) -> str:
    """What of a match is a telephone number, or nothing: its head of at most 15 digits.

    Nothing where it reads as a date, a year in brackets, an ISSN or a signed number with its thousands apart.
    """
    while sum(map(str.isdigit, found)) > MAX_PHONE_DIGITS:
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
    return "" if dated or counted or ISSN.fullmatch(found) or digits < MIN_PHONE_DIGITS else found


def phone_spans(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of every telephone number, in order; a placeholder is none."""
    for run in PHONE_RUN.finditer(text):
        at = run.start()
        # Two characters more: the pattern looks at what follows.
        while match := PHONE.search(text, at, run.end() + 2):
            number = "" if match[0].startswith(PHONE_PLACEHOLDER) else phone(match[0])
            at = match.start() + len(number) if number else match.end()
            if number:
                yield match.start(), at


def _mask_phones(text: str) -> tuple[str, int]:
    pieces, done = [], 0
    for start, end in phone_spans(text):
        pieces += [text[done:start], PHONE_PLACEHOLDER]
        done = end
    return "".join([*pieces, text[done:]]), len(pieces) // 2


def _replace(pattern: re.Pattern[str], text: str, placeholder) -> tuple[str, int]:  # type: ignore[no-untyped-def]
    count = 0

    def put(match: re.Match[str]) -> str:
        nonlocal count
        new = placeholder(match)
        if new is None or new == match[0]:
            return match[0]
        count += 1
        return str(new)

    return pattern.sub(put, text), count
