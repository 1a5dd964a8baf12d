"""What a word, a line and a paragraph are, for every rule that counts them.

A word is a run of characters without white space. Scripts that are written without spaces (Chinese, Japanese, Thai, Lao, Khmer,
Burmese, Tibetan) have a character for a word, with the punctuation behind it, as in other scripts. A dictionary would cut them
better and cost more than all rules together; instead whatever counts words (length, n-grams) or the characters of a line takes
`languages.unit` characters for a word of the language, so that a threshold means about the same in all of them.
"""

import re
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from pipelines.text import characters, counting
from pipelines.text.characters import PUNCTUATION, UNSPACED
from pipelines.text.languages import unit

WORD = re.compile(rf"[{UNSPACED}][^\w\s{UNSPACED}]*|[^\s{UNSPACED}]+")


def split_words(text: str) -> list[str]:
    """The words of a text, in order, with their punctuation."""
    # Splitting on white space is several times as fast and the same where no unspaced script occurs.
    return text.split() if text.isascii() else WORD.findall(text)


class Spans(NamedTuple):
    """Parts of a text: where they start and end, in characters, and keys that are equal where the parts are."""

    starts: counting.Places
    ends: counting.Places
    keys: counting.Keys

    @property
    def lengths(self) -> counting.Places:
        return self.ends - self.starts


class Text:
    """A text with its words, lines and paragraphs, each found once and only when a rule asks."""

    def __init__(self, text: str, language: str | None = None) -> None:
        self.text = text
        self.language = language or "en"
        self.unit = unit(language)

    @cached_property
    def codes(self) -> counting.Codes:
        return characters.code_points(self.text)

    @cached_property
    def lowered(self) -> str:
        return self.text.lower()

    @cached_property
    def words(self) -> Spans:
        starts, ends = counting.words(self.codes, characters.classes())
        return Spans(starts, ends, counting.keys(self.codes, starts, ends))

    @cached_property
    def lowered_words(self) -> tuple[Spans, Spans]:
        """The words in lower case, as they stand and bare of the punctuation around them."""
        codes = characters.code_points(self.lowered)
        starts, ends = counting.words(codes, characters.classes())
        bare = counting.trimmed(codes, characters.classes(), starts, ends)
        return Spans(starts, ends, counting.keys(codes, starts, ends)), Spans(*bare, counting.keys(codes, *bare))

    @cached_property
    def _lines_and_paragraphs(self) -> tuple[Spans, Spans]:
        found = counting.lines_and_paragraphs(self.codes, characters.classes())
        one, two = (Spans(*ends, counting.keys(self.codes, *ends)) for ends in (found[:2], found[2:]))
        return one, two

    @property
    def lines(self) -> Spans:
        """Lines that are not blank, without surrounding white space."""
        return self._lines_and_paragraphs[0]

    @property
    def paragraphs(self) -> Spans:
        """What stands between blank lines, without surrounding white space."""
        return self._lines_and_paragraphs[1]

    def bare_words(self) -> list[str]:
        """The words as strings, in lower case and without the punctuation around them: for what no kernel does."""
        return [word.strip(PUNCTUATION) for word in split_words(self.lowered)]


@lru_cache(maxsize=256)
def keys_of(words: frozenset[str]) -> counting.Keys:
    """The keys of some words, ascending."""
    codes = [characters.code_points(word) for word in words]
    return np.array(sorted(counting.keys(one, np.array([0]), np.array([len(one)]))[0] for one in codes), np.uint64)
