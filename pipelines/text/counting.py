"""Compiled counting of a text's words, lines, paragraphs and sentences, in time linear in its code points.

A part of a text is a span [start, end) of code points; equal parts have equal 64-bit keys. The first process that calls
the kernels compiles them for about three seconds; later processes load them from the cache.
"""

import numpy as np
import numpy.typing as npt

from pipelines.text.kernels import kernel
from pipelines.text.mixing import START, mix64, take

Codes = npt.NDArray[np.uint32]
Classes = npt.NDArray[np.uint16]
Places = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

# Character classes: the bits of an entry in `characters.classes()`.
SPACE, LETTER, MARK, UPPER, DIGIT, WORD, UNSPACED = 1, 2, 4, 8, 16, 32, 64
TRIM, BULLET, LINE_END, STOP, FULL_STOP, AFTER_STOP = 128, 256, 512, 1024, 2048, 4096
NEWLINE, DOT, ELLIPSIS, HASH, CAPITAL_I = 0x0A, 0x2E, 0x2026, 0x23, 0x49
ABBREVIATION = 16  # the most letters and dots that an abbreviation can have


@kernel
def _next_word(codes: Codes, classes: Classes, at: int, stop: int) -> tuple[int, int]:
    """(start, end) of the first word in codes[at:stop]; start is `stop` if there is no word."""
    while at < stop and classes[codes[at]] & SPACE:
        at += 1
    start = at
    if at < stop and classes[codes[at]] & UNSPACED:
        at += 1
        while at < stop and not classes[codes[at]] & (SPACE | WORD | UNSPACED):
            at += 1
    else:
        while at < stop and not classes[codes[at]] & (SPACE | UNSPACED):
            at += 1
    return start, at


@kernel
def words(codes: Codes, classes: Classes) -> tuple[Places, Places]:
    """(starts, ends) of the words."""
    starts, ends = np.empty(len(codes), np.int64), np.empty(len(codes), np.int64)
    count, at = 0, 0
    while True:
        start, at = _next_word(codes, classes, at, len(codes))
        if start == len(codes):
            return starts[:count], ends[:count]
        starts[count], ends[count] = start, at
        count += 1


@kernel
def trimmed(codes: Codes, classes: Classes, starts: Places, ends: Places) -> tuple[Places, Places]:
    """Strip surrounding punctuation from spans. Spans of punctuation only become empty. Returns (starts, ends)."""
    firsts, lasts = starts.copy(), ends.copy()
    for index in range(len(starts)):
        first, last = starts[index], ends[index]
        while first < last and classes[codes[first]] & TRIM:
            first += 1
        while last > first and classes[codes[last - 1]] & TRIM:
            last -= 1
        firsts[index], lasts[index] = first, last
    return firsts, lasts


@kernel
def lines_and_paragraphs(codes: Codes, classes: Classes) -> tuple[Places, Places, Places, Places]:
    """(starts, ends) of non-blank lines and (starts, ends) of paragraphs, all without surrounding white space."""
    size = len(codes) // 2 + 1
    starts, ends, firsts, lasts = np.empty((4, size), np.int64)
    lines = paragraphs = at = 0
    blank = True
    while at <= len(codes):
        stop = at
        while stop < len(codes) and codes[stop] != NEWLINE:
            stop += 1
        start, end = at, stop
        while start < end and classes[codes[start]] & SPACE:
            start += 1
        while end > start and classes[codes[end - 1]] & SPACE:
            end -= 1
        if start < end:
            starts[lines], ends[lines] = start, end
            lines += 1
            if blank:
                firsts[paragraphs] = start
                paragraphs += 1
            lasts[paragraphs - 1] = end
        blank = start == end
        at = stop + 1
    return starts[:lines], ends[:lines], firsts[:paragraphs], lasts[:paragraphs]


@kernel
def keys(codes: Codes, starts: Places, ends: Places) -> Keys:
    """The key of each span. Shape (spans,)."""
    made = np.empty(len(starts), np.uint64)
    for index in range(len(starts)):
        made[index] = key_of(codes, starts[index], ends[index])
    return made


@kernel
def key_of(codes: Codes, start: int, end: int) -> np.uint64:
    """The key of codes[start:end]."""
    state = START
    for at in range(start, end):
        state = take(state, codes[at])
    return mix64(state)


@kernel
def listed(parts: Keys, known: Keys) -> tuple[int, int]:
    """(number of parts that are in a list, number of the list's entries that occur). known: its keys, ascending."""
    found = np.zeros(len(known), np.bool_)
    count = 0
    for part in parts:
        at = np.searchsorted(known, part)
        if at < len(known) and known[at] == part:
            count += 1
            found[at] = True
    return count, found.sum()


