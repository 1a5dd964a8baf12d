"""Corrects and masks a text, and computes once every score that a rule may use."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.scores import SCORES
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


def clean_and_score(
    text: str, language: str | None, settings: Score, tools: Tools
) -> tuple[str, dict[str, float | None]]:
    """Correct and mask a text. Returns the final text, and every score of `contract.scores.SCORES` by its name.

    The order is RefinedWeb's: the extracted text is scored, then the line corrections and C4's line rules are applied,
    and what they keep is scored before masking.
    """
    extracted = Text(text, language)
    scores = extracted_scores(extracted, settings, tools)
    scores["removed_word_fraction"] = 0.0
    if settings.lines.enabled:
        corrected = lines.correct(extracted, settings.lines)
        text, scores["removed_word_fraction"] = corrected.text, corrected.removed_fraction
    if settings.c4_lines.enabled:
        text = quality.c4_lines(text, settings.c4_lines, extracted.unit)
    kept = extracted if text == extracted.text else Text(text, language)
    scores |= kept_scores(kept, settings)
    text, scores["masked"] = pii.mask(text, settings.mask)
    return text, scores


def extracted_scores(document: Text, settings: Score, tools: Tools) -> dict[str, float | None]:
    """The scores of rules that are `measured_on` the extracted text, by name. A new one is a line here."""
    return {
        **repetition.repetition_scores(document),
        **quality.gopher_scores(document),
        **quality.c4_scores(document),
        **quality.mc4_scores(document, settings.long_line_chars),
        **bloom_scores(document, tools),
    }


def kept_scores(document: Text, settings: Score) -> dict[str, float | None]:
    """The scores of rules that are `measured_on` the kept text, by name, and its words. A new one is a line here."""
    return {
        "kept_words": len(document.words.keys) / document.unit,
        "sentences": sentences.count_sentences(document),
        **quality.fineweb_scores(document, settings.short_line_chars),
    }


def check_names(measured: Iterable[str], declared: Collection[str] = SCORES) -> None:
    """Raise ValueError unless each declared score is measured and each measured score is declared."""
    names = set(measured)
    if missing := [name for name in declared if name not in names]:
        raise ValueError(
            f"no measure for {', '.join(missing)}: contract/settings/filter.py declares rules on these scores; "
            "measure them in pipelines/rules/measure.py"
        )
    if unknown := sorted(names.difference(declared)):
        raise ValueError(
            f"no rule for {', '.join(unknown)}: pipelines/rules/measure.py measures these scores; "
            "declare their thresholds in contract/settings/filter.py"
        )


def bloom_scores(document: Text, tools: Tools) -> dict[str, float | None]:
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
