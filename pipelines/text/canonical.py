"""Canonical URLs: addresses that surely show the same page become one string (RFC 3986 section 6, and what trackers append)."""

import re
from urllib.parse import urlsplit

import idna

DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}

TRACKING = re.compile(
    r"utm_\w+|mc_[ce]id|mkt_tok|_hs(enc|mi)|__hs\w+|_ga|_gl|gcl(id|src)|dclid|gbraid|wbraid|fbclid|msclkid|yclid|twclid|ttclid"
    r"|li_fat_id|igshid|igsh|s_kwcid|oly_(anon|enc)_id|vero_\w+|wickedid|phpsessid|jsessionid|aspsessionid\w*|cfid|cftoken",
    re.IGNORECASE,
)
"""Query parameters that say where a visitor came from or who they are, never what the page shows."""

_SESSION_PATH = re.compile(r";(jsessionid|phpsessid)=[^/?;]*", re.IGNORECASE)
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})")
_BLANK = re.compile(r"[\t\n\r]")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ALLOWED = _UNRESERVED | frozenset("!$&'()*+,;=:@/?%[]|")


def canonical(url: str) -> str:
    """The canonical form of an absolute URL. `http` counts as `https`; parameters are sorted; what cannot be parsed stays as it is."""
    url = _BLANK.sub("", url).strip()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    if not parts.scheme or not parts.hostname:
        return url
    default = port is None or port == DEFAULT_PORTS.get(parts.scheme)
    scheme = "https" if parts.scheme == "http" else parts.scheme
    host = _host(parts.hostname) + ("" if default else f":{port}")
    path = _dots(_escape(_SESSION_PATH.sub("", parts.path))) or "/"
    query = _query(parts.query)
    return f"{scheme}://{host}{path}" + (f"?{query}" if query else "")


def _host(host: str) -> str:
    if ":" in host:
        return f"[{host.lower()}]"
    host = host.rstrip(".").lower()
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        return host


def _escape(text: str) -> str:
    """Percent-encoding in one form: nothing that may stand plain is encoded, all else is, with capital digits."""

    def one(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else f"%{match[1].upper()}"

    text = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text)
    plain = _PERCENT.sub(one, text)
    return "".join(
        one if one in _ALLOWED else "".join(f"%{byte:02X}" for byte in one.encode("utf-8", "surrogatepass"))
        for one in plain
    )


def _dots(path: str) -> str:
    """Resolve `.` and `..` segments (RFC 3986 section 5.2.4)."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _query(query: str) -> str:
    parameters = [_escape(part) for part in query.split("&") if part]
    kept = [one for one in parameters if not TRACKING.fullmatch(one.partition("=")[0])]
    return "&".join(sorted(kept, key=lambda one: one.partition("=")[0]))
