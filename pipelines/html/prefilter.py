"""Guesses the language of a page before extraction, from samples of its whole text, in a fraction of the time.

Navigation and boilerplate are usually in the language of the page, but not always. So samples from the whole page vote,
and the threshold is low: a doubtful page is extracted. The text is classified again after extraction.
"""

from collections.abc import Collection
from typing import Any

from resiliparse.extract.html2text import extract_plain_text

from pipelines.text.fasttext_model import LABEL

SAMPLES = 10
SAMPLE_CHARS = 200
MIN_CHARS = 100  # less text does not show a page's language
FLOOR = 0.01  # fastText skips labels below this probability, and so most of its tree


def samples(text: str, count: int = SAMPLES, chars: int = SAMPLE_CHARS) -> list[str]:
    """Up to `count` pieces of `chars` characters, spread evenly. A shorter text is cut into adjacent pieces."""
    if len(text) <= count * chars:
        return [text[start : start + chars] for start in range(0, len(text), chars)]
    step = (len(text) - chars) / (count - 1)
    return [text[int(index * step) : int(index * step) + chars] for index in range(count)]


def wanted_probability(text: str, languages: Collection[str], model: Any, enough: float = 1.0) -> float:
    """The total probability of the wanted languages by lid.176, between 0 and 1, as a mean over samples of the text.

    Stops as soon as the mean is certain to reach `enough`. The result is then a value between `enough` and the mean.
    model: fastText's `f`.
    """
    pieces = samples(text)
    total = 0.0
    for piece in pieces:
        total += sum(
            probability
            for probability, label in model.predict(piece + "\n", len(languages) + 4, FLOOR, "strict")
            if label[len(LABEL) :] in languages
        )
        if total >= enough * len(pieces):
            break
    return min(1.0, total / len(pieces)) if pieces else 0.0


def foreign(page: str, languages: Collection[str], threshold: float, model: Any) -> float | None:
    """The probability of the wanted languages if it is below `threshold`, so that the page is skipped; else None.

    Also None for a page with too little text. model: fastText's `f`.
    """
    text = " ".join(extract_plain_text(page, main_content=False, alt_texts=False, links=False).split())
    if len(text) < MIN_CHARS:
        return None
    probability = wanted_probability(text, languages, model, threshold)
    return probability if probability < threshold else None
