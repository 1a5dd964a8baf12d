"""Gopher's repetition rules (MassiveText, table A1).

Peers count these differently; here a line, paragraph or n-gram is a duplicate from its second occurrence on, fractions are of the
document's characters, an n-gram reaches from its first word's first character to its last word's last, a most frequent n-gram that
occurs once scores 0, and a character that several duplicate n-grams cover counts once.
"""

from collections.abc import Sequence

import numpy as np

from pipelines.text.words import WORD, Text

TOP_SIZES = (2, 3, 4)
DUPLICATE_SIZES = (5, 6, 7, 8, 9, 10)


def duplicates(parts: Sequence[str]) -> tuple[int, int]:
    """(number, characters) of the parts that stood before already."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        seen.add(part)
    return count, characters


class Ngrams:
    """The word n-grams of a text that occur at least twice. Those of n words are looked for only where two of n - 1 words begin."""

    def __init__(self, text: str) -> None:
        numbers: dict[str, int] = {}
        spans = [(match.start(), match.end()) for match in WORD.finditer(text)]
        self.characters = len(text)
        self.starts = np.array([start for start, _ in spans], dtype=np.int64)
        self.ends = np.array([end for _, end in spans], dtype=np.int64)
        words = np.array([numbers.setdefault(text[a:b], len(numbers)) for a, b in spans], dtype=np.int64)
        self._of = {1: _repeated(np.arange(len(words)), words)}

    def of(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(index of the first word of each repeated n-gram, ascending; its number, the same for equal n-grams of one length)."""
        if n not in self._of:
            at, number = self.of(n - 1)
            numbers = np.full(len(self.starts) + 1, -1)
            numbers[at] = number
            following = numbers[at + 1]
            both = following >= 0
            # An n-gram is the (n-1)-grams at its place and at the next; both numbers are below 2^31.
            self._of[n] = _repeated(at[both], (number[both] << 32) | following[both])
        return self._of[n]

    def top_fraction(self, n: int) -> float:
        """Occurrences x characters of the most frequent n-gram (of several, the longest) over the document's characters."""
        at, number = self.of(n)
        if not len(at):
            return 0.0
        count = np.bincount(number)
        most = int(count.max())
        of_most = at[_first_places(number)[count == most]]
        longest = int((self.ends[of_most + n - 1] - self.starts[of_most]).max())
        return most * longest / self.characters

    def duplicate_fraction(self, n: int) -> float:
        """Characters covered by n-grams that stood before already, over the document's characters."""
        at, number = self.of(n)
        if not len(at):
            return 0.0
        later = np.ones(len(at), dtype=bool)
        later[_first_places(number)] = False
        starts, ends = self.starts[at[later]], self.ends[at[later] + n - 1]
        # Starts and ends both ascend: each n-gram adds what lies behind the end of the one before.
        fresh = np.maximum(starts[1:], ends[:-1])
        return float(ends[0] - starts[0] + (ends[1:] - fresh).sum()) / self.characters


def _repeated(at: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places whose key another place has too, and a small number for each key."""
    if len(at) < 2:
        return at[:0], keys[:0]
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    alone = new & np.concatenate((new[1:], [True]))
    number = np.empty(len(keys), dtype=np.int64)
    number[order] = np.cumsum(new & ~alone) - 1
    kept = np.ones(len(keys), dtype=bool)
    kept[order[alone]] = False
    return at[kept], number[kept]


def _first_places(number: np.ndarray) -> np.ndarray:
    """Where each number stands for the first time."""
    places = np.empty(int(number.max()) + 1, dtype=np.int64)
    places[number[::-1]] = np.arange(len(number) - 1, -1, -1)  # of several assignments the last stays
    return places


def measure(document: Text) -> dict[str, float | None]:
    """Every score of the table: fractions of lines and paragraphs, and of characters for all else."""
    characters = max(len(document.text), 1)
    scores: dict[str, float | None] = {}
    for name, parts in (("lines", document.lines), ("paragraphs", document.paragraphs)):
        count, repeated = duplicates(parts)
        scores[f"duplicate_{name}"] = count / max(len(parts), 1)
        scores[f"duplicate_{name.removesuffix('s')}_chars"] = repeated / characters
    ngrams = Ngrams(document.text)
    scores |= {f"top_{n}gram": ngrams.top_fraction(n) for n in TOP_SIZES}
    scores |= {f"duplicate_{n}grams": ngrams.duplicate_fraction(n) for n in DUPLICATE_SIZES}
    return scores
