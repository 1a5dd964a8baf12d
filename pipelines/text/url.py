"""RefinedWeb's URL filter: block lists, word scores and curated hosts, decided on the URL alone (RefinedWeb, appendix G.1).

Block lists are compiled once, on the driver, into one file that Spark brings to every machine and every worker maps into its memory
(see `pipelines.text.blocklist`).
"""

import hashlib
import ipaddress
import re
import socket
import tempfile
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from contract.errors import InputError
from contract.settings import Crawl
from contract.store import Entry, Store
from pipelines.schema import Drop
from pipelines.text.blocklist import Blocklists, build, digest, save

# RefinedWeb, appendix G.1: sources whose curated dumps are the better copy.
CURATED_HOSTS = frozenset(
    [
        "arxiv.org",
        "askubuntu.com",
        "stackoverflow.com",
        "stackapps.com",
        "stackexchange.com",
        "mathoverflow.net",
        "exporter.nih.gov",
        "ncbi.nlm.nih.gov",
        "github.com",
        "irclogs.ubuntu.com",
        "news.ycombinator.com",
        "courtlistener.com",
        "reddit.com",
        "statmt.org",
        "uspto.gov",
        "wikipedia.org",
    ]
)
WORD = re.compile(r"[^\W_]+")
PLAIN_HOST = re.compile(rb"^[a-z0-9-]*[a-z-][a-z0-9-]*(?:\.[a-z0-9-]+)*$", re.MULTILINE)
ADDRESS = re.compile(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+)){0,3}")
WWW = re.compile(r"^www\d{0,3}\.")

HOST = re.compile(r"[\w-]+(?:\.[\w-]+)*")
HOSTS_LINE = re.compile(
    rb"^(?:0\.0\.0\.0|127\.0\.0\.1)[ \t]+([a-z0-9-]*[a-z-][a-z0-9-]*(?:\.[a-z0-9-]+)+)$", re.MULTILINE
)
FILTER = re.compile(r"\|\|([^/^$*|]+)\^")  # ||a.com^, the one form of a filter that blocks a whole domain
REMARK = re.compile(r"\s+#.*")
SHOWN_LINES = 3  # of those that name nothing

LISTS = ("domains", "urls", "hosts")  # UT1's two names, and that of a list in the form of /etc/hosts
PIECE_BYTES = 4 << 20  # of a list, taken apart at once

Verdict = tuple[Drop, str] | None


@dataclass(frozen=True)
class UrlFilter:
    """Everything that is needed to judge a URL. Made by `load` in this process, by `shipped` for Spark's workers."""

    lists: Blocklists | None = None
    strict_words: tuple[str, ...] = ()
    hard_words: frozenset[str] = frozenset()
    soft_words: frozenset[str] = frozenset()
    curated_hosts: frozenset[str] = frozenset()

    def judge(self, url: str) -> Verdict:
        """The reason to drop a URL, with the list or the words that say so, or None."""
        host, rest = _split(url)
        return self._blocked(host, rest) or self._curated(host) or self._words(url)

    def _blocked(self, host: str, rest: str) -> Verdict:
        if self.lists is None:
            return None
        for domain in _parents(host):
            found = self.lists.domains.find(domain)
            if found is not None:
                return Drop.URL_BLOCKED_DOMAIN, f"{self.lists.names[found]}: {domain}"
        if len(self.lists.urls):
            for prefix in _prefixes(WWW.sub("", host) + rest):
                found = self.lists.urls.find(prefix)
                if found is not None:
                    return Drop.URL_BLOCKED, f"{self.lists.names[found]}: {prefix}"
        return None

    def _curated(self, host: str) -> Verdict:
        found = next((domain for domain in _parents(host) if domain in self.curated_hosts), None)
        return (Drop.URL_CURATED_HOST, found) if found else None

    def _words(self, url: str) -> Verdict:
        readable = unquote(url).lower()
        if self.strict_words:
            joined = readable.replace("-", "").replace(".", "")
            strict = next((word for word in self.strict_words if word in joined), None)
            if strict:
                return Drop.URL_STRICT_WORD, strict
        if self.hard_words or self.soft_words:
            tokens = set(WORD.findall(readable))
            hard = tokens & self.hard_words
            if hard:
                return Drop.URL_HARD_WORD, min(hard)
            soft = sorted(tokens & self.soft_words)
            if len(soft) >= 2:
                return Drop.URL_SOFT_WORDS, " ".join(soft)
        return None