@kernel
def marks(codes: Codes) -> tuple[int, int]:
    """Count number signs and ellipses. In a run of dots, every three are one ellipsis."""
    hashes = ellipses = dots = 0
    for code in codes:
        dots = dots + 1 if code == DOT else 0
        if code == HASH:
            hashes += 1
        elif code == ELLIPSIS:
            ellipses += 1
        elif dots == 3:
            ellipses += 1
            dots = 0
    return hashes, ellipses


@kernel
def letters(codes: Codes, classes: Classes, starts: Places, ends: Places) -> tuple[int, int]:
    """(number of spans with a letter or mark, number of letters and marks in all spans)."""
    spans = total = 0
    for index in range(len(starts)):
        before = total
        for at in range(starts[index], ends[index]):
            if classes[codes[at]] & (LETTER | MARK):
                total += 1
        spans += total > before
    return spans, total


@kernel
def line_marks(codes: Codes, classes: Classes, starts: Places, ends: Places) -> tuple[int, int, int]:
    """Number of lines that begin with a bullet, that end in an ellipsis, and that end in punctuation."""
    bullets = ellipses = punctuated = 0
    for index in range(len(starts)):
        start, last = starts[index], ends[index] - 1
        bullets += classes[codes[start]] & BULLET > 0
        punctuated += classes[codes[last]] & LINE_END > 0
        dots = last - 2 >= start and codes[last] == DOT and codes[last - 1] == DOT and codes[last - 2] == DOT
        ellipses += dots or codes[last] == ELLIPSIS
    return bullets, ellipses, punctuated


@kernel
def raw_lines(codes: Codes, classes: Classes) -> Places:
    """Start, end, words, letters, upper-case letters and digits of each line, even if blank. Shape (lines, 6)."""
    size = 1 + (codes == NEWLINE).sum()
    found = np.zeros((size, 6), np.int64)
    start = 0
    for row in range(size):
        stop = start
        while stop < len(codes) and codes[stop] != NEWLINE:
            kind = classes[codes[stop]]
            found[row, 3] += kind & LETTER > 0
            found[row, 4] += kind & UPPER > 0
            found[row, 5] += kind & DIGIT > 0
            stop += 1
        found[row, 0], found[row, 1] = start, stop
        at, first = start, start
        while first < stop:
            first, at = _next_word(codes, classes, at, stop)
            found[row, 2] += first < stop
        start = stop + 1
    return found


@kernel
def _holds(known: Keys, key: np.uint64) -> bool:
    at = np.searchsorted(known, key)
    return bool(at < len(known) and known[at] == key)


@kernel
def _abbreviates(codes: Codes, classes: Classes, dot: int, before_name: Keys, shortened: Keys) -> bool:
    """Whether codes[dot] marks an abbreviation but not the end of a sentence. A dot at a line's end always ends one."""
    after = dot + 1
    while after < len(codes) and codes[after] != NEWLINE and classes[codes[after]] & SPACE:
        after += 1
    if after == dot + 1 or after == len(codes) or codes[after] == NEWLINE:
        return False
    start, dots = dot, 0
    while start > 0 and dot - start < ABBREVIATION and (classes[codes[start - 1]] & LETTER or codes[start - 1] == DOT):
        start -= 1
        dots += codes[start] == DOT
    if start == dot:
        return False
    if dot - start == 1 and classes[codes[start]] & UPPER:
        return bool(codes[start] != CAPITAL_I)
    key = key_of(codes, start, dot)
    if _holds(before_name, key):
        return True
    return bool((dots > 0 or _holds(shortened, key)) and not classes[codes[after]] & UPPER)


@kernel
def sentence_ends(codes: Codes, classes: Classes, before_name: Keys, shortened: Keys) -> int:
    """Count the ends of sentences.

    A run of full stops ends a sentence if no word continues right after it; a run of another script's own full stops
    always does. A single dot after an initial or one of the keys `before_name` does not. A single dot after dotted
    letters (e.g., U.S.) or one of the keys `shortened` does only before upper case.
    """
    count, at = 0, 0
    while at < len(codes):
        kind = classes[codes[at]] & (STOP | FULL_STOP)
        first = at
        at += 1
        if kind:
            while at < len(codes) and classes[codes[at]] & kind:
                at += 1
            if kind == FULL_STOP or at == len(codes) or classes[codes[at]] & AFTER_STOP:
                alone = at == first + 1 and codes[first] == DOT
                count += not (alone and _abbreviates(codes, classes, first, before_name, shortened))
    return count
