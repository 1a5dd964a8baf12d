"""Document scores of Gopher's quality rules, of C4, mC4 and FineWeb, and C4's line rules. Pure functions."""

import re

from contract.settings.corpus import C4Lines
from pipelines.rules.repetition import duplicates
from pipelines.text import counting
from pipelines.text.characters import classes
from pipelines.text.stopwords import STOP_WORDS
from pipelines.text.words import Text, keys_of, split_words

C4_LINE_ENDS = (".", "!", "?", '"', "”", "。", "！", "？", "」", "؟", "۔", "।")
C4_ELLIPSES = ("...", "…")
C4_POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]", re.IGNORECASE)


def gopher_scores(document: Text) -> dict[str, float | None]:
    """Gopher's quality scores (MassiveText, A1.1): ratios per word and per line, and the number of distinct stop words.

    `stop_words` is None for languages without a list. A text without words has mean word length 0.
    """
    total, rows = max(len(document.words.keys), 1), max(len(document.lines.keys), 1)
    hashes, ellipses = counting.marks(document.codes)
    bullets, ellipsis_lines, _ = line_marks(document)
    alphabetic, _ = counting.letters(document.codes, classes(), document.words.starts, document.words.ends)
    known = STOP_WORDS.get(document.language)
    return {
        "words": len(document.words.keys) / document.unit,
        "mean_word_chars": float(document.words.lengths.sum() / total),
        "hash_ratio": hashes * document.unit / total,
        "ellipsis_ratio": ellipses * document.unit / total,
        "bullet_lines": bullets / rows,
        "ellipsis_lines": ellipsis_lines / rows,
        "alpha_words": alphabetic / total,
        "stop_words": None
        if known is None
        else int(counting.listed(document.lowered_words[1].keys, keys_of(known))[1]),
    }


def line_marks(document: Text) -> tuple[int, int, int]:
    """Number of lines that begin with a bullet, that end in an ellipsis, and that end in punctuation."""
    bullets, ellipses, ends = counting.line_marks(document.codes, classes(), document.lines.starts, document.lines.ends)
    return int(bullets), int(ellipses), int(ends)


def c4_lines(text: str, settings: C4Lines, unit: int = 1) -> str:
    """Apply C4's line rules: remove citations, then unwanted lines.

    A line is removed if it has too few words or a too long word, mentions JavaScript or a policy, or has no terminal
    punctuation; an ellipsis does not count as such. unit: counted words per word of the language.
    """
    kept = []
    for line in CITATION.sub("", text).split("\n"):
        stripped = line.strip()
        lowered = stripped.lower()
        words = split_words(stripped)
        ended = stripped.endswith(C4_LINE_ENDS) and not stripped.endswith(C4_ELLIPSES)
        if not stripped:
            kept.append("")
        elif (
            (ended or not settings.terminal_punctuation)
            and len(words) >= settings.min_words_per_line * unit
            and max(map(len, words)) <= settings.max_word_chars
            and "javascript" not in lowered
            and not any(phrase in lowered for phrase in C4_POLICY)
        ):
            kept.append(stripped)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def c4_scores(document: Text) -> dict[str, float | None]:
    """C4's counts of placeholder text and curly brackets, on the page before C4's line rules."""
    return {"lorem_ipsum": document.lowered.count("lorem ipsum"), "curly_brackets": document.text.count("{")}


def mc4_scores(document: Text, long_line_chars: int) -> dict[str, float | None]:
    """mC4's number of long lines (section 3.1). Scripts without spaces need fewer characters for a long line."""
    return {"long_lines": int((document.lines.lengths * document.unit >= long_line_chars).sum())}


def fineweb_scores(document: Text, short_line_chars: int) -> dict[str, float | None]:
    """FineWeb's three scores (section 3.5). For a text without lines, `punctuated_lines` is 0."""
    lines = document.lines
    rows = max(len(lines.keys), 1)
    return {
        "punctuated_lines": line_marks(document)[2] / rows,
        "kept_duplicate_line_chars": duplicates(lines)[1] / max(len(document.text), 1),
        "short_lines": float((lines.lengths * document.unit < short_line_chars).sum() / rows),
    }
