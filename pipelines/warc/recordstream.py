"""Streams over crawl files, uncompressed or of gzip members, that end at damage and can continue behind it."""

import bisect
import io
import re
import zlib
from array import array
from collections.abc import Iterator
from typing import Any

from pipelines.warc.rangefile import RangeFile
from pipelines.warc.recordsearch import FIRST_READ, LEAD, RECORD_HEAD, RECORD_START, first_record, next_member

BUFFER = 1 << 18
FIRST_PIECE = 1 << 12  # bytes of a member inflated at once, doubled each time: zlib copies the bytes it does not use
WRONG_LENGTH = "wrong_length"
LINE_BEFORE = b"\nWARC/"
HEAD_BYTES = 4 << 10  # the longest record head whose declared length is checked
READ_AHEAD = 4 << 20  # the most bytes that a reader buffers before it reports their record with `bound`
HEAD_END = re.compile(rb"\r?\n\r?\n")
RECORD_END = re.compile(rb"(?:\r?\n){2}|[\r\n]*(?:WARC/\d|\Z)")
PADDING = re.compile(rb"\0*+")


class Plain(io.RawIOBase):
    """An uncompressed crawl file as a stream from an offset on. Ends at a record with a wrong length; see `after`.

    A declared length is wrong if the record contains lines that look like the start of a record, and the bytes at its
    declared end do not look like the end of a record. Such lines alone prove nothing, because a page can contain a
    crawl file. But they are rare, so only they trigger the costly look at the declared end.
    """

    def __init__(self, file: RangeFile, start: int) -> None:
        super().__init__()
        self._file, self._start = file, start
        file.seek(start)
        self._step = FIRST_READ
        self._window, self._at, self._ready = b"", 0, 0  # bytes read and searched; [_at, _ready) can be handed out
        self._position = 0
        self._heads = array("q")  # starts of possible record heads that were read but not yet reported with `bound`
        self._bodies = array("q")  # ends of these heads, 0 if unknown
        self._bounds = (0, 0)
        self._resume: int | None = None
        self.damage: str | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.damage or (self._at == self._ready and not self._fill()):
            return 0
        size = min(len(buffer), self._ready - self._at)
        buffer[:size] = self._window[self._at : self._at + size]
        self._at += size
        self._position += size
        return size

    def tell(self) -> int:
        return self._position

    def place(self, position: int) -> tuple[int, int]:
        """A position in the stream as (offset in the file, 0)."""
        return self._start + position, 0

    def whole(self, position: int) -> bool:
        """Always True: an uncompressed file has no checksums."""
        return True

    def bound(self, position: int, end: int, length: int) -> bool:
        """Report a record: its position, its earliest possible end, and its declared length.

        Returns True if the bytes read so far show that the length is wrong.
        """
        index = bisect.bisect_right(self._heads, position)
        known = index and self._heads[index - 1] == position and self._bodies[index - 1]
        self._bounds = (position, known + length) if known else (position, 0)
        del self._heads[:index], self._bodies[:index]
        if self._heads and self._breaks(self._heads[0]):
            return True
        within = bisect.bisect_left(self._heads, self._bounds[1])
        del self._heads[:within], self._bodies[:within]
        return False

    def after(self, position: int, end: int) -> "Plain | None":
        """A stream from the first record behind the one at [position, end); None if no record follows."""
        offset = self._resume
        if offset is None:
            offset = first_record(self._file, self._start + max(1, min(end, self.tell())), None)
        return None if offset is None else Plain(self._file, offset)

    def _fill(self) -> bool:
        """Read on. Returns False at the end of the file, or if the length of the current record proves wrong.

        Holds back the last HEAD_BYTES bytes until more are read, so that a whole head is seen before its first byte is
        handed out.
        """
        passed = bisect.bisect_left(self._heads, self._position - READ_AHEAD)
        del self._heads[:passed], self._bodies[:passed]
        self._window, self._at = self._window[self._at :], 0
        while len(self._window) <= HEAD_BYTES and (data := self._file.read(self._step)):
            self._window += data
            self._step = min(2 * self._step, BUFFER)
        self._ready = len(self._window) - HEAD_BYTES if len(self._window) > HEAD_BYTES else len(self._window)
        for at in self._heads_within():
            head = self._position + at
            if head >= self._bounds[1]:
                self._heads.append(head)
                self._bodies.append(self._body(at))
            elif self._breaks(head):
                return False
        return self._ready > 0

    def _heads_within(self) -> Iterator[int]:
        """Indexes in the window, below _ready or right there, of lines that look like the start of a record."""
        if not self._position and RECORD_HEAD.match(b"\n" + self._window[:HEAD_BYTES]):
            yield 0
        at = self._window.find(LINE_BEFORE, 0, self._ready + len(LINE_BEFORE) - 1)
        while 0 <= at < self._ready:
            if RECORD_HEAD.match(self._window, at):
                yield at + 1
            at = self._window.find(LINE_BEFORE, at + 1)

    def _body(self, at: int) -> int:
        """The position in the stream where the head at index `at` ends; 0 if another head begins before its end."""
        other = self._window.find(LINE_BEFORE, at, at + HEAD_BYTES)
        blank = HEAD_END.search(self._window, at, at + HEAD_BYTES if other < 0 else other + 1)
        return self._position + blank.end() if blank else 0

    def _breaks(self, head: int) -> bool:
        """Whether a head inside the current record belongs to the next one: no record ends at the declared end."""
        position, end = self._bounds
        if not position < head < end:
            return False
        tail = self._file.peek(self._start + end - 1, 1 + LEAD)
        if tail and RECORD_END.match(tail, 1):
            self._bounds = (end, end)  # the length is right: the heads inside are content
            return False
        self.damage, self._resume = WRONG_LENGTH, self._start + head
        return True


