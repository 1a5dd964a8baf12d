"""Texts in pieces: what was cut, removed or masked, and what two texts share.

All of it works on the texts alone, and takes a bounded time for any text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from contract.cuts import Ranges
from pipelines.text.folding import blank_markup, normalize

DIFF_CHARS, DIFF_LINES, DIFF_WORDS = 200_000, 2000, 1500  # a comparison may take the square of lines and of words
Word = tuple[str, int, int]
"""A normalised word, and where the word that it was made of begins and ends in the text."""
Edit = tuple[int, int, str]
"""Start and end in the later text, and what of the earlier one is gone there. What a mask replaced is not told."""


@dataclass(frozen=True)
class Span:
    """A piece of a text. by: the stage that changed it.

    kind: `cut` and `removed` for what is not there any more, `masked`, `shared`, or "" for plain text.
    """

    text: str
    kind: str = ""
    by: str = ""


def spans_of(text: str, cuts: Mapping[str, Ranges], original: str | None) -> list[Span]:
    """A text as `score` wrote it, with what it removed and masked, and with what later stages cut.

    cuts: stage -> byte ranges of the text in UTF-8. original: the text before `score`; what a mask hides is not shown.
    """
    data = text.encode()
    marks = [(_char(data, start), _char(data, end), stage) for stage, ranges in cuts.items() for start, end in ranges]
    edits = list(edits_of(original, text)) if original is not None else []
    points = sorted({0, len(text), *(at for one in (*marks, *edits) for at in one[:2])})
    spans: list[Span] = []
    for at, end in zip(points, [*points[1:], len(text)], strict=True):
        spans += [Span(removed, "removed", "score") for start, _, removed in edits if start == at]
        by = next((stage for start, stop, stage in marks if start <= at < stop), "")
        masked = any(start <= at < stop for start, stop, _ in edits)
        kind, who = ("cut", by) if by else ("masked", "score") if masked else ("", "")
        spans.append(Span(text[at:end], kind, who))
    return [span for span in spans if span.text]


def _char(data: bytes, at: int) -> int:
    """The number of characters in the first bytes of a text."""
    return len(data[:at].decode("utf-8", "replace"))


def edits_of(before: str, after: str) -> Iterator[Edit]:
    """How a text was changed, by lines and then by words. Yields nothing for texts that take too long to compare."""
    one, other = before.splitlines(keepends=True), after.splitlines(keepends=True)
    if len(before) > DIFF_CHARS or max(len(one), len(other)) > DIFF_LINES:
        return
    yield from _edits(one, other, 0, True)


def _edits(one: Sequence[str], other: Sequence[str], at: int, lines: bool) -> Iterator[Edit]:
    """The edits between two lists of pieces. at: where the second begins; lines: whether to look into changed ones."""
    starts = [at]
    for piece in other:
        starts.append(starts[-1] + len(piece))
    stripped = [[piece.strip() if lines else piece for piece in pieces] for pieces in (one, other)]
    for what, a, b, c, d in SequenceMatcher(None, stripped[0], stripped[1], False).get_opcodes():
        gone, made = "".join(one[a:b]), "".join(other[c:d])
        words = [re.findall(r"\s+|[^\s]+", part) for part in (gone, made)]
        if what == "equal" or gone.strip() == made.strip():
            continue
        if lines and made.strip() and gone.strip() and max(map(len, words)) <= DIFF_WORDS:
            yield from _edits(words[0], words[1], starts[c], False)
        elif made.strip():
            yield starts[c], starts[d], ""
        elif gone.strip():
            yield starts[c], starts[c], gone


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
