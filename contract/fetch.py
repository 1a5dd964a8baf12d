"""HTTP with the patience that Common Crawl asks for: retries with jittered back-off on 503, 429, 5xx and broken connections."""

from functools import lru_cache

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from contract.errors import InputError, StoreError

USER_AGENT = "gristmill (+https://commoncrawl.org/faq; a training-corpus pipeline)"
TIMEOUT_S = (10, 60)


@lru_cache(maxsize=8)
def session(retries: int = 8) -> requests.Session:
    """A session that retries GET and waits longer each time (0.5 s doubling up to 60 s, with jitter, or the server's Retry-After)."""
    retry = Retry(
        total=retries,
        backoff_factor=0.5,
        backoff_jitter=1.0,
        backoff_max=60,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=("GET", "HEAD"),
        respect_retry_after_header=True,
    )
    made = requests.Session()
    made.headers["User-Agent"] = USER_AGENT
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=retry))
    return made


def get(url: str, retries: int = 8) -> bytes:
    """The body of a URL.

    Raises InputError where the server says that there is no such thing, StoreError where it cannot be reached.
    """
    try:
        response = session(retries).get(url, timeout=TIMEOUT_S)
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


def _root(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error) or type(error).__name__
