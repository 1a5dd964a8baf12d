"""Definitions of a word, a line and a paragraph, for every rule that counts them.

A word is a run of characters without white space. In scripts written without spaces (Chinese, Japanese, Thai, Lao,
Khmer, Burmese, Tibetan), each character is a word, together with the punctuation after it. A dictionary would split
these scripts better but would cost more than all rules together. Instead, rules that count words, n-grams or the
characters of a line take `languages.unit` characters for a word of the language, so that a threshold means about the
same in all languages.
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
    # For ASCII text, splitting on white space gives the same words several times as fast.
    return text.split() if text.isascii() else WORD.findall(text)


class Spans(NamedTuple):
    """Parts of a text: start and end offsets in characters, and 64-bit keys that are equal for equal parts."""

    starts: counting.Places
    ends: counting.Places
    keys: counting.Keys

    @property
    def lengths(self) -> counting.Places:
        return self.ends - self.starts


class Text:
    """A text with its words, lines and paragraphs, each computed once, on first use."""

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
        """The lower-cased words, with and without their surrounding punctuation."""
        codes = characters.code_points(self.lowered)
        starts, ends = counting.words(codes, characters.classes())
        bare = counting.trimmed(codes, characters.classes(), starts, ends)
        whole = Spans(starts, ends, counting.keys(codes, starts, ends))
        return whole, Spans(bare[0], bare[1], counting.keys(codes, *bare))

    @cached_property
    def _lines_and_paragraphs(self) -> tuple[Spans, Spans]:
        found = counting.lines_and_paragraphs(self.codes, characters.classes())
        one, two = (
            Spans(starts, ends, counting.keys(self.codes, starts, ends)) for starts, ends in (found[:2], found[2:])
        )
        return one, two

    @property
    def lines(self) -> Spans:
        """Non-blank lines, without surrounding white space."""
        return self._lines_and_paragraphs[0]

    @property
    def paragraphs(self) -> Spans:
        """Runs of text between blank lines, without surrounding white space."""
        return self._lines_and_paragraphs[1]

    def bare_words(self) -> list[str]:
        """The lower-cased words without surrounding punctuation, as strings, for code outside the kernels."""
        return [word.strip(PUNCTUATION) for word in split_words(self.lowered)]


@lru_cache(maxsize=256)
def keys_of(words: frozenset[str]) -> counting.Keys:
    """The keys of the words, ascending. Shape (words,)."""
    codes = [characters.code_points(word) for word in words]
    return np.array(sorted(counting.keys(one, np.array([0]), np.array([len(one)]))[0] for one in codes), np.uint64)