@dataclass(frozen=True)
class Shipped:
    """A filter on its way to a worker: its words, and the name under which Spark's file distribution knows its lists."""

    words: UrlFilter
    file: str | None

    def opened(self) -> UrlFilter:
        """The filter in a worker; its lists are mapped once in each worker's life."""
        return replace(self.words, lists=_mapped(self.file)) if self.file else self.words


@lru_cache(maxsize=4)
def _mapped(file: str) -> Blocklists:
    from pyspark import SparkFiles  # where Spark put the file on this machine

    return Blocklists(Path(SparkFiles.get(file)))


def shipped(settings: Crawl, context: Any) -> Shipped:
    """Compile a recipe's block lists, once in this process, and give them to every machine of a SparkContext.

    They stay as long as this process: machines that join later fetch them, and Spark takes a name from one path only.
    """
    listing = tuple(entry for folder in settings.blocklists for entry in Store(folder).files())
    compiled = _compiled(settings.blocklists, listing)
    if compiled:
        context.addFile(str(compiled))
    return Shipped(_words(settings), compiled.name if compiled else None)


@lru_cache(maxsize=4)
def _compiled(folders: tuple[str, ...], listing: tuple[Entry, ...]) -> Path | None:
    """`listing`, of the files with their sizes and times, makes changed lists others to the cache."""
    return compile_lists(folders, Path(_folder().name))


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="gristmill-lists-")


def load(settings: Crawl) -> UrlFilter:
    """A recipe's filter for this process. Raises InputError for a folder of lists that is missing or holds none."""
    with tempfile.TemporaryDirectory(prefix="gristmill-lists-") as folder:
        compiled = compile_lists(settings.blocklists, Path(folder))
        return replace(_words(settings), lists=Blocklists(compiled) if compiled else None)


def _words(settings: Crawl) -> UrlFilter:
    return UrlFilter(
        None,
        tuple(word.lower().replace("-", "").replace(".", "") for word in settings.strict_words),
        frozenset(word.lower() for word in settings.hard_words),
        frozenset(word.lower() for word in settings.soft_words),
        CURATED_HOSTS if settings.skip_curated_hosts else frozenset(),
    )


def compile_lists(folders: Sequence[str], where: Path) -> Path | None:
    """Read folders of lists into one compiled file, named by its content; None without folders.

    Raises InputError for a folder that is missing or holds no list, the lists of several categories, or a list that names nothing.
    """
    names: list[str] = []
    found: dict[bool, dict[int, np.ndarray]] = {False: {}, True: {}}
    for folder in folders:
        for path, hashes in read_lists(folder).items():
            category = path.rpartition("/")[0].rpartition("/")[2] or folder.rstrip("/").rpartition("/")[2]
            found[path.endswith("urls")][len(names)] = hashes
            names.append(category)
    if not folders:
        return None
    made = where / "lists"
    save(made, names, [build(tables.values(), tables) for tables in found.values()])
    with made.open("rb") as file:
        name = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return made.rename(where / f"blocklists-{name}")


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
        host, rest = _split(line if "://" in line else f"http://{line}")
        return [(WWW.sub("", host) + rest).rstrip("/")] if _is_host(host) else None
    first, *others = line.split()
    if (
        others
    ):  # a hosts file: an address, and the names that it shall stand for; those without a dot are the machine's own
        if not _is_address(first.partition("%")[0]):
            return None
        others = line.partition("#")[0].split()[1:]
        named = [_split(f"http://{name}")[0] for name in others if "." in name.strip(".")]
        return [name for name in named if name != first] if all(map(_is_host, named)) else None
    filtered = FILTER.fullmatch(first)
    name = filtered[1] if filtered else first
    host, rest = _split(name if "://" in name else f"http://{name}")
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


def _split(url: str) -> tuple[str, str]:
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


def _parents(host: str) -> Iterator[str]:
    """a.b.example.com, b.example.com, example.com, com. An address has no parents."""
    if host[-1:].isdigit() and ADDRESS.fullmatch(host):
        yield host
        return
    while host:
        yield host
        host = host.partition(".")[2]


def _prefixes(address: str) -> Iterator[str]:
    """host/a/b?c: the address itself and every part of it that ends before a slash or a question mark; `host/` lists all of a host."""
    for cut in [*(match.start() for match in re.finditer(r"[/?]", address)), len(address)]:
        yield address[:cut].rstrip("/")
