"""Compiled counting over the code points of a text: its words, lines, paragraphs and sentences.

A part of a text is a span [start, end) of code points; equal parts have equal 64-bit keys. Everything here is linear in the text.
A kernel calls kernels and takes constants of this one file, because numba's cache notices a change of the file that a kernel is in and of
no other. The first process that ever calls them compiles for about three seconds; later ones load machine code from the cache.
"""

import numba
import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint32]
Classes = npt.NDArray[np.uint16]
Places = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

# What a code point is: the bits of an entry in `characters.classes()`.
SPACE, LETTER, MARK, UPPER, DIGIT, WORD, UNSPACED = 1, 2, 4, 8, 16, 32, 64
TRIM, BULLET, LINE_END, STOP, FULL_STOP, AFTER_STOP = 128, 256, 512, 1024, 2048, 4096
NEWLINE, DOT, ELLIPSIS, HASH, CAPITAL_I = 0x0A, 0x2E, 0x2026, 0x23, 0x49
ABBREVIATION = 16  # letters and dots; no abbreviation has more

kernel = numba.njit(cache=True, nogil=True)


@kernel
def _mix(value):
    """MurmurHash3's 64-bit finalizer; never 0, which marks an empty slot of a hash table."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return (value ^ (value >> np.uint64(33))) | np.uint64(1)


@kernel
def _next_word(codes, classes, at, stop):
    """The first word in codes[at:stop] as (start, end); start is `stop` where there is none."""
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
def words(codes, classes):
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
def trimmed(codes, classes, starts, ends):
    """The spans without the punctuation around them; what is nothing else becomes empty."""
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
def lines_and_paragraphs(codes, classes):
    """(starts, ends, starts of paragraphs, ends of paragraphs), blank lines left out, none with white space around it."""
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
def keys(codes, starts, ends):
    """A key of each span."""
    made = np.empty(len(starts), np.uint64)
    for index in range(len(starts)):
        made[index] = key_of(codes, starts[index], ends[index])
    return made


@kernel
def key_of(codes, start, end):
    state = np.uint64(0x243F6A8885A308D3)
    for at in range(start, end):
        state = (state ^ np.uint64(codes[at])) * np.uint64(0x9E3779B97F4A7C15) ^ (state >> np.uint64(29))
    return _mix(state)


@kernel
def ngram_keys(parts, n):
    """A key of each run of n parts; `parts` are keys, or code points as 64-bit integers."""
    multiplier, power, total = np.uint64(0x9E3779B97F4A7C15), np.uint64(1), np.uint64(0)
    for _ in range(n):
        power *= multiplier
    made = np.empty(max(len(parts) - n + 1, 0), np.uint64)
    for at in range(len(parts)):
        total = total * multiplier + parts[at]
        if at >= n:
            total -= parts[at - n] * power
        if at >= n - 1:
            made[at - n + 1] = _mix(total)
    return made


@kernel
def listed(parts, known):
    """(parts that a list holds, how many of the list's entries there are). `known` are the list's keys, ascending."""
    found = np.zeros(len(known), np.bool_)
    count = 0
    for part in parts:
        at = np.searchsorted(known, part)
        if at < len(known) and known[at] == part:
            count += 1
            found[at] = True
    return count, found.sum()


@kernel
def marks(codes):
    """(number signs, ellipses) of a text; of dots in a row every three are one ellipsis."""
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
def letters(codes, classes, starts, ends):
    """(spans with a letter or a mark, letters and marks in all of them)."""
    spans = total = 0
    for index in range(len(starts)):
        before = total
        for at in range(starts[index], ends[index]):
            if classes[codes[at]] & (LETTER | MARK):
                total += 1
        spans += total > before
    return spans, total


@kernel
def line_marks(codes, classes, starts, ends):
    """(lines that begin with a bullet, that end in an ellipsis, that end in punctuation)."""
    bullets = ellipses = punctuated = 0
    for index in range(len(starts)):
        start, last = starts[index], ends[index] - 1
        bullets += classes[codes[start]] & BULLET > 0
        punctuated += classes[codes[last]] & LINE_END > 0
        dots = last - 2 >= start and codes[last] == DOT and codes[last - 1] == DOT and codes[last - 2] == DOT
        ellipses += dots or codes[last] == ELLIPSIS
    return bullets, ellipses, punctuated


@kernel
def raw_lines(codes, classes):
    """For each line, blank ones too: start, end, words, letters, upper-case letters, digits; shape (lines, 6)."""
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
def _holds(known, key):
    at = np.searchsorted(known, key)
    return at < len(known) and known[at] == key


@kernel
def _abbreviates(codes, classes, dot, before_name, shortened):
    """Whether the dot at a place only marks an abbreviation, and no end of a sentence. At a line's end it is both."""
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
        return codes[start] != CAPITAL_I
    key = key_of(codes, start, dot)
    if _holds(before_name, key):
        return True
    return (dots > 0 or _holds(shortened, key)) and not classes[codes[after]] & UPPER


@kernel
def sentence_ends(codes, classes, before_name, shortened):
    """Runs of full stops that nothing of a word follows; in scripts with their own full stop, every run of those. A dot behind an
    initial or one of the keys `before_name` is none; behind letters with dots (e.g., U.S.) or `shortened` it is one before upper case."""
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
