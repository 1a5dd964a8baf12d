"""What readers of rows and texts agree on: how long a line may be, which text can be used, and why a row cannot."""

import io
import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from contract.schema import Drop

MAX_LINE_BYTES = 16 << 20
"""A longer line is skipped: the longest chats have a few megabytes, and a worker holds a whole line in memory."""
MAX_MARKS = 1000
LAST_MARK = 0x1FFFF  # no combining mark stands above: planes 2 and up hold ideographs, tags and private characters


class Unusable(ValueError):
    """A row that cannot be used: why, and what of it is wrong."""

    def __init__(self, reason: Drop, value: str = "") -> None:
        super().__init__(f"{reason.value.replace('_', ' ')}{': ' if value else ''}{value}")
        self.reason, self.value = reason, value


def lines_of(stream: io.BufferedReader) -> Iterator[bytes | Unusable]:
    """Yield each line; for one of more than MAX_LINE_BYTES, which is never held whole, an Unusable."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        size = len(line)
        if size <= MAX_LINE_BYTES:
            yield line
            continue
        while not line.endswith(b"\n") and (line := stream.readline(MAX_LINE_BYTES)):
            size += len(line)
        yield Unusable(Drop.ROW_TOO_LONG, f"{size:,} bytes")


def clean(text: str) -> str:
    """A text in Unicode's form NFC, as the corpus's texts are, with plain line ends and no white space around it.

    Raises Unusable for a lone surrogate, which is no character and cannot be stored, and for a run of more than
    MAX_MARKS combining marks, which no language has: the time to normalise a run grows with its square.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable(Drop.BROKEN_TEXT, f"lone surrogate at character {error.start}") from None
    if not text.isascii() and _many_marks(text):
        raise Unusable(Drop.BROKEN_TEXT, f"more than {MAX_MARKS:,} combining marks in a row")
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _many_marks(text: str) -> bool:
    """Whether more than MAX_MARKS marks stand in a row: such a run covers a place that is a multiple of it."""
    for place in range(0, len(text), MAX_MARKS):
        if _marks().match(text, place):
            around = text[max(0, place - MAX_MARKS) : place + MAX_MARKS + 1]
            if any(run.end() - run.start() > MAX_MARKS for run in _marks().finditer(around)):
                return True
    return False


@cache
def _marks() -> re.Pattern[str]:
    """Finds runs of the characters that normalisation sorts: combining marks, and what decomposes into nothing else."""
    starts = ((chr(code), unicodedata.normalize("NFD", chr(code))[0]) for code in range(0x300, LAST_MARK + 1))
    return re.compile(f"[{''.join(character for character, first in starts if unicodedata.combining(first))}]+")
