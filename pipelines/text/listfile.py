"""What the lines of a block list name: domains and URLs as UT1's lists have them, hosts files, filters of whole domains.

Names and the hosts of URLs are brought to one form (`split`), so that whatever way they are written they meet.
"""

import ipaddress
import re
import socket
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from contract.errors import InputError
from contract.store import Store
from pipelines.text.blocklist import digest

PLAIN_HOST = re.compile(rb"^[a-z0-9-]*[a-z-][a-z0-9-]*(?:\.[a-z0-9-]+)*$", re.MULTILINE)
ADDRESS = re.compile(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+)){0,3}")
HOSTS_LINE = re.compile(
    rb"^(?:0\.0\.0\.0|127\.0\.0\.1)[ \t]+([a-z0-9-]*[a-z-][a-z0-9-]*(?:\.[a-z0-9-]+)+)$", re.MULTILINE
)
WWW = re.compile(r"^www\d{0,3}\.")
HOST = re.compile(r"[\w-]+(?:\.[\w-]+)*")
FILTER = re.compile(r"\|\|([^/^$*|]+)\^")  # ||a.com^, the one form of a filter that blocks a whole domain
REMARK = re.compile(r"\s+#.*")
SHOWN_LINES = 3  # of those that name nothing
LISTS = ("domains", "urls", "hosts")  # UT1's two names, and that of a list in the form of /etc/hosts
PIECE_BYTES = 4 << 20  # of a list, taken apart at once


def read_lists(folder: str) -> dict[str, np.ndarray]:
    """The hashes of each list of one category's folder, by its path; says on standard output how many lines name nothing.

    Raises InputError where the folder holds no list or several categories', and for a list of which no line names anything.
    """
    store, made = Store(folder), {}
    for path in lists_in(folder):
        made[path], odd = list_hashes(store.read_bytes(path), path.endswith("urls"))
        shown = "; ".join(f"line {number}: {line[:80]!r}" for number, line in odd.first)
        if odd.count and not len(made[path]):
            raise InputError(
                f"crawl.blocklists: {store.full(path)}: none of its {odd.count:,} lines names a "
                f"{'URL' if path.endswith('urls') else 'domain'} ({shown}); see docs/reading.md for what a list may hold"
            )
        if odd.count:
            print(f"crawl.blocklists: {store.full(path)}: {odd.count:,} lines name nothing and are left out ({shown})")
    if not any(map(len, made.values())):
        raise InputError(
            f"crawl.blocklists: {folder}: its lists are empty; fill them, name another folder, or leave the key out"
        )
    return made


def lists_in(folder: str) -> list[str]:
    """The lists of one category's folder, as paths below it; raises InputError where it holds none, or several categories'."""
    lists = [entry.path for entry in Store(folder).files() if entry.path.rpartition("/")[2] in LISTS]
    if not lists:
        raise InputError(
            f"crawl.blocklists: {folder} is missing or holds no list; a category is a folder with `domains`, `urls` or `hosts`: "
            "put one there, name another, or leave the key out"
        )
    categories = sorted({path.rpartition("/")[0] for path in lists})
    if len(categories) > 1:
        raise InputError(
            f"crawl.blocklists: {folder} holds {len(categories)} categories, and UT1's are not all meant for blocking (press, shopping): "
            f"name the folder of each that is, as {Store(folder).full(categories[-1])}; there are {', '.join(filter(None, categories))}"
        )
    return lists


@dataclass
class OddLines:
    """The lines of a list that name nothing: how many, and the first ones with their numbers."""

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, line: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN_LINES:
            self.first.append((number, line))


def list_hashes(data: bytes, is_url: bool) -> tuple[np.ndarray, OddLines]:
    """The hashes of a list's entries, made of some megabytes of it at a time, and the lines that name nothing."""
    made, odd, number = [np.empty(0, np.uint64)], OddLines(), 1
    for piece in _pieces(data.removeprefix(BOM_UTF8)):
        made.append(_piece_hashes(piece, is_url, odd, number))
        number += piece.count(b"\n")
    return np.concatenate(made), odd


def _pieces(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + PIECE_BYTES) + 1 or len(data)
        yield data[start:end]
        start = end


def _piece_hashes(data: bytes, is_url: bool, odd: OddLines, number: int) -> np.ndarray:
    """Taking a line apart costs 20 times as much as taking it as it is, which nearly all lines of domains allow. `number` is the first's."""
    plain: list[bytes] = []
    if not is_url:
        for form in (PLAIN_HOST, HOSTS_LINE):
            plain += form.findall(data)
            data = form.sub(b"", data)
    rest: list[int] = []
    for at, line in enumerate(data.decode("utf-8", "replace").split("\n"), number):
        entries = _entries(line.strip(), is_url)
        if entries is None:
            odd.add(at, line.strip())
        else:
            rest += (digest(entry.encode("utf-8", "replace")) for entry in entries)
    return np.concatenate([np.fromiter(map(digest, plain), np.uint64, len(plain)), np.array(rest, np.uint64)])


def _entries(line: str, is_url: bool) -> list[str] | None:
    """What a line of a list names, as `UrlFilter` looks it up; nothing for a remark, None for what names nothing."""
    if not line or line.startswith(("#", "!")):
        return []
    line = REMARK.sub("", line)
    if is_url:
        host, rest = split(line if "://" in line else f"http://{line}")
        return [(WWW.sub("", host) + rest).rstrip("/")] if _is_host(host) else None
    first, *others = line.split()
    if (
        others
    ):  # a hosts file: an address, and the names that it shall stand for; those without a dot are the machine's own
        if not _is_address(first.partition("%")[0]):
            return None
        others = line.partition("#")[0].split()[1:]
        named = [split(f"http://{name}")[0] for name in others if "." in name.strip(".")]
        return [name for name in named if name != first] if all(map(_is_host, named)) else None
    filtered = FILTER.fullmatch(first)
    name = filtered[1] if filtered else first
    host, rest = split(name if "://" in name else f"http://{name}")
    # A path, or `a.com##.banner`, is of something on the host: the host itself is not to be blocked for it.
    return [host] if _is_host(host) and rest in ("", "/") and "#" not in name else None


def _is_host(text: str) -> bool:
    return bool(HOST.fullmatch(text)) or _is_address(text)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def split(url: str) -> tuple[str, str]:
    """(host, everything behind it) of a URL. The host is lower case, in its ASCII form, without port and outer dots; an address is in its usual form."""
    try:
        parts = urlsplit(url)
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
            host = socket.inet_ntoa(socket.inet_aton(host))  # 0x7f.1 and 2130706433 are 127.0.0.1 to every browser
        elif ":" in host:
            host = ipaddress.IPv6Address(host).compressed
    except (OSError, ValueError):
        pass
    return host, parts.path + (f"?{parts.query}" if parts.query else "")
