"""Turns URLs that surely show the same page into one string (RFC 3986, section 6; without tracking parameters)."""

import ipaddress
import re
from urllib.parse import unquote

import idna

from pipelines.urls.address import parse

DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}

TRACKING = re.compile(
    r"utm_\w+|utm|mtm_\w+|pk_(campaign|kwd|keyword|source|medium|content|cid)|piwik_\w+|mc_[ce]id|mkt_tok"
    r"|_hs(enc|mi)|__hs\w+|hsctatracking"
    r"|_ga|_gl|gcl(id|src)|gad_(source|campaignid)|dclid|gbraid|wbraid|srsltid"
    r"|fbclid|fb_(action_ids|action_types|source|ref)|msclkid|ysclid|yclid"
    r"|_openstat|rb_clickid|twclid|ttclid|li_fat_id|igshid|igsh|epik|irclickid|s_kwcid|oly_(anon|enc)_id"
    r"|vero_\w+|wickedid|ml_subscriber(_hash)?"
    r"|_branch_match_id|phpsessid|jsessionid|aspsessionid\w*|cfid|cftoken",
    re.IGNORECASE,
)
"""Query parameters that identify a visitor or the link they came from, and never change the page."""

_SESSION_PATH = re.compile(r";(jsessionid|phpsessid)=[^/?;]*", re.IGNORECASE)
_NOT_IN_HOST = re.compile(r"[\s\x00-\x20\x7f#%/:?@\[\\\]^|<>]")
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})")
_BLANK = re.compile(r"[\t\n\r]")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ALLOWED = _UNRESERVED | frozenset("!$&'()*+,;=:@/?%[]|")


def canonical(url: str) -> str:
    """The canonical form of an absolute URL. A URL that cannot be parsed only loses outer white space. Never raises.

    `http` becomes `https`, because few hosts serve different pages for them. Parameters are sorted by name, because
    programs that build links use any order; parameters of the same name keep their order, because it can matter. A path
    keeps its case and its last slash.
    """
    url = _BLANK.sub("", url).strip()
    try:
        parts = parse(url)
        port, name = parts.port, parts.hostname
    except ValueError:
        return url
    host = _host(name or "")
    if not parts.scheme or not host:
        return url
    place = "" if port in (None, DEFAULT_PORTS.get(parts.scheme)) else f":{port}"
    scheme = "https" if parts.scheme == "http" and port != 443 else parts.scheme
    path = _dots(_SESSION_PATH.sub("", _escape(parts.path))) or "/"
    query = _query(parts.query)
    return f"{scheme}://{host}{place}{path}" + (f"?{query}" if query else "")


def _host(host: str) -> str:
    """The host in lower case and Punycode without a final dot, or an IPv6 address in its short form.

    Accepts all hosts that browsers accept, even if standards forbid them.
    """
    if ":" in host:
        try:
            return f"[{ipaddress.IPv6Address(host).compressed}]"
        except ValueError:
            return f"[{host.lower()}]"
    plain = unquote(host, errors="replace")
    if _NOT_IN_HOST.search(plain):  # not a resolvable name
        return host.lower().rstrip(".")
    host = plain.lower().rstrip(".")
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode().rstrip(".")
    except idna.IDNAError:  # for example an underscore or an emoji: IDNA 2008 forbids them, the web uses them
        return ".".join(map(_punycode, re.split("[.。．｡]", host))).rstrip(".")


def _punycode(label: str) -> str:
    """One label as UTS 46 maps it, without the checks of IDNA 2008."""
    try:
        mapped = idna.uts46_remap(label, std3_rules=False)
        return mapped if mapped.isascii() else f"xn--{mapped.encode('punycode').decode()}"
    except (idna.IDNAError, UnicodeError):
        return label


def _escape(text: str) -> str:
    """Normalize percent-encoding: decode unreserved characters, encode forbidden ones, and use capital digits."""

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
    kept = [parameter for parameter in parameters if not TRACKING.fullmatch(parameter.partition("=")[0])]
    return "&".join(sorted(kept, key=lambda parameter: parameter.partition("=")[0]))
