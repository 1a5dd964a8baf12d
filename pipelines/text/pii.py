"""Personal data in running text: e-mail addresses, public IP addresses and telephone numbers become placeholders.

The placeholders are reserved for documentation (RFC 2606, 5737, 3849) or for fiction (555-0100), so masking twice changes nothing.
Private, loopback and reserved IP addresses stay: they name nobody. Telephone numbers are matched conservatively, by an
international prefix or a national writing that dates, prices and serial numbers do not have.
"""

import ipaddress
import re
from collections.abc import Collection

EMAIL_PLACEHOLDER = "email@example.com"
IPV4_PLACEHOLDER = "192.0.2.1"
IPV6_PLACEHOLDER = "2001:db8::1"
PHONE_PLACEHOLDER = "+1 555-555-0100"

# RFC 5321's lengths keep the match linear: 64 characters before the @, 63 a label.
EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9_%+][\w.%+'-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}\b"
)
IPV4 = re.compile(r"(?<![\w.])(?<!::)(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\w)")
IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:]{3,39}(?![\w:]|\.\d)")
_GAP = r"[ .\-\u00a0\u2011\u2013/]"
PHONE = re.compile(
    rf"""(?<![\w+.,/:-])(?:
        \+[1-9]\d{{0,2}}{_GAP}?(?:\(0?\d{{1,5}}\){_GAP}?)?(?:\d{{1,5}}{_GAP}?){{2,5}}\d{{2,4}}   # +49 (0)30 123 45 67
      | 00[1-9]\d{{0,2}}{_GAP}(?:\d{{1,5}}{_GAP}?){{2,4}}\d{{2,4}}                              # 0049 30 123 45 67
      | \(\d{{2,5}}\){_GAP}?\d{{3,5}}{_GAP}?\d{{2,5}}                                            # (555) 123-4567
      | \d{{3}}[-.]\d{{3}}[-.]\d{{4}}                                                            # 555-123-4567
      | 0\d{{1,4}}[ /-]\d{{2,8}}(?:[ -]\d{{2,4}}){{0,4}}                                         # 030/123456, 06 12 34 56 78
    )(?![\w]|[.,-]\d)""",
    re.VERBOSE,
)
MIN_PHONE_DIGITS, MAX_PHONE_DIGITS = 7, 15  # ITU-T E.164: at most 15
DATE = re.compile(r"0?\d{1,2}[-/. ]\d{1,2}[-/. ](?:19|20)\d\d|0\d[-/ ](?:19|20)\d\d")


def mask(text: str, kinds: Collection[str]) -> tuple[str, int]:
    """(text with placeholders, how many stand for something). `kinds` are `email`, `ip` and `phone`."""
    count = 0
    if "email" in kinds and "@" in text:
        text, found = _replace(EMAIL, text, lambda matched: EMAIL_PLACEHOLDER)
        count += found
    if "ip" in kinds:
        text, found = _replace(IPV4, text, lambda matched: IPV4_PLACEHOLDER if is_public(matched) else None)
        count += found
        if "::" in text or text.count(":") >= 7:
            text, found = _replace(IPV6, text, lambda matched: IPV6_PLACEHOLDER if is_public(matched) else None)
            count += found
    if "phone" in kinds:
        text, found = _replace(PHONE, text, lambda matched: PHONE_PLACEHOLDER if is_phone(matched) else None)
        count += found
    return text, count


def is_public(address: str) -> bool:
    """Whether a string is an IP address that is routed on the Internet; `::` alone, versions and times are not."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def is_phone(number: str) -> bool:
    """Whether a match has as many digits as a telephone number and is no date."""
    digits = sum(map(str.isdigit, number))
    return MIN_PHONE_DIGITS <= digits <= MAX_PHONE_DIGITS and not DATE.fullmatch(number)


def _replace(pattern: re.Pattern[str], text: str, placeholder) -> tuple[str, int]:  # type: ignore[no-untyped-def]
    count = 0

    def put(match: re.Match[str]) -> str:
        nonlocal count
        new = placeholder(match[0])
        if new is None or new == match[0]:
            return match[0]
        count += 1
        return str(new)

    return pattern.sub(put, text), count
