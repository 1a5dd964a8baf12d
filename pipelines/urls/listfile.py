"""Parses block lists: domains and URLs in UT1's form, hosts files, and filters that block whole domains.

Normalizes host names with `pipelines.urls.address`. Lines can have any length; every pattern takes linear time.
"""

import ipaddress
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from contract.errors import InputError
from contract.printable import printable
from contract.store import Store
from pipelines.urls.address import WWW, split_url
from pipelines.urls.blocklist import digest

LABEL = rb"[0-9]*+[a-z-][a-z0-9-]*+"  # not only digits: that can be an address
PLAIN_HOST = re.compile(rb"^%b(?:\.[a-z0-9-]++)*+$" % LABEL, re.MULTILINE)
HOSTS_LINE = re.compile(rb"^(?:0\.0\.0\.0|127\.0\.0\.1)[ \t]++(%b(?:\.[a-z0-9-]++)++)$" % LABEL, re.MULTILINE)
HOST = re.compile(r"[\w-]+(?:\.[\w-]+)*")
FILTER = re.compile(r"\|\|([^/^$*|]+)\^")  # ||a.com^: the only form of filter that blocks a whole domain
REMARK = re.compile(r"(?<!\s)\s++#.*")
SHOWN_LINES = 3  # odd lines of a list that a message quotes
LISTS = ("domains", "urls", "hosts")  # file names: UT1's two, and that of a list in the form of /etc/hosts
PIECE_BYTES = 4 << 20  # bytes of a list that are parsed at once


def read_lists(folder: str) -> dict[str, np.ndarray]:
    """The hashes of each list in the folder of one category, by path. Prints how many lines of a list name nothing.

    Raises InputError if the folder contains no list or lists of several categories, or if no line of a list names
    anything.
    """
    store, hashes = Store(folder), {}
    for path in lists_in(folder):
        hashes[path], odd = list_hashes(store.read_bytes(path), path.endswith("urls"))
        shown = "; ".join(f"line {number}: {line[:80]!r}" for number, line in odd.first)
        if odd.count and not len(hashes[path]):
            raise InputError(
                f"crawl.blocklists: {store.full(path)}: none of its {odd.count:,} lines names a "
                f"{'URL' if path.endswith('urls') else 'domain'} ({shown}); "
                "see docs/reading.md for what a list may hold"
            )
        if odd.count:
            left = f"{odd.count:,} lines name nothing and are skipped ({shown})"
            print(printable(f"crawl.blocklists: {store.full(path)}: {left}"))
    if not any(map(len, hashes.values())):
        raise InputError(
            f"crawl.blocklists: {folder}: its lists are empty; fill them, name another folder, or leave the key out"
        )
    return hashes


def lists_in(folder: str) -> list[str]:
    """The paths of the lists in the folder of one category, relative to the folder.

    Raises InputError if the folder contains no list, or lists of several categories.
    """
    lists = [entry.path for entry in Store(folder).files() if entry.path.rpartition("/")[2] in LISTS]
    if not lists:
        raise InputError(
            f"crawl.blocklists: {folder} is missing or holds no list; "
            "a category is a folder with `domains`, `urls` or `hosts`: "
            "put one there, name another, or leave the key out"
        )
    categories = sorted({path.rpartition("/")[0] for path in lists})
    if len(categories) > 1:
        raise InputError(
            f"crawl.blocklists: {folder} holds {len(categories)} categories, "
            "and UT1's are not all meant for blocking (press, shopping): "
            f"name the folder of each category to block, such as {Store(folder).full(categories[-1])}; "
            f"there are {', '.join(filter(None, categories))}"
        )
    return lists


@dataclass
class OddLines:
    """The odd lines of a list, which contain something that names nothing: their count, and the first with numbers."""

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, line: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN_LINES:
            self.first.append((number, line))


def list_hashes(data: bytes, is_url: bool) -> tuple[np.ndarray, OddLines]:
    """The hashes of a list's entries, and its odd lines. Parses one piece of some megabytes at a time."""
    hashes, odd, number = [np.empty(0, np.uint64)], OddLines(), 1
    for piece in _pieces(data.removeprefix(BOM_UTF8)):
        hashes.append(_piece_hashes(piece, is_url, odd, number))
        number += piece.count(b"\n")
    return np.concatenate(hashes), odd


def _pieces(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + PIECE_BYTES) + 1 or len(data)
        yield data[start:end]
        start = end


def _piece_hashes(data: bytes, is_url: bool, odd: OddLines, number: int) -> np.ndarray:
    """The hashes of one piece of a list. `number` is the line number of its first line. Adds odd lines to `odd`.

    Nearly all domains are in their usual form already. Only other lines are parsed, because that costs 20 times as
    much.
    """
    plain: list[bytes] = []
    if not is_url:
        for form in (PLAIN_HOST, HOSTS_LINE):
            plain += form.findall(data)
            data = form.sub(b"", data)
    rest: list[int] = []
    for at, line in enumerate(data.decode("utf-8", "replace").split("\n"), number):
        entries, whole = _entries(line.strip(), is_url)
        if not whole:
            odd.add(at, line.strip())
        rest += (digest(entry.encode("utf-8", "replace")) for entry in entries)
    return np.concatenate([np.fromiter(map(digest, plain), np.uint64, len(plain)), np.array(rest, np.uint64)])


def _entries(line: str, is_url: bool) -> tuple[list[str], bool]:
    """Parse a line of a list. Returns (its entries, as `UrlFilter` looks them up; False if the line is odd).

    A line that is empty or only a remark is not odd.
    """
    if not line or line.startswith(("#", "!")):
        return [], True
    line = REMARK.sub("", line)
    if is_url:
        host, rest = split_url(line if "://" in line else f"http://{line}")
        return ([(WWW.sub("", host) + rest).rstrip("/")], True) if _is_host(host) else ([], False)
    first, *others = line.split()
    if others:
        return _hosts_entries(first, line.partition("#")[0].split()[1:])
    filtered = FILTER.fullmatch(first)
    name = filtered[1] if filtered else first
    host, rest = split_url(name if "://" in name else f"http://{name}")
    # An entry with a path, or like `a.com##.banner`, is about a part of the host, so it must not block the whole host.
    return ([host], True) if _is_host(host) and rest in ("", "/") and "#" not in name else ([], False)


def _hosts_entries(address: str, names: list[str]) -> tuple[list[str], bool]:
    """`_entries` of a line of a hosts file: an address and its names. Names without a dot are local and are ignored."""
    if not _is_address(address.partition("%")[0]):
        return [], False
    dotted = [split_url(f"http://{name}")[0] for name in names if "." in name.strip(".")]
    named = [name for name in dotted if _is_host(name)]
    return [name for name in named if name != address], len(named) == len(dotted)


def _is_host(text: str) -> bool:
    return bool(HOST.fullmatch(text)) or _is_address(text)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
