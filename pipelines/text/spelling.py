"""The words of a text as decontamination compares them, with their offsets.

Words are those of `folding.normalize`, except that numbers keep their digits.
"""

import unicodedata
from typing import NamedTuple

from pipelines.text.folding import blank_markup, fold


class Words(NamedTuple):
    """The words of a text, and the character offsets where each starts and ends."""

    words: list[str]
    start: list[int]
    end: list[int]


def spell(character: str) -> str:
    """Fold a character like `folding.fold`, but map a digit of any script to its ASCII digit."""
    return str(unicodedata.digit(character)) if unicodedata.category(character) == "Nd" else fold(character)


class _Spellings(dict[int, str]):
    def __missing__(self, code: int) -> str:
        self[code] = spell(chr(code))
        return self[code]


_SPELLINGS = _Spellings()


def split_words(text: str) -> list[str]:
    """The words of a text."""
    return blank_markup(text).translate(_SPELLINGS).split()


def locate(text: str) -> Words:
    """The words of `split`, with their offsets in the text."""
    found = Words([], [], [])
    word: list[str] = []  # the current word
    for at, character in enumerate(blank_markup(text)):
        folded = _SPELLINGS[ord(character)]
        if not folded:
            continue
        alone = folded.strip()
        if alone == folded:  # part of a word
            if not word:
                found.start.append(at)
            word.append(folded)
            continue
        if word:
            found.words.append("".join(word))
            found.end.append(at)
            word.clear()
        if alone:
            found.words.append(alone)
            found.start.append(at)
            found.end.append(at + 1)
    if word:
        found.words.append("".join(word))
        found.end.append(len(text))
    return found
