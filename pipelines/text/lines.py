"""RefinedWeb's line-wise corrections (appendix G.2): lines that are navigation or counters go, and so do a few phrases."""

import re
from dataclasses import dataclass

from contract.settings import LineCorrection
from pipelines.schema import Drop
from pipelines.text.words import split_words

COUNTED = (
    "likes?|dislikes?|shares?|comments?|views?|replies|reply|retweets?|reposts?|quotes?|bookmarks?|upvotes?|downvotes?|followers?"
    "|following|subscribers?|votes?|claps?|reactions?|ratings?|reviews?|downloads?|plays?|photos?|posts?|tweets?|answers?"
)
COUNTER = re.compile(rf"\W*\d[\d.,]*\s*[kKmM]?\+?\s*(?:{COUNTED})\W*", re.IGNORECASE)
NUMERALS = re.compile(r"[\d\W_]+")
SIGN_IN = re.compile(r"^\W*sign[- ]in\b\W*", re.IGNORECASE)
READ_MORE = re.compile(r"\bread more(?: ?\.{2,}| ?…)?\s*$", re.IGNORECASE)
ITEMS_IN_CART = re.compile(r"\b(?:\d{1,6} )?items? in (?:your )?cart\b", re.IGNORECASE)
PHRASES = (SIGN_IN, READ_MORE, ITEMS_IN_CART)


@dataclass(frozen=True)
class Corrected:
    """A text after its corrections, and how many of its words they took."""

    text: str
    words: int
    removed: int

    @property
    def removed_fraction(self) -> float:
        return self.removed / self.words if self.words else 0.0


def is_noise(line: str, words: list[str], max_upper_case_fraction: float) -> bool:
    """Whether a line that is not blank goes whole: one word, mainly upper case, only numerals, or a counter such as "3 likes"."""
    if len(words) <= 1:
        return True
    letters = sum(map(str.isalpha, line))
    if letters and sum(map(str.isupper, line)) > max_upper_case_fraction * letters:
        return True
    return bool((NUMERALS.fullmatch(line) and any(map(str.isdigit, line))) or COUNTER.fullmatch(line))


def correct(text: str, settings: LineCorrection) -> Corrected:
    """Apply the corrections line by line. Blank lines stay, two newlines in a row at most."""
    kept: list[str] = []
    total = left = 0
    for line in text.split("\n"):
        words = split_words(line)
        total += len(words)
        if not words:
            kept.append("")
            continue
        if is_noise(line, words, settings.max_upper_case_fraction):
            continue
        if len(words) <= settings.short_line_words:
            shorter = line
            for phrase in PHRASES:
                shorter = phrase.sub("", shorter)
            if shorter != line:
                line = shorter.strip()
                words = split_words(line)
        if words:
            kept.append(line)
            left += len(words)
    return Corrected(re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip(), total, total - left)


def judge(corrected: Corrected, settings: LineCorrection) -> tuple[Drop, float] | None:
    """Drop when more than the fraction of words went; exactly the fraction stays."""
    # Counted in whole words: 0.05 x 20 is 1 but not in binary floating point.
    if corrected.removed > round(settings.max_removed_word_fraction * corrected.words, 9):
        return Drop.LINES_REMOVED, corrected.removed_fraction
    return None
