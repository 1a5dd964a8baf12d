"""The language of a page before its main text is known: from samples of all its text, in a fraction of an extraction's time.

Navigation and boilerplate are mostly written in the page's language, but not always, so samples spread over the whole page vote and the
threshold is low: it errs towards extracting the page. The text is classified again after extraction.
"""

from collections.abc import Collection
from typing import Any

from resiliparse.extract.html2text import extract_plain_text

from pipelines.text.fasttext_model import LABEL

SAMPLES = 10
SAMPLE_CHARS = 200
MIN_CHARS = 100  # with less text than this a page says nothing about its language
FLOOR = 0.01  # a label below this is not looked for, which saves fastText most of its tree


def samples(text: str, count: int = SAMPLES, chars: int = SAMPLE_CHARS) -> list[str]:
    """Up to `count` pieces of `chars` characters, evenly spread; a short text is one piece."""
    if len(text) <= count * chars:
        return [text[start : start + chars] for start in range(0, len(text), chars)]
    step = (len(text) - chars) / (count - 1)
    return [text[int(index * step) : int(index * step) + chars] for index in range(count)]


def wanted_probability(text: str, languages: Collection[str], model: Any, enough: float = 1.0) -> float:
    """Mean over the samples of the probability that lid.176 gives to the wanted languages together, between 0 and 1.

    Stops asking as soon as the mean cannot be below `enough`, which is then what comes back, or less than the mean.
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
    """The probability by which a page is skipped as foreign, or None where it is to be extracted. `model` is fastText's `f`."""
    text = " ".join(extract_plain_text(page, main_content=False, alt_texts=False, links=False).split())
    if len(text) < MIN_CHARS:
        return None
    probability = wanted_probability(text, languages, model, threshold)
    return probability if probability < threshold else None
