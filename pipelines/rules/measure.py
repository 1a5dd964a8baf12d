"""Correct and mask a text, and measure once every score that a rule may use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.settings.corpus import Score
from pipelines.pii import mask as pii
from pipelines.rules import bloom, lines, quality, repetition, sentences
from pipelines.rules.badwords import BadWords
from pipelines.text.stopwords import FUNCTION_WORDS
from pipelines.text.words import Text


@dataclass(frozen=True)
class Tools:
    """Resources for measuring. bad_words: lists by language; perplexity: a KenLM model or None."""

    bad_words: Mapping[str, BadWords] = field(default_factory=dict)
    perplexity: Any = None


def measure(text: str, language: str | None, settings: Score, tools: Tools) -> tuple[str, dict[str, float | None]]:
    """Returns the final text, and the scores by their names in `contract.scores`.

    The order is RefinedWeb's. Repetition, quality, BLOOM's and mC4's scores are measured on the extracted text. Then
    the line corrections and C4's line rules are applied. FineWeb's scores, the sentences and `kept_words` are measured
    on the result, before masking.
    """
    document = Text(text, language)
    scores = {
        **repetition.measure(document),
        **quality.measure_gopher(document),
        **quality.measure_c4_page(document),
        **quality.measure_mc4_page(document, settings.long_line_chars),
        **measure_bloom(document, tools),
        "removed_word_fraction": 0.0,
    }
    if settings.lines.enabled:
        corrected = lines.correct(document, settings.lines)
        text, scores["removed_word_fraction"] = corrected.text, corrected.removed_fraction
    if settings.c4_lines.enabled:
        text = quality.c4_lines(text, settings.c4_lines, document.unit)
    kept = document if text == document.text else Text(text, language)
    scores |= quality.measure_fineweb(kept, settings.short_line_chars)
    scores |= {"sentences": sentences.count_sentences(kept), "kept_words": len(kept.words.keys) / kept.unit}
    text, scores["masked"] = pii.mask(text, settings.mask)
    return text, scores


def measure_bloom(document: Text, tools: Tools) -> dict[str, float | None]:
    """BLOOM's scores. A score is None if its list or model is missing."""
    listed = tools.bad_words.get(document.language)
    known = FUNCTION_WORDS.get(document.language)
    bad = listed.count(document) if listed else None
    return {
        "char_repetition": bloom.char_repetition(document),
        "word_repetition": bloom.word_repetition(document),
        "special_chars": bloom.special_chars(document),
        "stop_word_fraction": None if known is None else bloom.share_of(document, known),
        "bad_words": bad,
        "bad_word_fraction": None if bad is None else bad * document.unit / max(len(document.words.keys), 1),
        "perplexity": None if tools.perplexity is None else perplexity(document, tools.perplexity),
    }


def perplexity(document: Text, model: Any) -> float:
    """Perplexity per word: 10 to the power of the mean negative log10 probability; 0 for a text without words.

    Words are lower-cased and stripped of punctuation; the end of sentence counts as a word.
    """
    words = [word for word in document.bare_words() if word]
    return float(model.perplexity(" ".join(words))) if words else 0.0
