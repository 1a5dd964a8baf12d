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
    """The word n-grams of a text as integers: equal n-grams of one length have the same number."""

    def __init__(self, text: str) -> None:
        numbers: dict[str, int] = {}
        spans = [(match.start(), match.end()) for match in WORD.finditer(text)]
        self.characters = len(text)
        self.starts = np.array([start for start, _ in spans], dtype=np.int64)
        self.ends = np.array([end for _, end in spans], dtype=np.int64)
        self._words = np.array([numbers.setdefault(text[a:b], len(numbers)) for a, b in spans], dtype=np.int64)
        self._of: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def of(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(index of each distinct n-gram's first occurrence, number of each n-gram in order, occurrences of each distinct one)."""
        if n not in self._of:
            if n == 1:
                keys = self._words
            else:
                # An n-gram is the (n-1)-gram at its place and one more word; both numbers are below 2^31.
                shorter = self.of(n - 1)[1]
                keys = (shorter[:-1] << 32) | self._words[n - 1 :]
            _, first, number, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
            self._of[n] = first, number, count
        return self._of[n]

    def top_fraction(self, n: int) -> float:
        """Occurrences x characters of the most frequent n-gram (of several, the longest) over the document's characters."""
        if len(self._words) < n:
            return 0.0
        first, _, count = self.of(n)
        most = int(count.max())
        if most < 2:
            return 0.0
        at = first[count == most]
        longest = int((self.ends[at + n - 1] - self.starts[at]).max())
        return most * longest / self.characters

    def duplicate_fraction(self, n: int) -> float:
        """Characters covered by n-grams that stood before already, over the document's characters."""
        if len(self._words) < n:
            return 0.0
        first, number, count = self.of(n)
        if len(count) == len(number):
            return 0.0
        repeated = np.ones(len(number), dtype=bool)
        repeated[first] = False
        at = np.flatnonzero(repeated)
        starts, ends = self.starts[at], self.ends[at + n - 1]
        # Starts and ends both ascend: each n-gram adds what lies behind the end of the one before.
        fresh = np.maximum(starts[1:], ends[:-1])
        return float(ends[0] - starts[0] + (ends[1:] - fresh).sum()) / self.characters


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
