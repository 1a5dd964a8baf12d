"""The table of character classes for `pipelines.text.counting`, and texts as arrays of code points."""

import sys
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from pipelines.text import counting

# Thai to Tibetan, Burmese, Khmer, kana, Han with its extensions.
UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f"
)
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»„“”‘’‚‹›…–—¿¡、。，！？；：（）「」『』【】《》·"
BULLETS = "•‣▶◀◦■□▪▫–-*·●○"
# Characters that end a line of running text, with the quotation marks and brackets that may follow, in the scripts of
# the stop words.
LINE_ENDS = ".!?…\"'”’»)]。！？」』）؟۔।॥։።།"
STOPS, FULL_STOPS, AFTER_STOPS = ".!?", "。！？؟۔।", "\"”’')]"


@lru_cache(maxsize=1)
def classes() -> counting.Classes:
    """The class bits of every code point. Takes about 0.3 s and 2 MiB, once per worker."""
    points = "".join(map(chr, range(sys.maxunicode + 1)))
    table = np.zeros(len(points), np.uint16)

    def put(bit: int, holds: Iterable[bool]) -> None:
        table[np.fromiter(holds, bool, len(points))] |= bit

    put(counting.SPACE | counting.AFTER_STOP, map(str.isspace, points))
    put(counting.LETTER, map(str.isalpha, points))
    put(counting.UPPER, map(str.isupper, points))
    put(counting.DIGIT, map(str.isdigit, points))
    put(counting.WORD, (point.isalnum() or point == "_" for point in points))
    put(counting.MARK, (unicodedata.category(point)[0] == "M" for point in points))
    for first, last in zip(UNSPACED[::3], UNSPACED[2::3], strict=True):
        table[ord(first) : ord(last) + 1] |= counting.UNSPACED
    for bit, members in (
        (counting.TRIM, PUNCTUATION),
        (counting.BULLET, BULLETS),
        (counting.LINE_END, LINE_ENDS),
        (counting.STOP, STOPS),
        (counting.FULL_STOP, FULL_STOPS),
        (counting.AFTER_STOP, AFTER_STOPS),
    ):
        table[[ord(member) for member in members]] |= bit
    return table


def code_points(text: str) -> counting.Codes:
    """A text as an array of shape (characters,), lone surrogates included."""
    # A NUL is appended because numpy rejects an empty buffer.
    return np.frombuffer((text + "\0").encode("utf-32-le", "surrogatepass"), np.uint32)[:-1]
