"""Gopher's repetition rules (MassiveText, table A1).

Peers count these differently; here a line, paragraph or n-gram is a duplicate from its second occurrence on, fractions are of the
document's characters, an n-gram reaches from its first word's first character to its last word's last, a most frequent n-gram that
occurs once scores 0, and a character that several duplicate n-grams cover counts once.
"""

from pipelines.text import counting, recurrence
from pipelines.text.words import Spans, Text

TOP_SIZES = (2, 3, 4)
DUPLICATE_SIZES = (5, 6, 7, 8, 9, 10)


def duplicates(parts: Spans) -> tuple[int, int]:
    """(number, characters) of the parts that stood before already."""
    count, size = recurrence.repeated(parts.keys, parts.starts, parts.ends)
    return int(count), int(size)


def top_fraction(document: Text, n: int) -> float:
    """Occurrences x characters of the most frequent n-gram (of several, the longest) over the document's characters."""
    starts, ends, keys = document.words
    return float(recurrence.top_ngram(counting.ngram_keys(keys, n), starts, ends, n) / max(len(document.text), 1))


def duplicate_fraction(document: Text, n: int) -> float:
    """Characters covered by n-grams that stood before already, over the document's characters."""
    starts, ends, keys = document.words
    return float(
        recurrence.covered_by_repeats(counting.ngram_keys(keys, n), starts, ends, n) / max(len(document.text), 1)
    )


def measure(document: Text) -> dict[str, float | None]:
    """Every score of the table: fractions of lines and paragraphs, and of characters for all else. n counts words of the language."""
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
        # A repeated n-gram has a repeated (n-1)-gram in it.
        found = duplicate_fraction(document, n * document.unit) if some else 0.0
        scores[f"duplicate_{n}grams"], some = found, found > 0
    return scores
