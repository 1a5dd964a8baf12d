"""Which rules are asked of a document, and which of them drops it.

The rules stand in `contract.settings.filter`. Decisions read scores only, so a new threshold can be tried without the
text and without measuring again.
"""

from collections.abc import Iterable, Mapping

from contract.settings.filter import Filter, Reason, Rule
from pipelines.text.languages import UNITS
from pipelines.text.stopwords import FUNCTION_WORDS, STOP_WORDS

# A Korean character is a syllable, so mean word length is near the lower limit, which was set for English.
MEAN_LENGTH_EXEMPT = {*UNITS, "ko"}
Verdict = tuple[Reason, float] | None
Scores = Mapping[str, float | None]


def decide(scores: Scores, rules: Iterable[Rule]) -> Verdict:
    """The drop reason of the first rule that drops the document, with the score's value; None to keep it."""
    for rule in rules:
        value = scores.get(rule.score)
        if value is not None and rule.drops(value):
            return rule.reason, value
    return None


def rules_for(settings: Filter, language: str | None) -> list[Rule]:
    """The rules that a recipe enables for one language, in the order of evaluation."""
    return [rule for rule in settings.rules() if asked_in(language or "en", rule.score)]


def asked_in(language: str, score: str) -> bool:
    """Whether a rule on this score is asked in this language."""
    match score:
        case "mean_word_chars":
            return language not in MEAN_LENGTH_EXEMPT
        case "stop_words":
            return language in STOP_WORDS
        case "stop_word_fraction":  # needs a full list of function words
            return language in FUNCTION_WORDS
    return True
