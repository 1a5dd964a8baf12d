"""HTTP as Common Crawl asks for it: retries with jittered back-off on 429, 5xx and broken connections, few at a time.

`get` fetches a listing, for which a person waits, and retries for seconds; a `session` downloads and retries for
minutes. Each retry is reported as one warning. `connection` limits how many downloads from one host are open at a time
on one machine.
"""

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
from filelock import Timeout
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse
from urllib3.util.retry import Retry

from contract import deployment
from contract.errors import InputError, StoreError
from contract.masking import masked, masked_words
from contract.printable import printable
from contract.private import private_folder, private_lock

log = logging.getLogger(__name__)

USER_AGENT = "gristmill (+https://commoncrawl.org/faq; a training-corpus pipeline)"
TIMEOUT_S = (5, 60)  # to connect, and between two pieces of an answer
PATIENCE_S = 20.0  # long enough for a busy server to answer, and short enough for a person to wait
# A Content-Length above this is ignored: a file of that size would be cut into millions of parts.
MOST_BYTES = 1 << 40
AGAIN = (429, 500, 502, 503, 504)


class _LoggedRetry(Retry):
    """Logs the reason for each retry before it waits; without that, a machine without network is silent for minutes."""

    host = ""

    def increment(self, *given: Any, **named: Any) -> "_LoggedRetry":
        """Called by urllib3: return the state of the next try, with the host's name."""
        retry = super().increment(*given, **named)
        retry.host = getattr(named.get("_pool"), "host", "")
        return retry

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        last = self.history[-1]
        why = root(last.error) if last.error else f"the server answers {last.status}"
        number = len(self.history)
        path = str(last.url).partition("?")[0]  # the query may hold a secret
        warn(f"{self.host}{path}: {why}; retry {number} of {number + (self.total or 0)}")
        super().sleep(response)


@lru_cache(maxsize=8)
def session(retries: int = 8) -> requests.Session:
    """A session that retries GET and HEAD.

    The first retry follows at once; before the n-th it waits 0.5 s x 2^(n - 1) plus up to a second of jitter, at most
    60 s. If the server sends Retry-After, it waits that long, at most ten minutes.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # urllib3 would log each retry again, with the URL's secrets
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
    client = requests.Session()
    client.headers["User-Agent"] = USER_AGENT
    client.hooks["response"].append(_stay)
    for scheme in ("http://", "https://"):
        client.mount(scheme, HTTPAdapter(max_retries=retry if retries else 0))
    return client


def _stay(response: requests.Response, **_: object) -> None:
    """Raise InputError before a redirect to a place that recipes of this deployment may not read is followed."""
    if response.is_redirect and (fixed := deployment.current()):
        target = urljoin(response.url, response.headers["Location"])
        if why := fixed.refuses(target):
            raise InputError(f"{response.url}: redirects to {target}, which {why}; {deployment.WHO}")


def get(url: str, patience_s: float = PATIENCE_S) -> bytes:
    """The body of a URL for which a person waits. Retries for up to `patience_s` seconds.

    Raises InputError if the URL is not valid or the server answers 403, 404 or 410, and StoreError if it cannot be
    reached or answers another error.
    """
    log.info("asking %s", printable(masked_words(masked(url))))
    ends = time.monotonic() + patience_s
    wait = 1.0
    while True:
        try:
            response = session(retries=0).get(url, timeout=(TIMEOUT_S[0], max(1.0, patience_s / 2)))
        except ValueError as error:
            why = "" if "@" in url else f" ({root(error)})"  # the error may quote a part of a password
            raise InputError(
                f"{masked_words(url)}: is not an address that can be requested; check crawl.source{why}"
            ) from None
        except requests.RequestException as error:
            why = root(error)
        else:
            if response.status_code not in AGAIN:
                return _body(url, response)
            why = f"the server answers {response.status_code}"
            retry_after = response.headers.get("Retry-After", "")
            wait = max(wait, float(retry_after)) if retry_after.isdecimal() else wait
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
    """Bytes of the file at a URL, or 0 if the server does not say or gives a number that no file has."""
    try:
        response = session(retries).head(
            url, headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT_S, allow_redirects=True
        )
    except requests.RequestException:
        return 0
    length = number(response.headers.get("Content-Length", "")) or 0
    return length if response.status_code == 200 and length <= MOST_BYTES else 0


def number(told: str) -> int | None:
    """The number in a header, or None if it is not 1 to 18 ASCII digits.

    `int` alone would take the digits of other scripts, and raise ValueError for thousands of digits.
    """
    return int(told) if told.isascii() and told.isdigit() and len(told) <= 18 else None


@contextmanager
def connection(url: str, limit: int, folder: Path | None = None) -> Iterator[None]:
    """Hold one of `limit` places for downloads from a URL's host; wait while all are taken.

    The places are locked files that all processes of this user on this machine share, so the limit holds however many
    workers Spark starts, and a killed process gives its place back. Other machines have places of their own.
    """
    host = hashlib.sha256((urlsplit(url).hostname or url).encode()).hexdigest()[:16]
    places = private_folder(folder or Path(tempfile.gettempdir()) / f"gristmill-connections-{os.getuid()}")
    while True:
        for number in random.sample(range(limit), limit):
            try:
                place = private_lock(places / f"{host}-{number}", timeout=0).acquire()
            except Timeout:
                continue
            with place:
                yield
            return
        time.sleep(random.uniform(0.05, 0.2))  # noqa: S311


def warn(text: str) -> None:
    """Log a warning as one line, with the secrets of URIs masked."""
    log.warning("warning: %s", printable(masked(text)))


def root(error: BaseException) -> str:
    """The message of an error's innermost cause; the errors that requests and urllib3 wrap around it quote secrets."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error) or type(error).__name__
