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
