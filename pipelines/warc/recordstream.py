"""A crawl file, plain or of gzip members, as a stream of records that ends at damage and can be taken up again behind it."""

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
FIRST_PIECE = 1 << 12  # bytes of a member inflated at once, twice as many each time: what is left of them is copied
WRONG_LENGTH = "wrong_length"
LINE_BEFORE = b"\nWARC/"
HEAD_BYTES = 4 << 10  # of a record's head: a longer one is taken at its word
READ_AHEAD = 4 << 20  # bytes that readers hold at most before they say which record they are of
HEAD_END = re.compile(rb"\r?\n\r?\n")
RECORD_END = re.compile(rb"(?:\r?\n){2}|[\r\n]*(?:WARC/\d|\Z)")
PADDING = re.compile(rb"\0*+")


class Plain(io.RawIOBase):
    """An uncompressed crawl file, read as a stream from one offset on. It ends at a record whose length is wrong; `after` finds the next one.

    A length is wrong where it takes in lines that look like a record's first and does not end as a record does. A page may well hold a
    crawl file, so such lines alone prove nothing; they are what makes one look at the record's end worth its price.
    """

    def __init__(self, file: RangeFile, start: int) -> None:
        super().__init__()
        self._file, self._start = file, start
        file.seek(start)
        self._step = FIRST_READ
        self._window, self._at, self._ready = b"", 0, 0  # read and searched; from _at up to _ready it can be handed out
        self._position = 0
        self._heads = array("q")  # first bytes of records that are read and not yet told of
        self._bodies = array("q")  # where their heads end, 0 for unknown
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
        """True: no checksum tells of an uncompressed file's damage."""
        return True

    def bound(self, position: int, end: int, length: int) -> bool:
        """Tell the stream where a record begins, where it ends at the earliest, and its length. True where what is read shows the length wrong."""
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
        """The stream from the first record behind the one that takes up [position, end) on; None where there is none."""
        found = self._resume
        if found is None:
            found = first_record(self._file, self._start + max(1, min(end, self.tell())), None)
        return None if found is None else Plain(self._file, found)

    def _fill(self) -> bool:
        """Read on; False at the end, and where the length of the record that is being read proves wrong.

        The last HEAD_BYTES bytes wait for those behind them, so that a head is known before its first byte is handed out.
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
        """Where in the window lines stand that look like a record's first, of those that can be handed out or follow on them."""
        if not self._position and RECORD_HEAD.match(b"\n" + self._window[:HEAD_BYTES]):
            yield 0
        at = self._window.find(LINE_BEFORE, 0, self._ready + len(LINE_BEFORE) - 1)
        while 0 <= at < self._ready:
            if RECORD_HEAD.match(self._window, at):
                yield at + 1
            at = self._window.find(LINE_BEFORE, at + 1)

    def _body(self, at: int) -> int:
        """Where the head that begins in the window ends, as a position in the stream; 0 where another begins first."""
        other = self._window.find(LINE_BEFORE, at, at + HEAD_BYTES)
        blank = HEAD_END.search(self._window, at, at + HEAD_BYTES if other < 0 else other + 1)
        return self._position + blank.end() if blank else 0

    def _breaks(self, head: int) -> bool:
        """Whether a head within the record that is being read is the next record's: the record itself does not end where it says."""
        position, end = self._bounds
        if not position < head < end:
            return False
        tail = self._file.peek(self._start + end - 1, 1 + LEAD)
        if tail and RECORD_END.match(tail, 1):
            self._bounds = (end, end)  # what it holds is its own
            return False
        self.damage, self._resume = WRONG_LENGTH, self._start + head
        return True


class Inflated(io.RawIOBase):
    """A crawl file of gzip members as one stream. It ends at damage, and `after` goes on behind it.

    A record whose length takes in a member that begins with a record is damage too: the length is wrong.
    """

    def __init__(self, file: RangeFile, start: int) -> None:
        super().__init__()
        self._file = file
        file.seek(start)
        self._raw, self._at = b"", 0  # read; inflated up to _at
        self._raw_end = start
        self._read_step, self._piece = FIRST_READ, FIRST_PIECE
        self._inflate: Any = None
        self._position = 0
        self._plain_starts, self._raw_starts = array("q", [0]), array("q", [start])
        self._lead: bytes | None = None  # of a member, until they tell whether it begins with a record
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
        """Whether the gzip member of a position ended with the right checksum. Reads on to its end, where that is not read yet."""
        members = bisect.bisect_right(self._plain_starts, position)
        rest = bytearray(BUFFER)
        while members == len(self._plain_starts) and self._inflate is not None and self.readinto(rest):
            pass
        return members < len(self._plain_starts) or self._inflate is None

    def bound(self, position: int, end: int, length: int) -> bool:
        """Tell the stream where a record begins and where it ends at the earliest.

        True where a gzip member within it, read already, begins with another record: then its length is wrong. A member that is read
        later ends the stream.
        """
        self._bounds = (position, end)
        index = bisect.bisect_right(self._record_starts, position)
        return index < len(self._record_starts) and self._breaks(self._record_starts[index])

    def after(self, position: int, end: int) -> "Inflated | None":
        """The stream from the first intact member on behind the damage or, without damage, behind a position's member."""
        if self._resume is not None:
            return Inflated(self._file, self._resume)
        broken = self._raw_starts[-1] if self.damage else self.place(position)[0]
        found = next_member(self._file, broken + 1)
        return None if found is None else Inflated(self._file, found)

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
            self._at = PADDING.match(self._raw, self._at).end()  # type: ignore[union-attr]  # which always matches
            return False
        # Nobody asks for the place of a member that holds nothing, or that begins within the record that is being read.
        last = self._plain_starts[-1]
        if last == self._position or self._bounds[0] < last < self._bounds[1]:
            del self._plain_starts[-1], self._raw_starts[-1]
        self._plain_starts.append(self._position)
        self._raw_starts.append(self._raw_end - len(self._raw) + self._at)
        self._inflate, self._piece = zlib.decompressobj(31), FIRST_PIECE
        self._lead = b""
        return True

    def _starts_within_a_record(self, data: bytes) -> bool:
        """Look at the first bytes of a member; whether they are a record's and stand within the record that is being read."""
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
