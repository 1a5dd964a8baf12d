"""The rule sets as an ordered table: the score, the comparison, the threshold and the drop reason of each rule.

Decisions read scores only, so a new threshold can be tried without the text and without measuring again.
"""

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from contract.schema import Drop
from contract.settings.corpus import C4, MC4, Bloom, Filter, FineWeb, GopherQuality, GopherRepetition
from pipelines.text.languages import UNITS
from pipelines.text.stopwords import FUNCTION_WORDS, STOP_WORDS

# A Korean character is a syllable, so mean word length is near the lower limit, which was set for English.
MEAN_LENGTH_EXEMPT = {*UNITS, "ko"}
Verdict = tuple[Drop, float] | None
Scores = Mapping[str, float | None]

COMPARISONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@dataclass(frozen=True)
class Rule:
    """Drops a document if the comparison `score side limit` is true. A score that was not measured never drops."""

    group: str
    reason: Drop
    score: str
    side: str
    limit: float

    def drops(self, value: float | None) -> bool:
        return value is not None and bool(COMPARISONS[self.side](value, self.limit))


def decide(scores: Scores, rules: Iterable[Rule]) -> Verdict:
    """The drop reason of the first rule that drops the document, with the score's value; None to keep it."""
    for rule in rules:
        value = scores.get(rule.score)
        if value is not None and rule.drops(value):
            return rule.reason, value
    return None


def rules_for(settings: Filter, language: str | None) -> list[Rule]:
    """The rules that a recipe enables for one language, in the order of evaluation.

    RefinedWeb's rules come first, in its order (repetition, document-wise, line-wise), so that the two funnels can be
    compared step by step. The rule sets of other corpora follow.
    """
    rules = repetition_rules(settings.gopher_repetition) if settings.gopher_repetition.enabled else []
    rules += [
        Rule("length", Drop.TOO_FEW_WORDS, "words", "<", settings.min_words),
        Rule("length", Drop.TOO_MANY_WORDS, "words", ">", settings.max_words),
    ]
    if settings.gopher_quality.enabled:
        rules += gopher_rules(settings.gopher_quality, language)
    rules.append(Rule("lines", Drop.LINES_REMOVED, "removed_word_fraction", ">", settings.max_removed_word_fraction))
    if settings.c4.enabled:
        rules += c4_rules(settings.c4)
    if settings.mc4.enabled:
        rules.append(Rule("mc4", Drop.MC4_FEW_LONG_LINES, "long_lines", "<", settings.mc4.min_long_lines))
    if settings.fineweb.enabled:
        rules += fineweb_rules(settings.fineweb)
    if settings.bloom.enabled:
        rules += bloom_rules(settings.bloom, language)
    return rules


def repetition_rules(settings: GopherRepetition) -> list[Rule]:
    group = "gopher_repetition"
    return [
        Rule(group, Drop.DUPLICATE_LINES, "duplicate_lines", ">", settings.duplicate_line_fraction),
        Rule(group, Drop.DUPLICATE_LINE_CHARS, "duplicate_line_chars", ">", settings.duplicate_line_char_fraction),
        Rule(group, Drop.DUPLICATE_PARAGRAPHS, "duplicate_paragraphs", ">", settings.duplicate_paragraph_fraction),
        Rule(
            group,
            Drop.DUPLICATE_PARAGRAPH_CHARS,
            "duplicate_paragraph_chars",
            ">",
            settings.duplicate_paragraph_char_fraction,
        ),
        *(
            Rule(group, Drop.TOP_NGRAM, f"top_{n}gram", ">", limit)
            for n, limit in sorted(settings.top_ngram_char_fraction.items())
        ),
        *(
            Rule(group, Drop.DUPLICATE_NGRAMS, f"duplicate_{n}grams", ">", limit)
            for n, limit in sorted(settings.duplicate_ngram_char_fraction.items())
        ),
    ]


