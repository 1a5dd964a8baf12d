"""RefinedWeb's URL filter: judges the URL alone, by block lists, words and curated hosts (RefinedWeb, appendix G.1).

The driver compiles the block lists once into one file. Spark copies it to every machine, and every worker maps it into
memory (see `pipelines.urls.blocklist`).
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from contract.schema import Drop
from contract.settings.corpus import Crawl
from contract.store import Entry, Store
from pipelines.urls.address import ADDRESS, WWW, split_url
from pipelines.urls.blocklist import Blocklists, build, save
from pipelines.urls.listfile import read_lists

# RefinedWeb, appendix G.1: sources of which a curated dump exists that is better than the crawl's pages.
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


Verdict = tuple[Drop, str] | None


@dataclass(frozen=True)
class UrlFilter:
    """The lists and words that judge a URL. `load` makes a filter for this process, `shipped` for Spark's workers."""

    lists: Blocklists | None = None
    strict_words: tuple[str, ...] = ()
    hard_words: frozenset[str] = frozenset()
    soft_words: frozenset[str] = frozenset()
    curated_hosts: frozenset[str] = frozenset()

    def judge(self, url: str) -> Verdict:
        """The reason to drop a URL and the list entry or words that matched, or None to keep it."""
        host, rest = split_url(url)
        return self._blocked(host, rest) or self._curated(host) or self._words(url)

    def _blocked(self, host: str, rest: str) -> Verdict:
        if self.lists is None:
            return None
        for domain in _parents(host):
            number = self.lists.domains.find(domain)
            if number is not None:
                return Drop.URL_BLOCKED_DOMAIN, f"{self.lists.names[number]}: {domain}"
        if len(self.lists.urls):
            for prefix in _prefixes(WWW.sub("", host) + rest):
                number = self.lists.urls.find(prefix)
                if number is not None:
                    return Drop.URL_BLOCKED, f"{self.lists.names[number]}: {prefix}"
        return None

    def _curated(self, host: str) -> Verdict:
        curated = next((domain for domain in _parents(host) if domain in self.curated_hosts), None)
        return (Drop.URL_CURATED_HOST, curated) if curated else None

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
    """A filter to send to a worker: its words, and the name of its block lists in Spark's file distribution."""

    words: UrlFilter
    file: str | None

    def opened(self) -> UrlFilter:
        """The filter in a worker. Each worker maps the lists once."""
        return replace(self.words, lists=_mapped(self.file)) if self.file else self.words


@lru_cache(maxsize=4)
def _mapped(file: str) -> Blocklists:
    from pyspark import SparkFiles  # knows where Spark put the file on this machine

    return Blocklists(Path(SparkFiles.get(file)))


def shipped(settings: Crawl, context: Any) -> Shipped:
    """Compile a recipe's block lists, once in this process, and distribute them to every machine of a SparkContext.

    The compiled file stays as long as this process: machines that join later fetch it, and Spark accepts only one path
    for each file name. Raises InputError like `compile_lists`.
    """
    listing = tuple(entry for folder in settings.blocklists for entry in Store(folder).files())
    compiled = _compiled(settings.blocklists, listing)
    if compiled:
        context.addFile(str(compiled))
    return Shipped(_words(settings), compiled.name if compiled else None)


@lru_cache(maxsize=4)
def _compiled(folders: tuple[str, ...], listing: tuple[Entry, ...]) -> Path | None:
    """`listing` has the files' sizes and times. It is part of the cache's key, so changed lists are compiled again."""
    return compile_lists(folders, Path(_folder().name))


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="gristmill-lists-")


def load_url_filter(settings: Crawl) -> UrlFilter:
    """A recipe's filter for this process. Raises InputError like `compile_lists`."""
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
    """Compile folders of lists into one file in `where`, named by a hash of its content; None without folders.

    Raises InputError if a folder is missing, contains no list or lists of several categories, or if a list names
    nothing.
    """
    names: list[str] = []
    by_kind: dict[bool, dict[int, np.ndarray]] = {False: {}, True: {}}
    for folder in folders:
        for path, hashes in read_lists(folder).items():
            category = path.rpartition("/")[0].rpartition("/")[2] or folder.rstrip("/").rpartition("/")[2]
            by_kind[path.endswith("urls")][len(names)] = hashes
            names.append(category)
    if not folders:
        return None
    compiled = where / "lists"
    save(compiled, names, [build(tables.values(), tables) for tables in by_kind.values()])
    with compiled.open("rb") as file:
        name = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return compiled.rename(where / f"blocklists-{name}")


def _parents(host: str) -> Iterator[str]:
    """Yield a host and its parent domains: a.example.com, example.com, com. An IP address has no parents."""
    if host[-1:].isdigit() and ADDRESS.fullmatch(host):
        yield host
        return
    while host:
        yield host
        host = host.partition(".")[2]


def _prefixes(address: str) -> Iterator[str]:
    """Yield an address such as host/a/b?c, and every part of it that ends before a slash or a question mark.

    A list blocks a whole host with the entry `host/`.
    """
    for cut in [*(match.start() for match in re.finditer(r"[/?]", address)), len(address)]:
        yield address[:cut].rstrip("/")
