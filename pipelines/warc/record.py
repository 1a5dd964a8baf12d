"""Converts a WARC or WET record to the page that it contains, or to the reason why it contains none."""

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastwarc.warc import WarcRecord

from pipelines.warc.httpbody import HTML_TYPES, OPAQUE_TYPES, TooLarge, Undecodable, decode_body, is_html
from pipelines.warc.recordstream import BUFFER

Decode = Callable[[bytes, str, str, int], tuple[bytes, bool]]
"""`httpbody.decode_body`, or a function with the same arguments and results."""

MAX_URL = 8192
"""Characters; servers refuse longer URLs. Bounds the URL filter, which looks up every part up to a dot or slash."""


@dataclass(frozen=True)
class Page:
    """One captured page.

    offset: of the record's gzip member in the file, or of the record if the file is not compressed. inner: the record's
    distance from the start of its gzip member, in inflated bytes; 0 in a file compressed per record.
    """

    url: str
    date: datetime.datetime | None
    offset: int
    inner: int
    kind: str
    charset: str | None
    payload: bytes
    too_large: int = 0
    """The size in bytes of a payload that was not read because it exceeds the limit, else 0."""


@dataclass(frozen=True)
class Loss:
    """Something in the file that did not become a page: a record of another type, or damage."""

    kind: str
    detail: str = ""


def convert(
    record: WarcRecord, max_payload: int, offset: int, inner: int, decode: Decode = decode_body
) -> Iterator[Page | Loss]:
    """Yield the page of a record and a Loss if its end is missing, or only the Loss that explains why there is no page.

    Reads the record to its end. offset, inner: the place of the record (see `Page`). max_payload: in bytes, after
    decoding.
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
    elif not record.is_http and not url.lower().startswith(("http://", "https://")):  # for example dns:
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
    """The capture's time in UTC; None if missing or, in UTC, outside the years 1 to 9999."""
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
        # A body of unknown type that is too large to inspect does not count as a page.
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
    """Yield a Loss if the end of a page is missing, according to the body (`known`) or to the crawler's header."""
    if known or record.headers.get("WARC-Truncated"):
        yield Loss("truncated_body", url)
