"""Replace e-mail addresses, public IP addresses and telephone numbers in running text by placeholders.

The placeholders are reserved for documentation (RFC 2606, 5737, 3849) or fiction (555-0100). Masking recognises them,
so masking twice changes nothing. Private, loopback and reserved IP addresses are kept, because they identify nobody.
"""

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable

from pipelines.pii import emails, phones
from pipelines.pii.latin import LATIN

EMAIL_PLACEHOLDER = emails.PLACEHOLDER
IPV4_PLACEHOLDER = "192.0.2.1"
IPV6_PLACEHOLDER = "2001:db8::1"
PHONE_PLACEHOLDER = phones.PLACEHOLDER

IPV4 = re.compile(rf"\d(?<![{LATIN}_.].)(?<!::.)\d{{0,2}}+(?:\.\d{{1,3}}){{3}}(?!\w|\.\w)", re.ASCII)
IPV6 = re.compile(rf"[0-9A-Fa-f:](?<![{LATIN}_:.-].)[0-9A-Fa-f]{{0,3}}:[0-9A-Fa-f:]{{1,35}}+(?![\w:]|\.\d)", re.ASCII)
# Four numbers after one of these words are a version, not an IP address.
VERSION = re.compile(
    r"(?:\b(?:version|versione|versi[oó]n|vers[aã]o|wersja|версия|ver|v|release|build|firmware|rev)|版本|バージョン)"
    r"[.:：]?\s{0,2}\Z",
    re.IGNORECASE,
)
VERSION_CHARS = 12
MOST_PASSES = 8  # what stands between two placeholders may read as a host that neither address had


def mask(text: str, kinds: Collection[str]) -> tuple[str, int]:
    """Mask personal data. Returns the masked text and the number of replacements.

    kinds: any of `email`, `ip` and `phone`. A placeholder that is in the text already is kept and not counted.
    """
    count = 0
    if "email" in kinds and ("@" in text or "＠" in text):
        for _ in range(MOST_PASSES):
            text, found = _put(EMAIL_PLACEHOLDER, text, emails.spans(text))
            count += found
            if not found:
                break
    if "ip" in kinds:
        text, found = _replace(IPV4, text, _ipv4)
        count += found
        if "::" in text or text.count(":") >= 7:
            text, found = _replace(IPV6, text, lambda match: IPV6_PLACEHOLDER if is_public(match[0]) else None)
            count += found
    if "phone" in kinds:
        text, found = _put(PHONE_PLACEHOLDER, text, phones.spans(text))
        count += found
    return text, count


def is_public(address: str) -> bool:
    """Whether a string is an IP address routed on the public Internet. `::` alone, versions and times are not."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _ipv4(match: re.Match[str]) -> str | None:
    before = match.string[max(0, match.start() - VERSION_CHARS) : match.start()]
    return IPV4_PLACEHOLDER if is_public(match[0]) and not VERSION.search(before) else None


def _put(placeholder: str, text: str, spans: Iterable[tuple[int, int]]) -> tuple[str, int]:
    pieces, done, count = [], 0, 0
    for start, end in spans:
        pieces += [text[done:start], placeholder]
        count += text[start:end] != placeholder
        done = end
    return "".join([*pieces, text[done:]]), count


def _replace(
    pattern: re.Pattern[str], text: str, placeholder: Callable[[re.Match[str]], str | None]
) -> tuple[str, int]:
    count = 0

    def put(match: re.Match[str]) -> str:
        nonlocal count
        new = placeholder(match)
        if new is None or new == match[0]:
            return match[0]
        count += 1
        return new

    return pattern.sub(put, text), count
