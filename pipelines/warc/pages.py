"""Reads WARC and WET files record by record (see `pipelines.warc.record`) and continues behind any damage.

The content of a file never makes `read_pages` fail. It reports everything that does not become a page as a `Loss`.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from fastwarc.warc import ArchiveIterator, WarcRecord

from pipelines.warc.httpbody import decode_body
from pipelines.warc.rangefile import RangeFile
from pipelines.warc.record import Decode, Loss, Page, convert
from pipelines.warc.recordsearch import GZIP_MAGIC, PROBE, first_record, next_member
from pipelines.warc.recordstream import Inflated, Plain

LINE_FEEDS = re.compile(rb"WARC/\d\.\d+\n")


@dataclass
class Span:
    """A stretch of a file that is read on its own: the records, or the gzip members, that begin in [start, end).

    Reading sets `begun`, the offset of the first of them, and `ended`, the offset of the first one behind them (None at
    the end of the file). A search from the middle of a file can mistake bytes of a page for a record. Then `ended` of
    one span differs from `begun` of the next.
    """

    start: int = 0
    end: int | None = None
    begun: int | None = None
    ended: int | None = None


def read_pages(
    file: RangeFile, max_payload: int, span: Span | None = None, decode: Decode = decode_body
) -> Iterator[Page | Loss]:
    """Yield every page and every loss of a WARC or WET file, or of a span of it.

    max_payload: the largest payload in bytes, after decoding by `decode`. Raises InputError and StoreError of `file`.
    """
    span = span or Span()
    stream, quirks, refused = _open(file, span)
    if refused and not span.start:
        yield refused
    unsure: list[Loss] = []  # near the read limit: damage if a record follows, else only the limit's cut
    while stream is not None:
        position = end = 0  # of the record read last
        last: list[Page | Loss] = []  # results of the record read last, held until the next record proves it whole
        gaps = Gaps(quirks)
        failed: BaseException | None = None
        try:
            for record in ArchiveIterator(stream, parse_http=False, quirks_mode=quirks, stream_detect=False):
                yield from [*unsure, *last, *gaps.before(record)]
                unsure = []
                position = record.stream_pos
                offset, inner = stream.place(position)
                if span.end is not None and offset >= span.end and not inner:
                    span.ended = offset
                    return
                last, end = [], position + _least_size(record)
                if stream.bound(position, end, int(record.content_length)):
                    break
                last = list(convert(record, max_payload, offset, inner, decode))
        except BaseException as error:  # a panic in Rust code is not an Exception
            if not isinstance(error, OSError) and type(error).__name__ != "PanicException":
                raise
            failed = error
        # A last page counts if its gzip member ended intact. Other last results may come from a cut-off record.
        paged = any(isinstance(result, Page) for result in last)
        yield from last if (stream.whole(position) if paged else not (file.cut or stream.damage)) else ()
        damage = _damage(stream, file, position, failed)
        if damage is None:
            yield from () if file.cut else gaps.at_end(stream.tell())
            return
        if file.cut:
            unsure = [damage]
        else:
            yield damage
        stream = stream.after(position, end)


def _damage(stream: Inflated | Plain, file: RangeFile, position: int, failed: BaseException | None) -> Loss | None:
    """Why a stream ended before the file, or None if there is no damage. `failed` is the exception of the reader."""
    if failed is None:
        return Loss(stream.damage, f"near byte {file.tell():,}") if stream.damage else None
    kind = (stream.damage or "bad_warc_header") if isinstance(failed, OSError) else "reader_panic"
    return Loss(kind, f"after byte {stream.place(position)[0]:,}: {failed}")


def _least_size(record: WarcRecord) -> int:
    """The least bytes that a record can take up.

    The real size is larger if its head has extra white space, or characters of several bytes.
    """
    fields = sum(len(name) + len(value) + len(":\n") for name, value in record.headers.items())
    return len("WARC/1.0\n") + fields + len("\n") + int(record.content_length)


class Gaps:
    """Finds bad records in a file whose lines end in a bare line feed, by the gaps that they leave.

    FastWARC reads such files only in a mode that silently skips bad records.
    """

    # Bytes that a gap may have without a bad record: blank lines, and white space in the head of the record before.
    FIRST_SPARE, SPARE = 8, 64

    def __init__(self, watched: bool) -> None:
        self._watched = watched
        self._end, self._spare = 0, self.FIRST_SPARE

    def before(self, record: WarcRecord) -> list[Loss]:
        """The loss, if any, between the previous record and this one."""
        if not self._watched:
            return []
        losses = self.at_end(record.stream_pos)
        fields = sum(len(name.encode()) + len(value.encode()) + 3 for name, value in record.headers.items())
        self._end = record.stream_pos + len("WARC/1.0\n") + fields + 1 + record.content_length
        self._spare = self.SPARE
        return losses

    def at_end(self, position: int) -> list[Loss]:
        gap = position - self._end if self._watched else 0
        return [Loss("bad_warc_header", f"{gap:,} bytes before byte {position:,}")] if gap > self._spare else []


def _open(file: RangeFile, span: Span) -> tuple[Inflated | Plain | None, bool, Loss | None]:
    """Find the first record of a span, and set `span.begun`.

    Returns (a stream from that record on, or None if there is none; whether lines end in a bare line feed; why the file
    is refused, or None).
    """
    head = file.read_full(PROBE)
    zipped = head.startswith(GZIP_MAGIC)
    plain = _first_bytes(head) if zipped else head
    refused = _refuse(head, plain)
    if refused and (zipped or refused.kind != "not_warc"):
        return None, False, refused
    if refused and not zipped:  # it may be a WARC file whose first bytes are damaged
        zipped, plain = _look_behind(file)
    if not (refused or span.start):
        span.begun = 0
    else:
        span.begun = (next_member if zipped else first_record)(file, max(span.start, 1), span.end)
    if span.begun is None:
        return None, False, refused
    stream = Inflated(file, span.begun) if zipped else Plain(file, span.begun)
    return stream, bool(LINE_FEEDS.match(plain or b"")), refused


def _look_behind(file: RangeFile) -> tuple[bool, bytes | None]:
    """Find the first record behind a file's damaged start. Does not depend on the span.

    Returns (whether the record is in a gzip member, its first bytes or None).
    """
    member = next_member(file, 1)
    offset = first_record(file, 1, None) if member is None else member
    if offset is None:
        return False, None
    file.seek(offset)
    head = file.read_full(PROBE)
    return (False, head) if member is None else (True, _first_bytes(head))


def _first_bytes(head: bytes) -> bytes | None:
    """The inflated head of a gzip file, or None if it does not inflate.

    A flipped bit can also turn the whole head into a header field of gzip, so that no data comes out.
    """
    engine = zlib.decompressobj(31)
    try:
        return engine.decompress(head, 512) or (b"" if engine.eof else None)
    except zlib.error:
        return None


def _refuse(head: bytes, plain: bytes | None) -> Loss | None:
    if not head:
        return Loss("empty_file")
    if plain is not None and plain.lstrip().startswith(b"filedesc://"):
        return Loss("arc_refused", "an ARC file; convert it to WARC first")
    if plain is not None and not plain.lstrip().startswith(b"WARC/"):
        return Loss("not_warc", f"starts with {plain[:16]!r}")
    return None
