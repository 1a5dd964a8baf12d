"""Texts in pieces: what was cut, removed or masked, and what two texts share.

All of it works on the texts alone, in a time that grows with their length.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from contract.cuts import Ranges
from pipelines.text.folding import blank_markup, normalize
from reports.edits import Edit

Word = tuple[str, int, int]
"""A normalised word, and where the word that it was made of begins and ends in the text."""


@dataclass(frozen=True)
class Span:
    """A piece of a text. by: the stage that changed it.

    kind: `cut` and `removed` for what is not there any more, `masked`, `shared`, or "" for plain text.
    """

    text: str
    kind: str = ""
    by: str = ""


def spans_of(text: str, cuts: Mapping[str, Ranges], edits: Sequence[Edit] = ()) -> list[Span]:
    """A text as `score` wrote it, with what it removed and masked, and with what later stages cut.

    cuts: stage -> byte ranges of the text in UTF-8. edits: what `score` did; what a mask hides is not shown.
    """
    marks = {stage: _merged(_in_characters(text, ranges)) for stage, ranges in cuts.items() if ranges}
    masked = _merged((start, end) for start, end, _ in edits if start < end)
    removed: dict[int, list[str]] = {}
    for start, _, gone in edits:
        removed.setdefault(start, []).append(gone)
    ends = (at for ranges in (masked, *marks.values()) for pair in ranges for at in pair)
    points = sorted({0, len(text), *removed, *ends})
    spans: list[Span] = []
    for at, end in zip(points, [*points[1:], len(text)], strict=True):
        spans += [Span(gone, "removed", "score") for gone in removed.get(at, ())]
        by = next((stage for stage, ranges in marks.items() if _within(ranges, at)), "")
        kind, who = ("cut", by) if by else ("masked", "score") if _within(masked, at) else ("", "")
        spans.append(Span(text[at:end], kind, who))
    return [span for span in spans if span.text]


def _in_characters(text: str, ranges: Ranges) -> Iterator[tuple[int, int]]:
    """Byte ranges of a text in UTF-8 as ranges of its characters."""
    data = np.frombuffer(text.encode(), np.uint8)
    firsts = np.flatnonzero(data & 0xC0 != 0x80)  # the first byte of each character
    yield from np.searchsorted(firsts, np.array(ranges).reshape(-1, 2)).tolist()


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same places as ranges that do not overlap, ascending."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            start, end = found[-1][0], max(end, found.pop()[1])
        found.append((start, end))
    return found


def _within(ranges: Sequence[tuple[int, int]], at: int) -> bool:
    """Whether a place lies in one of some ascending ranges."""
    before = bisect_right(ranges, at, key=lambda pair: pair[0])
    return before > 0 and at < ranges[before - 1][1]


def shortened(spans: Sequence[Span], chars: int) -> Iterator[Span]:
    """The first characters of a text in spans."""
    for span in spans:
        if chars <= 0:
            return
        yield Span(span.text[:chars], span.kind, span.by)
        chars -= len(span.text)


def similarity(one: str, other: str, ngram: int) -> float:
    """Jaccard similarity of two texts' sets of word n-grams, computed like the check of `dedup_fuzzy`."""
    sets = [_grams([word for word, _, _ in words_of(text)] or [text], ngram) for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def shingled(one: str, other: str, ngram: int) -> tuple[list[Span], list[Span]]:
    """Two texts in spans; kind `shared` covers the words of every word n-gram that both have after normalising."""
    words = [words_of(text) for text in (one, other)]
    shared = _grams([word for word, _, _ in words[0]], ngram) & _grams([word for word, _, _ in words[1]], ngram)
    return _marked(one, words[0], shared, ngram), _marked(other, words[1], shared, ngram)


def words_of(text: str) -> list[Word]:
    """The words of a normalised text with their places; several can have the same place."""
    plain = blank_markup(text)
    return [
        (word, found.start(), found.end())
        for found in re.finditer(r"\S+", plain)
        for word in normalize(found[0]).split()
    ]


def _grams(words: Sequence[str], ngram: int) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + ngram]) for at in range(max(len(words) - ngram + 1, 1))}


def _marked(text: str, words: Sequence[Word], shared: set[tuple[str, ...]], ngram: int) -> list[Span]:
    names = [word for word, _, _ in words]
    covered = [False] * len(words)
    for at in range(max(len(words) - ngram + 1, 1)):
        if tuple(names[at : at + ngram]) in shared:
            covered[at : at + ngram] = [True] * len(names[at : at + ngram])
    spans: list[Span] = []
    at = 0
    for start, end in _joined([word for word, mine in zip(words, covered, strict=True) if mine], text):
        spans += [Span(text[at:start]), Span(text[start:end], "shared")]
        at = end
    return [span for span in [*spans, Span(text[at:])] if span.text]


def _joined(words: Sequence[Word], text: str) -> Iterator[tuple[int, int]]:
    """The places of words, those with only white space between them as one."""
    begun: tuple[int, int] | None = None
    for _, start, end in words:
        if begun and not text[begun[1] : start].strip():
            begun = begun[0], max(end, begun[1])
            continue
        if begun:
            yield begun
        begun = start, end
    if begun:
        yield begun
