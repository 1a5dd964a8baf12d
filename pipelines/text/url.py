"""RefinedWeb's URL filter: block lists, word scores and curated hosts, decided on the URL alone (RefinedWeb, appendix G.1).

Block lists are kept as sorted 64-bit hashes, 8 bytes an entry: UT1's 4.6 million domains take 46 MB with their categories, and a
look-up takes a microsecond. Two entries share a hash with a probability of about 1e-6 over a list of that size.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import numpy as np
import xxhash

from contract.errors import InputError
from contract.settings import Crawl
from contract.store import Store
from pipelines.schema import Drop

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
PLAIN_HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*")
WWW = re.compile(r"^www\d{0,3}\.")

Verdict = tuple[Drop, str] | None


@dataclass(frozen=True)
class HashList:
    """Entries as sorted hashes, each with the index of the category that lists it."""

    hashes: np.ndarray  # uint64, ascending
    categories: np.ndarray  # uint16, aligned with `hashes`

    @staticmethod
    def build(entries: Iterable[tuple[str, int]]) -> "HashList":
        """From (entry, category) pairs; of an entry that stands in several categories the first counts."""
        pairs = np.fromiter(
            ((xxhash.xxh3_64_intdigest(entry.encode("utf-8", "replace")), category) for entry, category in entries),
            dtype=[("hash", np.uint64), ("category", np.uint16)],
        )
        hashes, first = np.unique(pairs["hash"], return_index=True)
        return HashList(hashes, pairs["category"][first])

    def find(self, entry: str) -> int | None:
        """The category of an entry, or None."""
        wanted = np.uint64(xxhash.xxh3_64_intdigest(entry.encode("utf-8", "replace")))
        at = int(np.searchsorted(self.hashes, wanted))
        return int(self.categories[at]) if at < len(self.hashes) and self.hashes[at] == wanted else None


@dataclass(frozen=True)
class UrlFilter:
    """Everything that a worker needs to judge a URL; made once by `load` and sent to the workers."""

    categories: tuple[str, ...] = ()
    domains: HashList = field(default_factory=lambda: HashList.build(()))
    urls: HashList = field(default_factory=lambda: HashList.build(()))
    strict_words: tuple[str, ...] = ()
    hard_words: frozenset[str] = frozenset()
    soft_words: frozenset[str] = frozenset()
    curated_hosts: frozenset[str] = frozenset()

    def judge(self, url: str) -> Verdict:
        """The reason to drop a URL, with the list or the words that say so, or None."""
        host, rest = _split(url)
        return self._blocked(host, rest) or self._curated(host) or self._words(url)

    def _blocked(self, host: str, rest: str) -> Verdict:
        for domain in _parents(host):
            category = self.domains.find(domain)
            if category is not None:
                return Drop.URL_BLOCKED_DOMAIN, f"{self.categories[category]}: {domain}"
        if len(self.urls.hashes):
            for prefix in _prefixes(WWW.sub("", host) + rest):
                category = self.urls.find(prefix)
                if category is not None:
                    return Drop.URL_BLOCKED, f"{self.categories[category]}: {prefix}"
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


def load(settings: Crawl) -> UrlFilter:
    """Read the block lists of a recipe. Raises InputError for a folder that is missing or holds no list."""
    categories: list[str] = []
    domains: list[HashList] = []
    urls: list[HashList] = []
    for folder in settings.blocklists:
        store = Store(folder)
        lists = [entry.path for entry in store.files() if entry.path.rpartition("/")[2] in ("domains", "urls")]
        if not lists:
            raise InputError(
                f"crawl.blocklists: {folder} is missing or holds no list; a UT1 folder has <category>/domains and <category>/urls"
            )
        for path in lists:
            category = path.rpartition("/")[0].rpartition("/")[2] or folder.rstrip("/").rpartition("/")[2]
            categories.append(category)
            (domains if path.endswith("domains") else urls).append(
                HashList.build((entry, len(categories) - 1) for entry in _entries(store, path))
            )
    return UrlFilter(
        tuple(categories),
        _merge(domains),
        _merge(urls),
        tuple(word.lower().replace("-", "").replace(".", "") for word in settings.strict_words),
        frozenset(word.lower() for word in settings.hard_words),
        frozenset(word.lower() for word in settings.soft_words),
        CURATED_HOSTS if settings.skip_curated_hosts else frozenset(),
    )


def _entries(store: Store, path: str) -> Iterator[str]:
    is_url = path.endswith("urls")
    for line in store.read_bytes(path).decode("utf-8", "replace").splitlines():
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if not is_url and PLAIN_HOST.fullmatch(
            entry
        ):  # nearly all of millions: taking a URL apart costs 20 times as much
            yield entry
            continue
        host, rest = _split(entry if "://" in entry else f"http://{entry}")
        if is_url:
            if address := (WWW.sub("", host) + rest).rstrip("/"):
                yield address
        elif host:
            yield host


def _merge(lists: list[HashList]) -> HashList:
    if not lists:
        return HashList.build(())
    hashes, first = np.unique(np.concatenate([one.hashes for one in lists]), return_index=True)
    return HashList(hashes, np.concatenate([one.categories for one in lists])[first])


def _split(url: str) -> tuple[str, str]:
    """(host, everything behind it) of a URL. The host is lower case, in its ASCII form, without port and final dot."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:  # for example an unclosed IPv6 bracket
        return "", ""
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            host = host.lower()
    return host.rstrip("."), parts.path + (f"?{parts.query}" if parts.query else "")


def _parents(host: str) -> Iterator[str]:
    """a.b.example.com, b.example.com, example.com, com."""
    while host:
        yield host
        host = host.partition(".")[2]


def _prefixes(address: str) -> Iterator[str]:
    """host/a/b?c: the address itself and every part of it that ends before a slash or a question mark; `host/` lists all of a host."""
    for cut in [*(match.start() for match in re.finditer(r"[/?]", address)), len(address)]:
        yield address[:cut].rstrip("/")
