"""The scores that `score` computes for every document; rules of `filter` judge them, and a recipe may name them."""

from contract.settings.filter import RULES, MeasuredOn


def _judged(measured_on: MeasuredOn) -> tuple[str, ...]:
    return tuple(dict.fromkeys(rule.score for rule in RULES if rule.measured_on == measured_on))


SCORES: tuple[str, ...] = (
    *_judged("extracted text"),
    *_judged("line corrections"),
    "kept_words",  # no rule judges it; the report counts with it
    *_judged("kept text"),
    "masked",  # number of e-mail addresses, IP addresses and telephone numbers; no rule judges it
)
"""The columns of the table that `score` writes. A score is null if the document's language has no list for it."""

NEEDED: dict[str, str] = {rule.score: rule.needs for rule in RULES if rule.needs}
"""Score -> the setting of `score` that must be set for it to be computed."""

ESTABLISHED: tuple[str, ...] = (
    "duplicate_lines", "duplicate_line_chars", "duplicate_paragraphs", "duplicate_paragraph_chars", "top_2gram",
    "top_3gram", "top_4gram", "duplicate_5grams", "duplicate_6grams", "duplicate_7grams", "duplicate_8grams",
    "duplicate_9grams", "duplicate_10grams", "words", "mean_word_chars", "hash_ratio", "ellipsis_ratio",
    "bullet_lines", "ellipsis_lines", "alpha_words", "stop_words", "lorem_ipsum", "curly_brackets", "bad_words",
    "long_lines", "char_repetition", "word_repetition", "special_chars", "stop_word_fraction", "bad_word_fraction",
    "perplexity", "removed_word_fraction", "kept_words", "sentences", "punctuated_lines", "kept_duplicate_line_chars",
    "short_lines", "masked",
)  # fmt: skip
"""The scores that every result of the present version of `score` has.

A score that is added later is in the fingerprints of those recipes alone whose rules judge it, so that a new rule that
is off makes no scores stale. It moves here when the version of `score` is raised.
"""
