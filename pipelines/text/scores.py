"""The text as its corrections and masks leave it, and every score that a rule may judge, measured once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.settings import Score
from pipelines.text import bloom, lines, pii, quality, repetition
from pipelines.text.badwords import BadWords
from pipelines.text.stopwords import FUNCTION_WORDS
from pipelines.text.words import Text


@dataclass(frozen=True)
class Tools:
    """What measuring needs beside the text: lists of bad words by language, and a KenLM model."""

    bad_words: Mapping[str, BadWords] = field(default_factory=dict)
    perplexity: Any = None


def measure(text: str, language: str | None, settings: Score, tools: Tools) -> tuple[str, dict[str, float | None]]:
    """(final text, scores by the names of `schema.SCORES`). Gopher's and BLOOM's are measured before C4's line rules, FineWeb's after."""
    scores: dict[str, float | None] = {"removed_word_fraction": 0.0}
    if settings.lines.enabled:
        corrected = lines.correct(text, settings.lines)
        text, scores["removed_word_fraction"] = corrected.text, corrected.removed_fraction
    document = Text(text)
    scores |= repetition.measure(document)
    scores |= quality.measure_gopher(document, language)
    scores |= quality.measure_c4_page(text)
    scores |= measure_bloom(document, language, tools)
    if settings.c4_lines.enabled:
        document = Text(quality.c4_lines(text, settings.c4_lines))
    scores["sentences"] = quality.count_sentences(document.text)
    scores |= quality.measure_fineweb(document, settings.short_line_chars)
    text, scores["masked"] = pii.mask(document.text, settings.mask)
    return text, scores


def measure_bloom(document: Text, language: str | None, tools: Tools) -> dict[str, float | None]:
    """BLOOM's scores. Those that need a list or a model that is not there are None."""
    listed = tools.bad_words.get(language or "en")
    known = FUNCTION_WORDS.get(language or "en")
    bad = listed.count(document.text, document.bare_words) if listed else None
    return {
        "char_repetition": bloom.char_repetition(document.text),
        "word_repetition": bloom.word_repetition(document.words),
        "special_chars": bloom.special_chars(document.text),
        "stop_word_fraction": None if known is None else bloom.share_of(document.bare_words, known),
        "bad_words": bad,
        "bad_word_fraction": None if bad is None else bad / max(len(document.words), 1),
        "perplexity": None if tools.perplexity is None else perplexity(document, tools.perplexity),
    }


def perplexity(document: Text, model: Any) -> float:
    """10 to the mean negative log10 probability of a word, lower case and bare, end of sentence included; 0 for a text without words."""
    words = [word for word in document.bare_words if word]
    return float(model.perplexity(" ".join(words))) if words else 0.0
