"""The sort-friendly form of an address (SURT): the labels of the host from right to left, then the path.

`http://www.example.org/a?b` becomes `org,example,www)/a?b`. Sorted by it, the pages of a host, of its subdomains and of
a folder stand together, so that each of them is one range of an index.
"""

import re

SURT_CHARS = 120
"""So many characters of an address are kept in an index; longer addresses with the same beginning stand together."""

# The scheme, a user and the default ports make no difference, nor does what follows a `#`. Every part ends at a
# character that the next one begins with, so that matching is linear.
_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]{0,20}:)?//(?:[^/?#@]*@)?(\[[^\]/?#]*\]|[^/?#:\[]*)(:[0-9]*)?([^#]*)")
_DEFAULT_PORTS = (":", ":80", ":443")


def surt(url: str) -> str:
    """The sort-friendly form of a URL, cut to SURT_CHARS; of a URL without a host, the URL itself. Never raises."""
    found = _ADDRESS.match(url.strip())
    if not found or not found[1]:
        return url.strip()[:SURT_CHARS]
    host, port, rest = found[1].lower().rstrip("."), found[2] or "", found[3]
    port = "" if port in _DEFAULT_PORTS else port
    return f"{reversed_host(host)}{port})/{rest.removeprefix('/')}"[:SURT_CHARS]


def reversed_host(host: str) -> str:
    """The labels of a host from right to left with commas; an IP address stays as it is."""
    labels = host.split(".")
    return host if host.startswith("[") or labels[-1].isdigit() else ",".join(reversed(labels))


def ranges(asked: str) -> list[str]:
    """The prefixes of sort-friendly forms that a search for an address or a host means.

    `example.org` means the host and its subdomains; `example.org/a` and `https://example.org/a` mean all addresses that
    begin so. An address is cut to SURT_CHARS, so the caller compares longer ones.
    """
    asked = asked.strip()
    plain = asked.partition("://")[2] or asked
    if re.fullmatch(r"[^/?#@:\s]+", plain) and "://" not in asked:
        host = reversed_host(plain.lower().strip("."))
        return [f"{host}{end}" for end in (")", ":", ",")]
    return [surt(asked if "://" in asked else f"//{asked}")]
