"""RefinedWeb's line-wise corrections (appendix G.2): remove navigation lines, counter lines and a few phrases."""

import re
from dataclasses import dataclass

import numpy as np

from contract.settings.corpus import LineCorrection
from pipelines.text import counting
from pipelines.text.characters import classes
from pipelines.text.words import Text, split_words

COUNTED = (
    "likes?|dislikes?|shares?|comments?|views?|replies|reply|retweets?|reposts?|quotes?|bookmarks?|upvotes?|downvotes?"
    "|followers?|following|subscribers?|votes?|claps?|reactions?|ratings?|reviews?|downloads?|plays?|photos?|posts?|tweets?"
    "|answers?"
)
COUNTER = re.compile(
    rf"\W*+\d[\d.,]*+\s*+[kKmM]?+\+?+\s*+(?:{COUNTED})\W*+", re.IGNORECASE
)  # possessive quantifiers keep the match linear
COUNTER_LETTERS = len("kSubscribers")  # the most letters that a counter can have
SIGN_IN = re.compile(r"^\W*sign[- ]in\b\W*", re.IGNORECASE)
# Without trailing dots, "read more" is a link only if it is alone on its line.
READ_MORE = re.compile(r"\bread more ?(?:\.{2,}|…)\s*$|^\W*read more\W*$", re.IGNORECASE)
ITEMS_IN_CART = re.compile(r"\b(?:\d{1,6} )?items? in (?:your )?cart\b", re.IGNORECASE)
SEPARATORS = frozenset(".,:;/|()[]-–—·•…«»‹›'’")  # allowed between numerals; operators of formulas are not included
PHRASES = (SIGN_IN, READ_MORE, ITEMS_IN_CART)
IN_PHRASES = ("sign", "read more", "cart")  # every phrase contains one of these, in lower case


@dataclass(frozen=True)
class Corrected:
    """A corrected text. words: number of words before correction; removed: how many of them were removed."""

    text: str
    words: int
    removed: int

    @property
    def removed_fraction(self) -> float:
        return self.removed / self.words if self.words else 0.0


def correct(document: Text, settings: LineCorrection) -> Corrected:
    """Apply the corrections line by line. Blank lines are kept, but at most two newlines in a row.

    A line is removed if it is one word, mainly upper case, only numerals and SEPARATORS, or a counter such as
    "3 likes". Phrases are removed from short lines.
    """
    starts, ends, words, letters, upper, digits = counting.raw_lines(document.codes, classes()).T
    units = _units(document, starts, ends)
    noise = (words <= units) | (upper > settings.max_upper_case_fraction * letters)
    for index in np.flatnonzero(~noise & (letters == 0) & (digits > 0)).tolist():
        noise[index] = _numerals(document.text[starts[index] : ends[index]])
    noise &= words > 0
    counters = ~noise & (letters <= COUNTER_LETTERS) & (digits > 0)
    for index in np.flatnonzero(counters).tolist():
        noise[index] = COUNTER.fullmatch(document.text, starts[index], ends[index]) is not None
    short = (words > 0) & ~noise & (words <= settings.short_line_words * units)
    shortened = _shorten(document, settings, starts, ends, short)
    total = int(words.sum())
    if not noise.any() and not shortened and not ((words == 0) & (ends > starts)).any():
        return Corrected(_tidy(document.text), total, 0)
    kept: list[str] = []
    left = 0
    for index in np.flatnonzero(~noise).tolist():
        line = shortened.get(index, document.text[starts[index] : ends[index]]) if words[index] else ""
        count = len(split_words(line)) if index in shortened else int(words[index])
        if count or not words[index]:
            kept.append(line)
            left += count
    return Corrected(_tidy("\n".join(kept)), total, total - left)


def _units(document: Text, starts: counting.Places, ends: counting.Places) -> np.ndarray:
    """Counted words per word of the language, for each line; 1 for lines without characters of an unspaced script."""
    if document.unit == 1:
        return np.ones(len(starts), np.int64)
    unspaced = np.concatenate(([0], np.cumsum((classes()[document.codes] & counting.UNSPACED) > 0)))
    return np.where(unspaced[ends] > unspaced[starts], document.unit, 1)


def _numerals(line: str) -> bool:
    return all(one.isnumeric() or one.isspace() or one in SEPARATORS for one in line)


def _shorten(
    document: Text, settings: LineCorrection, starts: counting.Places, ends: counting.Places, short: np.ndarray
) -> dict[int, str]:
    """Remove the phrases from short lines. Returns the changed lines by line index."""
    if not any(part in document.lowered for part in IN_PHRASES):
        return {}
    found: dict[int, str] = {}
    for index in np.flatnonzero(short).tolist():
        line = shorter = document.text[starts[index] : ends[index]]
        for phrase in PHRASES:
            shorter = phrase.sub("", shorter)
        if shorter != line:
            found[index] = shorter.strip()
    return found


def _tidy(text: str) -> str:
    return (re.sub(r"\n{3,}", "\n\n", text) if "\n\n\n" in text else text).strip()
