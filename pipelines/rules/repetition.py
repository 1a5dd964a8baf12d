"""Gopher's repetition scores (MassiveText, table A1).

Implementations differ in how they count. The definitions here:
- A line, paragraph or n-gram is a duplicate from its second occurrence on.
- An n-gram spans from the first character of its first word to the last character of its last word.
- Character fractions are relative to all characters of the document.
- If the most frequent n-gram occurs only once, its score is 0.
- A character covered by several duplicate n-grams counts once.
"""

from pipelines.text import recurrence
from pipelines.text.mixing import ngram_hashes
from pipelines.text.words import Spans, Text

TOP_SIZES = (2, 3, 4)
DUPLICATE_SIZES = (5, 6, 7, 8, 9, 10)


def duplicates(parts: Spans) -> tuple[int, int]:
    """Number and total characters of the parts that occurred earlier in the document."""
    count, size = recurrence.repeated(parts.keys, parts.starts, parts.ends)
    return int(count), int(size)


def top_fraction(document: Text, n: int) -> float:
    """Occurrences x characters of the most frequent n-gram (the longest, if tied), over the document's characters."""
    starts, ends, keys = document.words
    return float(recurrence.top_ngram(ngram_hashes(keys, n), starts, ends, n) / max(len(document.text), 1))


def duplicate_fraction(document: Text, n: int) -> float:
    """Characters covered by n-grams that occurred earlier, over the document's characters."""
    starts, ends, keys = document.words
    return float(recurrence.covered_by_repeats(ngram_hashes(keys, n), starts, ends, n) / max(len(document.text), 1))


def repetition_scores(document: Text) -> dict[str, float | None]:
    """All scores of the table: fractions of lines and paragraphs; all others are fractions of characters.

    n-gram sizes are in words of the language.
    """
    characters = max(len(document.text), 1)
    scores: dict[str, float | None] = {}
    for name, parts in (("lines", document.lines), ("paragraphs", document.paragraphs)):
        count, repeated = duplicates(parts)
        scores[f"duplicate_{name}"] = count / max(len(parts.keys), 1)
        scores[f"duplicate_{name.removesuffix('s')}_chars"] = repeated / characters
    for n in TOP_SIZES:
        scores[f"top_{n}gram"] = top_fraction(document, n * document.unit)
    some = True
    for n in DUPLICATE_SIZES:
        # A repeated n-gram contains a repeated (n-1)-gram, so larger n can be skipped after a 0.
        found = duplicate_fraction(document, n * document.unit) if some else 0.0
        scores[f"duplicate_{n}grams"], some = found, found > 0
    return scores
