"""HTTP with the patience that Common Crawl asks for: retries with jittered back-off on 503, 429, 5xx and broken connections.

And with its modesty: `connection` bounds how many downloads from one host are open at a time on one machine.
"""

import fcntl
import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse
from urllib3.util.retry import Retry

from contract.errors import InputError, StoreError

USER_AGENT = "gristmill (+https://commoncrawl.org/faq; a training-corpus pipeline)"
TIMEOUT_S = (5, 60)  # to connect, and between two pieces of an answer


class _Told(Retry):
    """Says on stderr why it asks again, before it waits: without that, a machine without network is silent for minutes."""

    host = ""

    def increment(self, *given: Any, **named: Any) -> "_Told":
        """The next try's state, as urllib3 asks for it."""
        made = super().increment(*given, **named)
        made.host = getattr(named.get("_pool"), "host", "")
        return made

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        last = self.history[-1]
        why = _root(last.error) if last.error else f"the server answers {last.status}"
        number = len(self.history)
        path = str(last.url).partition("?")[0]  # what follows may be a secret
        print(f"{self.host}{path}: {why}; retry {number} of {number + (self.total or 0)}", file=sys.stderr, flush=True)
        super().sleep(response)


@lru_cache(maxsize=8)
def session(retries: int = 8, told: bool = False) -> requests.Session:
    """A session that retries GET and waits longer each time (0.5 s doubling up to 60 s, with jitter, or the server's Retry-After, at most ten minutes)."""
    retry = (_Told if told else Retry)(
        total=retries,
        backoff_factor=0.5,
        backoff_jitter=1.0,
        backoff_max=60,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=("GET", "HEAD"),
        respect_retry_after_header=True,
        retry_after_max=600,
    )
    made = requests.Session()
    made.headers["User-Agent"] = USER_AGENT
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=retry))
    return made


def get(url: str, retries: int = 8) -> bytes:
    """The body of a URL. Each retry leaves a line on stderr.

    Raises InputError where the server says that there is no such thing, StoreError where it cannot be reached.
    """
    try:
        response = session(retries, told=True).get(url, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise StoreError(
            f"{url}: cannot be reached after {retries} retries; check the network or name a folder as crawl.source ({_root(error)})"
        ) from error
    if response.status_code in (404, 403, 410):
        raise InputError(
            f"{url}: the server answers {response.status_code}; check crawl.source and the snapshot's name"
        )
    if response.status_code != 200:
        raise StoreError(f"{url}: the server answers {response.status_code} {response.reason}")
    return response.content


def size(url: str, retries: int = 8) -> int:
    """Bytes of what a URL names, or 0 where the server does not tell."""
    try:
        response = session(retries).head(
            url, headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT_S, allow_redirects=True
        )
    except requests.RequestException:
        return 0
    told = response.headers.get("Content-Length", "")
    return int(told) if response.status_code == 200 and told.isdigit() else 0


@contextmanager
def connection(url: str, limit: int, folder: Path | None = None) -> Iterator[None]:
    """Holds one of `limit` places for downloads from a URL's host, waiting for one where all are taken.

    The places are locked files that all processes of this user on this machine share: none can hold more, whatever Spark starts, and
    a process that is killed gives its place back. Machines do not know of each other.
    """
    host = hashlib.sha256((urlsplit(url).hostname or url).encode()).hexdigest()[:16]
    places = folder or Path(tempfile.gettempdir()) / f"gristmill-connections-{os.getuid()}"
    places.mkdir(mode=0o700, exist_ok=True)
    while True:
        for number in random.sample(range(limit), limit):
            handle = os.open(places / f"{host}-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            try:
                yield
            finally:
                os.close(handle)
            return
        time.sleep(random.uniform(0.05, 0.2))  # noqa: S311


def _root(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error) or type(error).__name__
