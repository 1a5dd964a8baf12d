"""Reads a crawl file from any offset on: a local path, an object in a store, or a URL by range requests."""

import io
import random
import re
import time
from contextlib import ExitStack
from typing import Any, Protocol

import requests
import urllib3

from contract import fetch
from contract.errors import InputError, StoreError
from contract.store import split_uri

LONGEST_WAIT_S = 60.0
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
REMOTE = ("http://", "https://", "s3://")
FIRST_STEP, LONGEST_STEP = 1 << 20, 64 << 20  # bytes per request when only a stretch of a file is read
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Body(Protocol):
    """A stream of bytes from one position on."""

    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class RangeFile(io.RawIOBase):
    """Reads `uri` up to `limit` bytes. A seek reopens it at the new offset. Retries resume a broken download.

    stepwise: for reading only a stretch of a file. Each request then names its end: 1 MiB after a seek, doubled with
    each further request. connections: the most downloads from one host that are open at a time on this machine (see
    `contract.fetch.connection`). Raises InputError if the file does not exist, StoreError if `retries` retries fail.
    """

    def __init__(
        self, uri: str, limit: int | None = None, retries: int = 8, stepwise: bool = False, connections: int = 8
    ) -> None:
        super().__init__()
        self.uri, self._limit, self._retries = uri, limit, retries
        self._stepwise, self._connections = stepwise, connections
        self._step = FIRST_STEP
        self._position = 0
        self._body: Body | None = None
        self._held = ExitStack()
        self.cut = False
        """Whether reading has stopped at `limit`, and not at the end of the file, since the last seek."""

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
        self._step = FIRST_STEP
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
        """Read exactly `size` bytes; fewer only at the end."""
        parts: list[bytes] = []
        while size and (part := self.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def peek(self, offset: int, size: int) -> bytes:
        """Read `size` bytes from any offset, even behind the limit, without moving the position.

        Returns fewer bytes only at the end of the file.
        """
        position, cut, limit = self._position, self.cut, self._limit
        self.seek(offset)
        self._limit = offset + size
        try:
            return self.read_full(size)
        finally:
            self.seek(position)
            self.cut, self._limit = cut, limit

    def close(self) -> None:
        self._shut()
        super().close()

    def _shut(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
        self._held.close()

    def _read(self, size: int) -> bytes:
        attempt = 0
        while True:
            try:
                if self._body is None:
                    self._body = self._open()
                data = self._body.read(size)
                if data or not isinstance(self._body, _UrlBody) or not self._body.more:
                    return data
                self._shut()  # the response has ended before the file: request the next range
            except FileNotFoundError:
                raise InputError(f"{self.uri}: no such file; it was there when the run was resolved") from None
            except BROKEN as error:
                self._shut()
                if not self.uri.startswith(REMOTE) or attempt == self._retries:
                    raise StoreError(
                        f"{self.uri}: broke off at byte {self._position:,}: {fetch.root(error)}"
                    ) from error
                fetch.warn(
                    f"{self.uri}: broke off at byte {self._position:,}: {fetch.root(error)}; "
                    f"retry {attempt + 1} of {self._retries}"
                )
                time.sleep(random.uniform(0, min(LONGEST_WAIT_S, 0.5 * 2**attempt)))  # noqa: S311
                attempt += 1
            except BaseException:
                self._shut()
                raise

    def _open(self) -> Body:
        if self.uri.startswith(REMOTE):
            self._held.enter_context(fetch.connection(self.uri, self._connections))
        if self.uri.startswith(("http://", "https://")):
            end = self._limit
            if self._stepwise:
                end = min(self._position + self._step, end if end is not None else 1 << 62)
                self._step = min(self._step * 2, LONGEST_STEP)
            return _open_url(self.uri, self._position, end, self._retries)
        store, name = split_uri(self.uri)
        opened = store.open_input(name)
        opened.seek(min(self._position, opened.size()))
        return opened  # type: ignore[no-any-return]


class _UrlBody:
    """The raw body of a response. Closing it closes the connection. Raises OSError if the response ends too early.

    start: the offset in the file at which the body begins. asked: the end of the requested range, if any.
    """

    def __init__(self, response: requests.Response, start: int, asked: int | None) -> None:
        self._response = response
        length = fetch.number(response.headers.get("Content-Length", ""))
        ranged = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        self.position = start
        self._end = int(ranged[2]) + 1 if ranged else None if length is None else start + length
        whole = int(ranged[3]) if ranged and ranged[3] != "*" else self._end if response.status_code == 200 else None
        self._behind = self._end is not None and (self._end < whole if whole is not None else self._end == asked)

    @property
    def more(self) -> bool:
        """Whether the body was read to its end and the file continues behind it, according to the headers."""
        return self._behind and self.position == self._end

    def read(self, size: int, /) -> bytes:
        data = bytes(self._response.raw.read(size, decode_content=False))
        self.position += len(data)
        if not data and size and self._end is not None and self.position < self._end:
            raise OSError(f"the answer ended {self._end - self.position:,} bytes early")
        return data

    def close(self) -> None:
        self._response.close()


def _open_url(url: str, start: int, end: int | None, retries: int) -> Body:
    # Without `identity`, some servers compress the response, and ranges count compressed bytes.
    headers = {"Accept-Encoding": "identity"}
    if start or end is not None:
        headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    try:
        response = fetch.session(retries).get(url, headers=headers, stream=True, timeout=fetch.TIMEOUT_S)
    except requests.RequestException as error:  # the session has retried already; do not retry again
        raise StoreError(
            f"{url}: cannot be reached after {retries} retries; check the network ({fetch.root(error)})"
        ) from error
    if response.status_code == 416:  # the file ends where the range starts
        response.close()
        return io.BytesIO()
    try:
        if response.status_code in (403, 404, 410):
            raise InputError(
                f"{url}: the server answers {response.status_code}; check crawl.source and the crawl's name"
            )
        if response.status_code not in (200, 206):
            raise StoreError(f"{url}: the server answers {response.status_code} {response.reason}")
        return _at(response, start, end)
    except BaseException:
        response.close()
        raise


def _at(response: requests.Response, start: int, end: int | None) -> Body:
    """The body of a response, advanced to `start`.

    A server without range support sends the whole file, and some servers send another range than the requested one.
    Raises OSError if the response begins behind `start`.
    """
    ranged = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    begins = 0 if response.status_code == 200 else int(ranged[1]) if ranged else start
    if begins > start:
        raise OSError(f"the server was asked for byte {start:,} and sends from byte {begins:,} on")
    body = _UrlBody(response, begins, end)
    while body.position < start and body.read(min(start - body.position, 1 << 20)):
        pass
    return body
