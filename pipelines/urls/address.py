"""Splits a URL into its host and the rest, and normalizes the host, so that all spellings of a name compare equal."""

import ipaddress
import re
import socket
from urllib.parse import SplitResult, urlsplit

# A host has at most 253 characters (RFC 1035).
LONG_AUTHORITY = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*+:)?//[^/?#]{1025}")
BLANK = str.maketrans("", "", "\t\r\n")
LEADING = "".join(map(chr, range(33)))
ADDRESS = re.compile(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+)){0,3}")
WWW = re.compile(r"^www\d{0,3}\.")


def parse(url: str) -> SplitResult:
    """`urlsplit` that also raises ValueError for an authority of more than 1,024 characters.

    `urlsplit` normalizes an authority in quadratic time.
    """
    if LONG_AUTHORITY.match(url.translate(BLANK).lstrip(LEADING)):  # `urlsplit` removes them first
        raise ValueError("the host name is too long")
    return urlsplit(url)


def split_url(url: str) -> tuple[str, str]:
    """(host, path and query) of a URL; both are empty if the URL cannot be parsed.

    The host is in lower case and, if possible, ASCII, without port and outer dots. An IP address is in its usual form.
    """
    try:
        parts = parse(url)
        host = parts.hostname or ""
    except ValueError:  # for example an unclosed IPv6 bracket
        return "", ""
    if not host.isascii():
        try:
            host = host.encode("idna").decode().lower()
        except UnicodeError:
            host = host.lower()
    host = host.strip(".")
    try:
        if ADDRESS.fullmatch(host):
            host = socket.inet_ntoa(socket.inet_aton(host))  # browsers read 0x7f.1 and 2130706433 as 127.0.0.1
        elif ":" in host:
            host = ipaddress.IPv6Address(host).compressed
    except (OSError, ValueError):
        pass
    return host, parts.path + (f"?{parts.query}" if parts.query else "")