class Inflated(io.RawIOBase):
    """A crawl file of gzip members as one stream. Ends at damage; `after` continues behind it.

    A record whose declared length includes a gzip member that begins with a record has a wrong length; this is damage,
    too.
    """

    def __init__(self, file: RangeFile, start: int) -> None:
        super().__init__()
        self._file = file
        file.seek(start)
        self._raw, self._at = b"", 0  # compressed bytes, inflated up to _at
        self._raw_end = start
        self._read_step, self._piece = FIRST_READ, FIRST_PIECE
        self._inflate: Any = None
        self._position = 0
        self._plain_starts, self._raw_starts = array("q", [0]), array("q", [start])
        self._lead: bytes | None = None  # first bytes of a member, until they show whether it begins with a record
        self._record_starts = array("q")
        self._bounds = (0, 0)
        self._resume: int | None = None
        self.damage: str | None = None

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def place(self, position: int) -> tuple[int, int]:
        """A position in the stream as (offset of its gzip member in the file, distance from that member's start)."""
        index = bisect.bisect_right(self._plain_starts, position) - 1
        return self._raw_starts[index], position - self._plain_starts[index]

    def whole(self, position: int) -> bool:
        """Whether the gzip member at a position ended with the right checksum. Reads on to the end of the member."""
        members = bisect.bisect_right(self._plain_starts, position)
        rest = bytearray(BUFFER)
        while members == len(self._plain_starts) and self._inflate is not None and self.readinto(rest):
            pass
        return members < len(self._plain_starts) or self._inflate is None

    def bound(self, position: int, end: int, length: int) -> bool:
        """Report a record: its position and its earliest possible end.

        Returns True if a gzip member inside it that was already read begins with another record: then its length is
        wrong. If such a member is read later, the stream ends there.
        """
        self._bounds = (position, end)
        index = bisect.bisect_right(self._record_starts, position)
        return index < len(self._record_starts) and self._breaks(self._record_starts[index])

    def after(self, position: int, end: int) -> "Inflated | None":
        """A stream from the first intact member behind the damage, or without damage behind the member at `position`.

        None if no member follows.
        """
        if self._resume is not None:
            return Inflated(self._file, self._resume)
        broken = self._raw_starts[-1] if self.damage else self.place(position)[0]
        offset = next_member(self._file, broken + 1)
        return None if offset is None else Inflated(self._file, offset)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        while not self.damage:
            if self._at == len(self._raw):
                self._raw, self._at = self._file.read(self._read_step) or b"", 0
                self._raw_end += len(self._raw)
                self._read_step = min(2 * self._read_step, BUFFER)
                if not self._raw:
                    if self._inflate is not None and not self._file.cut:
                        self.damage = "truncated_gzip"
                    return 0
            if self._inflate is None and not self._open_member():
                continue
            data = self._some(len(view))
            if self._lead is not None and self._starts_within_a_record(data):
                return 0
            if data:
                view[: len(data)] = data
                self._position += len(data)
                return len(data)
        return 0

    def _open_member(self) -> bool:
        if self._raw[self._at] == 0:  # padding, which gzip allows between members and at the end
            self._at = PADDING.match(self._raw, self._at).end()  # type: ignore[union-attr]  # always matches
            return False
        # `place` is never asked about an empty member, nor about one that begins inside the current record.
        last = self._plain_starts[-1]
        if last == self._position or self._bounds[0] < last < self._bounds[1]:
            del self._plain_starts[-1], self._raw_starts[-1]
        self._plain_starts.append(self._position)
        self._raw_starts.append(self._raw_end - len(self._raw) + self._at)
        self._inflate, self._piece = zlib.decompressobj(31), FIRST_PIECE
        self._lead = b""
        return True

    def _starts_within_a_record(self, data: bytes) -> bool:
        """Inspect the first bytes of a member. Returns whether they start a record inside the current record."""
        assert self._lead is not None
        self._lead += data[: LEAD - len(self._lead)]
        start = self._plain_starts[-1]
        if RECORD_START.match(self._lead):
            self._record_starts.append(start)
        elif len(self._lead) < LEAD:
            return False
        self._lead = None
        return bool(self._record_starts) and self._record_starts[-1] == start and self._breaks(start)

    def _breaks(self, start: int) -> bool:
        if not self._bounds[0] < start < self._bounds[1]:
            return False
        self.damage, self._resume = WRONG_LENGTH, self.place(start)[0]
        return True

    def _some(self, size: int) -> bytes:
        piece = self._raw[self._at : self._at + self._piece]
        try:
            data: bytes = self._inflate.decompress(piece, size)
        except zlib.error:
            self.damage = "corrupt_gzip"
            return b""
        left = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        self._at += len(piece) - len(left)
        self._piece = min(2 * self._piece, BUFFER)
        if self._inflate.eof:
            self._inflate = None
        return data
