"""One crawl file as a byte stream that can start anywhere: a local path, an object in a store, or a URL read by range requests."""

import io
import random
import time
from typing import Any, Protocol

import requests
import urllib3

from contract import fetch
from contract.errors import InputError, StoreError
from contract.store import split_uri

LONGEST_WAIT_S = 60.0
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class Body(Protocol):
    """Bytes from one position on."""

    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class RangeFile(io.RawIOBase):
    """Reads `uri` up to `limit` bytes. Seeking reopens it there; a broken download goes on from the byte where it broke.

    Raises InputError when the file does not exist, StoreError when it cannot be read any further.
    """

    def __init__(self, uri: str, limit: int | None = None, retries: int = 8) -> None:
        super().__init__()
        self.uri, self._limit, self._retries = uri, limit, retries
        self._position = 0
        self._body: Body | None = None
        self.cut = False
        """True once reading, since the last seek, stopped at `limit` and not at the file's end."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end of a crawl file is not known before it is read")
        self._position = offset if whence == io.SEEK_SET else self._position + offset
        self.cut = False
        self._shut()
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        if self._limit is not None:
            wanted = min(wanted, self._limit - self._position)
            if wanted <= 0:
                self.cut = True
                return 0
        data = self._read(wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read_full(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        parts: list[bytes] = []
        while size and (part := self.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        self._shut()
        super().close()

    def _shut(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def _read(self, size: int) -> bytes:
        for attempt in range(self._retries + 1):
            try:
                if self._body is None:
                    self._body = self._open()
                return self._body.read(size)
            except FileNotFoundError:
                raise InputError(f"{self.uri}: no such file; it was there when the run was resolved") from None
            except BROKEN as error:
                self._shut()
                if not self.uri.startswith(("http://", "https://")) or attempt == self._retries:
                    raise StoreError(f"{self.uri}: broke off at byte {self._position:,}: {error}") from error
                time.sleep(random.uniform(0, min(LONGEST_WAIT_S, 0.5 * 2**attempt)))  # noqa: S311
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _open(self) -> Body:
        if self.uri.startswith(("http://", "https://")):
            return _open_url(self.uri, self._position, self._limit, self._retries)
        store, name = split_uri(self.uri)
        opened = store.open_input(name)
        opened.seek(min(self._position, opened.size()))
        return opened  # type: ignore[no-any-return]


class _UrlBody:
    """The body of a response as it came over the wire, closed with its connection."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response

    def read(self, size: int, /) -> bytes:
        return bytes(self._response.raw.read(size, decode_content=False))

    def close(self) -> None:
        self._response.close()


def _open_url(url: str, start: int, limit: int | None, retries: int) -> Body:
    last = "" if limit is None else str(limit - 1)
    # Without `identity` some servers would compress, and the ranges would count compressed bytes.
    headers = {"Accept-Encoding": "identity"}
    if start or last:
        headers["Range"] = f"bytes={start}-{last}"
    response = fetch.session(retries).get(url, headers=headers, stream=True, timeout=fetch.TIMEOUT_S)
    body = _UrlBody(response)
    if response.status_code == 416:  # the file ends where the range starts
        response.close()
        return io.BytesIO()
    if response.status_code in (403, 404, 410):
        raise InputError(
            f"{url}: the server answers {response.status_code}; check crawl.source and the snapshot's name"
        )
    if response.status_code not in (200, 206):
        raise StoreError(f"{url}: the server answers {response.status_code} {response.reason}")
    skip = start if response.status_code == 200 else 0  # a server that ignores ranges sends everything
    while skip:
        skipped = len(body.read(min(skip, 1 << 20)))
        if not skipped:
            break
        skip -= skipped
    return body