def gopher_rules(settings: GopherQuality, language: str | None) -> list[Rule]:
    """Gopher's quality rules.

    Mean word length does not apply to MEAN_LENGTH_EXEMPT; stop words apply only to languages that have a list.
    """
    group = "gopher_quality"
    rules = []
    if language not in MEAN_LENGTH_EXEMPT:
        rules += [
            Rule(group, Drop.MEAN_WORD_LENGTH, "mean_word_chars", "<", settings.min_mean_word_chars),
            Rule(group, Drop.MEAN_WORD_LENGTH, "mean_word_chars", ">", settings.max_mean_word_chars),
        ]
    rules += [
        Rule(group, Drop.HASH_RATIO, "hash_ratio", ">", settings.max_hash_ratio),
        Rule(group, Drop.ELLIPSIS_RATIO, "ellipsis_ratio", ">", settings.max_ellipsis_ratio),
        Rule(group, Drop.BULLET_LINES, "bullet_lines", ">", settings.max_bullet_line_fraction),
        Rule(group, Drop.ELLIPSIS_LINES, "ellipsis_lines", ">", settings.max_ellipsis_line_fraction),
        Rule(group, Drop.FEW_ALPHA_WORDS, "alpha_words", "<", settings.min_alpha_word_fraction),
    ]
    if (language or "en") in STOP_WORDS:
        rules.append(Rule(group, Drop.FEW_STOP_WORDS, "stop_words", "<", settings.min_stop_words))
    return rules


def c4_rules(settings: C4) -> list[Rule]:
    return [
        Rule("c4", Drop.C4_LOREM_IPSUM, "lorem_ipsum", ">", 0),
        Rule("c4", Drop.C4_CURLY_BRACKET, "curly_brackets", ">", 0),
        Rule("c4", Drop.C4_BAD_WORDS, "bad_words", ">", settings.max_bad_words),
        Rule("c4", Drop.C4_TOO_FEW_SENTENCES, "sentences", "<", settings.min_sentences),
    ]


def fineweb_rules(settings: FineWeb) -> list[Rule]:
    """FineWeb's rules. Thresholds are inclusive, as published (section 3.5)."""
    group = "fineweb"
    return [
        Rule(group, Drop.LINE_PUNCTUATION, "punctuated_lines", "<=", settings.min_punctuated_line_fraction),
        Rule(
            group,
            Drop.FINEWEB_DUPLICATE_LINE_CHARS,
            "kept_duplicate_line_chars",
            ">=",
            settings.max_duplicate_line_char_fraction,
        ),
        Rule(group, Drop.SHORT_LINES, "short_lines", ">=", settings.max_short_line_fraction),
    ]


def bloom_rules(settings: Bloom, language: str | None) -> list[Rule]:
    """BLOOM's rules. The share of stop words applies only to languages with a full list of function words."""
    rules = [
        Rule("bloom", Drop.BLOOM_CHAR_REPETITION, "char_repetition", ">", settings.max_char_repetition),
        Rule("bloom", Drop.BLOOM_WORD_REPETITION, "word_repetition", ">", settings.max_word_repetition),
        Rule("bloom", Drop.BLOOM_SPECIAL_CHARS, "special_chars", ">", settings.max_special_char_fraction),
        Rule("bloom", Drop.BLOOM_FLAGGED_WORDS, "bad_word_fraction", ">", settings.max_bad_word_fraction),
        Rule("bloom", Drop.BLOOM_PERPLEXITY, "perplexity", ">", settings.max_perplexity),
    ]
    if (language or "en") in FUNCTION_WORDS:
        rules.insert(
            3, Rule("bloom", Drop.BLOOM_STOP_WORDS, "stop_word_fraction", "<", settings.min_stop_word_fraction)
        )
    return rules


def group_of(reason: str) -> str:
    """The rule set that a drop reason belongs to, or "" if no rule has this reason."""
    everything = Filter(c4=C4(enabled=True), mc4=MC4(enabled=True), bloom=Bloom(enabled=True))
    return {rule.reason.value: rule.group for rule in rules_for(everything, "en")}.get(reason, "")
