"""What the rule sets measure on a document as a whole: Gopher's quality rules, C4's, and FineWeb's additions. Pure functions."""

import re

from contract.settings import C4Lines
from pipelines.text.repetition import duplicates
from pipelines.text.stopwords import STOP_WORDS
from pipelines.text.words import Text, split_words

BULLETS = tuple("•‣▶◀◦■□▪▫–-*·●○")
ELLIPSES = ("...", "…")
# Ends of sentences, with the quotation marks and brackets that may follow them, in the scripts that the stop words cover.
LINE_ENDS = tuple(".!?…\"'”’»)]。！？」』）؟۔।॥։።།")
C4_LINE_ENDS = (".", "!", "?", '"', "”", "。", "！", "？", "」", "؟", "۔", "।")
C4_POLICY = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"”’')\]]|$)|[。！？؟۔।]+")


def measure_gopher(document: Text, language: str | None) -> dict[str, float | None]:
    """Gopher (MassiveText, A1.1): per word, per line, and distinct stop words. A text without words has the mean length 0."""
    words, lines = document.words, document.lines
    total, rows = max(len(words), 1), max(len(lines), 1)
    known = STOP_WORDS.get(language or "en")
    return {
        "words": len(words),
        "mean_word_chars": sum(map(len, words)) / total,
        "hash_ratio": document.text.count("#") / total,
        "ellipsis_ratio": sum(map(document.text.count, ELLIPSES)) / total,
        "bullet_lines": sum(line.startswith(BULLETS) for line in lines) / rows,
        "ellipsis_lines": sum(line.endswith(ELLIPSES) for line in lines) / rows,
        "alpha_words": sum(word.isalpha() or any(map(str.isalpha, word)) for word in words) / total,
        "stop_words": None if known is None else len(known.intersection(document.bare_words)),
    }


def c4_lines(text: str, settings: C4Lines) -> str:
    """C4's line rules: citations go, then lines without terminal punctuation, with few words, with a word too long, with code or policy talk."""
    kept = []
    for line in CITATION.sub("", text).split("\n"):
        stripped = line.strip()
        lowered = stripped.lower()
        words = split_words(stripped)
        if not stripped:
            kept.append("")
        elif (
            (stripped.endswith(C4_LINE_ENDS) or not settings.terminal_punctuation)
            and len(words) >= settings.min_words_per_line
            and max(map(len, words)) <= settings.max_word_chars
            and "javascript" not in lowered
            and not any(phrase in lowered for phrase in C4_POLICY)
        ):
            kept.append(stripped)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def measure_c4_page(text: str) -> dict[str, float | None]:
    """C4's signs of placeholder text and of code, on the page before its line rules."""
    return {"lorem_ipsum": text.lower().count("lorem ipsum"), "curly_brackets": text.count("{")}


def count_sentences(text: str) -> int:
    """Ends of sentences; `v1.2` and `1.50` are none."""
    return len(SENTENCE_END.findall(text))


def measure_fineweb(document: Text, short_line_chars: int) -> dict[str, float | None]:
    """FineWeb's three additions (section 3.5). A text without lines ends none of them in punctuation."""
    lines = document.lines
    rows = max(len(lines), 1)
    return {
        "punctuated_lines": sum(line.endswith(LINE_ENDS) for line in lines) / rows,
        "kept_duplicate_line_chars": duplicates(lines)[1] / max(len(document.text), 1),
        "short_lines": sum(len(line) < short_line_chars for line in lines) / rows,
    }
