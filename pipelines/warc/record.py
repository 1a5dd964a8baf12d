"""One WARC or WET record: the page that it holds, or why it holds none."""

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastwarc.warc import WarcRecord

from pipelines.warc.httpbody import HTML_TYPES, OPAQUE_TYPES, TooLarge, Undecodable, decode_body, is_html
from pipelines.warc.recordstream import BUFFER

Decode = Callable[[bytes, str, str, int], tuple[bytes, bool]]
"""`httpbody.decode_body`, or one that does as it does."""

MAX_URL = 8192
"""Characters; servers refuse longer ones. What judges a URL looks up each of its parts that ends at a dot or a slash."""


@dataclass(frozen=True)
class Page:
    """One captured page. `inner` is the record's distance from the start of its gzip member, 0 in a file compressed per record."""

    url: str
    date: datetime.datetime | None
    offset: int
    inner: int
    kind: str
    charset: str | None
    payload: bytes
    too_large: int = 0
    """The size of a payload that was not read because it is above the limit."""


@dataclass(frozen=True)
class Loss:
    """Something in the file that is no page: a record of another type, or damage."""

    kind: str
    detail: str = ""


def convert(
    record: WarcRecord, max_payload: int, offset: int, inner: int, decode: Decode = decode_body
) -> Iterator[Page | Loss]:
    """The page that a record holds, or the reason that it holds none, and what the page lacks. Reads the record to its end.

    `offset` and `inner` say where it stands (see `Page`); `max_payload` is in bytes, after decoding.
    """
    kind = str(record.record_type)
    if kind not in ("response", "conversion"):
        yield from _skip(record, f"record_{kind}")
        return
    url = (record.headers.get("WARC-Target-URI") or "").strip().strip("<>").strip()
    if not url:
        yield from _skip(record, "no_url")
        return
    if len(url) > MAX_URL:
        yield from _skip(record, "long_url")
        return
    if kind == "conversion":
        yield from _conversion(record, url, max_payload, offset, inner)
    elif not record.is_http and not url.lower().startswith(("http://", "https://")):  # dns: and the like
        yield from _skip(record, "not_http")
    else:
        yield from _response(record, url, max_payload, offset, inner, decode)


def _skip(record: WarcRecord, kind: str) -> Iterator[Loss]:
    declared = record.content_length
    short = record.reader is not None and _consume(record) < declared
    yield Loss("truncated_record" if short else kind)


def _consume(record: WarcRecord) -> int:
    size = 0
    while data := record.reader.read(BUFFER):
        size += len(data)
    return size


def _date(record: WarcRecord) -> datetime.datetime | None:
    """The capture's time in UTC; None for one that leaves the calendar there (year 1 east of Greenwich, year 9999 west of it)."""
    try:
        date: datetime.datetime | None = record.record_date
        return date and date.astimezone(datetime.UTC)
    except (OverflowError, ValueError):
        return None


def _conversion(record: WarcRecord, url: str, max_payload: int, offset: int, inner: int) -> Iterator[Page | Loss]:
    size = record.content_length
    date = _date(record)
    if size > max_payload:
        whole = _consume(record) == size
        yield Page(url, date, offset, inner, "text", "utf-8", b"", size) if whole else Loss("truncated_record")
        return
    body = record.reader.read()
    if len(body) < size:
        yield Loss("truncated_record")
        return
    yield Page(url, date, offset, inner, "text", "utf-8", body)
    yield from _cut(record, url)


def _response(
    record: WarcRecord, url: str, max_payload: int, offset: int, inner: int, decode: Decode
) -> Iterator[Page | Loss]:
    date = _date(record)
    size = record.content_length
    try:
        record.parse_http(quirks_mode=True)
        headers = record.http_headers
        status = headers.status_code if headers is not None else None
    except OSError:
        status = None
    if status is None:
        yield from _skip(record, "bad_http_header")
        return
    if status != 200:
        yield from _skip(record, f"status_{status}")
        return
    mime = (record.http_content_type or "").strip().lower()
    if mime not in HTML_TYPES and mime not in OPAQUE_TYPES:
        yield from _skip(record, "not_html")
        return
    size = record.content_length
    if size > max_payload:
        if _consume(record) < size:
            yield Loss("truncated_record")
            return
        # A body of unknown type that is too large to look into is not called a page.
        yield Page(url, date, offset, inner, "html", None, b"", size) if mime in HTML_TYPES else Loss("not_html")
        return
    body = record.reader.read()
    if len(body) < size:
        yield Loss("truncated_record")
        return
    try:
        body, cut = decode(
            body, headers.get("Transfer-Encoding") or "", headers.get("Content-Encoding") or "", max_payload
        )
    except TooLarge:
        yield Page(url, date, offset, inner, "html", None, b"", max_payload + 1)
        return
    except Undecodable as error:
        yield Loss("bad_content_encoding", f"{url}: {error}")
        return
    if not is_html(mime, body):
        yield Loss("not_html")
        return
    yield Page(url, date, offset, inner, "html", record.http_charset, body)
    yield from _cut(record, url, cut)


def _cut(record: WarcRecord, url: str, known: bool = False) -> Iterator[Loss]:
    """That a page lacks its end, if the body shows it or the crawler wrote it down."""
    if known or record.headers.get("WARC-Truncated"):
        yield Loss("truncated_body", url)
