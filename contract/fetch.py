"""HTTP with the patience that Common Crawl asks for: retries with jittered back-off on 503, 429, 5xx and broken connections.

A listing, for which a person waits, is asked for some seconds (`get`); a download for minutes (`session`). Each retry is one warning.
And with Common Crawl's modesty: `connection` bounds how many downloads from one host are open at a time on one machine.
"""

import fcntl
import hashlib
import logging
import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse
from urllib3.util.retry import Retry

from contract import deployment
from contract.errors import InputError, StoreError
from contract.masking import masked, masked_words
from contract.printable import printable
from contract.private import open_private, private_folder

log = logging.getLogger(__name__)

USER_AGENT = "gristmill (+https://commoncrawl.org/faq; a training-corpus pipeline)"
TIMEOUT_S = (5, 60)  # to connect, and between two pieces of an answer
PATIENCE_S = 20.0  # a busy server has answered by then, and a person still waits
# Of a file: a server that tells more is not believed, because the file would be cut into millions of parts.
MOST_BYTES = 1 << 40
AGAIN = (429, 500, 502, 503, 504)


class _LoggedRetry(Retry):
    """Says why it asks again, before it waits: without that, a machine without network is silent for minutes."""

    host = ""

    def increment(self, *given: Any, **named: Any) -> "_LoggedRetry":
        """The next try's state, as urllib3 asks for it."""
        made = super().increment(*given, **named)
        made.host = getattr(named.get("_pool"), "host", "")
        return made

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        last = self.history[-1]
        why = root(last.error) if last.error else f"the server answers {last.status}"
        number = len(self.history)
        path = str(last.url).partition("?")[0]  # what follows may be a secret
        warn(f"{self.host}{path}: {why}; retry {number} of {number + (self.total or 0)}")
        super().sleep(response)


@lru_cache(maxsize=8)
def session(retries: int = 8) -> requests.Session:
    """A session that retries GET and waits longer each time (0.5 s doubling up to 60 s, with jitter, or the server's Retry-After, at most ten minutes)."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would tell each retry again, with the URL's secrets
    retry = _LoggedRetry(
        total=retries,
        backoff_factor=0.5,
        backoff_jitter=1.0,
        backoff_max=60,
        status_forcelist=AGAIN,
        allowed_methods=("GET", "HEAD"),
        respect_retry_after_header=True,
        retry_after_max=600,
    )
    made = requests.Session()
    made.headers["User-Agent"] = USER_AGENT
    made.hooks["response"].append(_stay)
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=retry if retries else 0))
    return made


def _stay(response: requests.Response, **_: object) -> None:
    """Raises InputError before a redirect is followed that leads to where no recipe of this deployment may read."""
    if response.is_redirect and (fixed := deployment.current()):
        target = urljoin(response.url, response.headers["Location"])
        if why := fixed.refuses(target):
            raise InputError(f"{response.url}: redirects to {target}, which {why}; {deployment.WHO}")


def get(url: str, patience_s: float = PATIENCE_S) -> bytes:
    """The body of a URL for which somebody waits: asked again until `patience_s` are over.

    Raises InputError where the server says that there is no such thing, StoreError where it cannot be reached.
    """
    log.info("asking %s", printable(masked_words(masked(url))))
    ends = time.monotonic() + patience_s
    wait = 1.0
    while True:
        try:
            response = session(retries=0).get(url, timeout=(TIMEOUT_S[0], max(1.0, patience_s / 2)))
        except ValueError as error:
            why = "" if "@" in url else f" ({root(error)})"  # which may quote a part of a password
            raise InputError(f"{masked_words(url)}: is no address that can be asked; check crawl.source{why}") from None
        except requests.RequestException as error:
            why = root(error)
        else:
            if response.status_code not in AGAIN:
                return _body(url, response)
            why = f"the server answers {response.status_code}"
            told = response.headers.get("Retry-After", "")
            wait = max(wait, float(told)) if told.isdecimal() else wait
        if time.monotonic() + wait > ends:
            break
        warn(f"{url}: {why}; asked again in {wait:g} s")
        time.sleep(wait)
        wait *= 2
    raise StoreError(
        f"{url}: cannot be reached for {patience_s:g} s; check the network or name a folder as crawl.source ({why})"
    )


def _body(url: str, response: requests.Response) -> bytes:
    if response.status_code in (404, 403, 410):
        raise InputError(f"{url}: the server answers {response.status_code}; check crawl.source and the crawl's name")
    if response.status_code != 200:
        raise StoreError(f"{url}: the server answers {response.status_code} {response.reason}")
    return response.content


def size(url: str, retries: int = 8) -> int:
    """Bytes of what a URL names, or 0 where the server does not tell, or tells what no file has."""
    try:
        response = session(retries).head(
            url, headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT_S, allow_redirects=True
        )
    except requests.RequestException:
        return 0
    told = number(response.headers.get("Content-Length", "")) or 0
    return told if response.status_code == 200 and told <= MOST_BYTES else 0


def number(told: str) -> int | None:
    """The number in a header, or None where it is not 1 to 18 ASCII digits. `int` also takes other scripts' digits, and raises for thousands."""
    return int(told) if told.isascii() and told.isdigit() and len(told) <= 18 else None


@contextmanager
def connection(url: str, limit: int, folder: Path | None = None) -> Iterator[None]:
    """Holds one of `limit` places for downloads from a URL's host, waiting for one where all are taken.

    The places are locked files that all processes of this user on this machine share: none can hold more, whatever Spark starts, and
    a process that is killed gives its place back. Machines do not know of each other.
    """
    host = hashlib.sha256((urlsplit(url).hostname or url).encode()).hexdigest()[:16]
    places = private_folder(folder or Path(tempfile.gettempdir()) / f"gristmill-connections-{os.getuid()}")
    while True:
        for number in random.sample(range(limit), limit):
            handle = open_private(f"{places}/{host}-{number}", os.O_RDWR | os.O_CREAT)
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


def warn(text: str) -> None:
    """One line for people, which asks nothing of them."""
    log.warning("warning: %s", printable(masked(text)))


def root(error: BaseException) -> str:
    """What an error began with: what requests and urllib3 wrap around it repeats the URL, secrets and all."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error) or type(error).__name__
