"""Rule sets that judge a document as a whole: Gopher's quality rules, C4's, and FineWeb's additions. Pure functions of the text."""

import re

from contract.settings import C4, FineWeb, GopherQuality
from pipelines.schema import Drop
from pipelines.text.repetition import duplicates
from pipelines.text.stopwords import STOP_WORDS
from pipelines.text.words import UNSPACED_LANGUAGES, Text, split_words

Verdict = tuple[Drop, object] | None

MEAN_LENGTH_EXEMPT = UNSPACED_LANGUAGES | {"ko"}
BULLETS = tuple("•‣▶◀◦■□▪▫–-*·●○")
ELLIPSES = ("...", "…")
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»„“”‘’‚‹›…–—¿¡、。，！？；：（）「」『』【】《》·"
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


def judge_length(document: Text, least: int, most: int) -> Verdict:
    """Gopher: between 50 and 100,000 words."""
    count = len(document.words)
    if count < least:
        return Drop.TOO_FEW_WORDS, count
    return (Drop.TOO_MANY_WORDS, count) if count > most else None


def judge_gopher(document: Text, language: str | None, settings: GopherQuality) -> Verdict:
    """Gopher (MassiveText, A1.1): the first rule that a document breaks, or None.

    Mean word length is not asked of languages written without spaces, whose words here are characters, nor of Korean, whose
    characters are syllables: its running text has a mean near the lower limit, which was set for English.
    """
    words, lines = document.words, document.lines
    if not words:
        return Drop.MEAN_WORD_LENGTH, 0.0
    total = len(words)
    mean = sum(map(len, words)) / total
    if language not in MEAN_LENGTH_EXEMPT and not settings.min_mean_word_chars <= mean <= settings.max_mean_word_chars:
        return Drop.MEAN_WORD_LENGTH, mean
    if (hashes := document.text.count("#") / total) > settings.max_hash_ratio:
        return Drop.HASH_RATIO, hashes
    if (ellipses := sum(map(document.text.count, ELLIPSES)) / total) > settings.max_ellipsis_ratio:
        return Drop.ELLIPSIS_RATIO, ellipses
    if (bullets := sum(line.startswith(BULLETS) for line in lines) / len(lines)) > settings.max_bullet_line_fraction:
        return Drop.BULLET_LINES, bullets
    if (trailing := sum(line.endswith(ELLIPSES) for line in lines) / len(lines)) > settings.max_ellipsis_line_fraction:
        return Drop.ELLIPSIS_LINES, trailing
    if (alpha := sum(any(map(str.isalpha, word)) for word in words) / total) < settings.min_alpha_word_fraction:
        return Drop.FEW_ALPHA_WORDS, alpha
    known = STOP_WORDS.get(language or "en")
    if (
        known is not None
        and (stop := count_stop_words(words, known, settings.min_stop_words)) < settings.min_stop_words
    ):
        return Drop.FEW_STOP_WORDS, stop
    return None


def count_stop_words(words: list[str], known: frozenset[str], enough: int) -> int:
    """Distinct stop words among the words, whatever their case and punctuation; stops counting at `enough`."""
    found: set[str] = set()
    for word in words:
        bare = word.strip(PUNCTUATION).lower()
        if bare in known:
            found.add(bare)
            if len(found) >= enough:
                break
    return len(found)


def c4_lines(text: str, settings: C4) -> str:
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


def judge_c4_page(text: str) -> Verdict:
    """C4's rules on the page as it came: no placeholder text, no code."""
    if "lorem ipsum" in text.lower():
        return Drop.C4_LOREM_IPSUM, "lorem ipsum"
    return (Drop.C4_CURLY_BRACKET, "{") if "{" in text else None


def judge_c4_sentences(text: str, settings: C4) -> Verdict:
    """C4's rule on what its line rules left."""
    sentences = len(SENTENCE_END.findall(text))
    return (Drop.C4_TOO_FEW_SENTENCES, sentences) if sentences < settings.min_sentences else None


def judge_fineweb(document: Text, settings: FineWeb) -> Verdict:
    """FineWeb's three additions (section 3.5): thresholds are inclusive, as published."""
    lines = document.lines
    if not lines:
        return Drop.LINE_PUNCTUATION, 0.0
    if (ended := sum(line.endswith(LINE_ENDS) for line in lines) / len(lines)) <= settings.min_punctuated_line_fraction:
        return Drop.LINE_PUNCTUATION, ended
    repeated = duplicates(lines)[1] / len(document.text)
    if repeated >= settings.max_duplicate_line_char_fraction:
        return Drop.FINEWEB_DUPLICATE_LINE_CHARS, repeated
    short = sum(len(line) < settings.short_line_chars for line in lines) / len(lines)
    return (Drop.SHORT_LINES, short) if short >= settings.max_short_line_fraction else None
