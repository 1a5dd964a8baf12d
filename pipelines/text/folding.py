"""Folds characters and texts for comparison, so that case, accents, numbers and punctuation make no difference."""

import re
import unicodedata

# Diacritical marks, variation selectors and tags. Vowel signs of Indic scripts are kept, because dropping them would
# change words.
_DIACRITICS = re.compile(
    "[\u0300-\u036f\u0610-\u061a\u064b-\u065f\u0670\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f"
    "\U000e0000-\U000e0fff]+"
)
# Scripts written without spaces: Thai, Lao, Myanmar, Khmer, kana, Han. Each character is a word.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff])"
)
_ZEROS = re.compile("0+")
# A markup tag in a text, as in code samples. Only an attribute with a value may follow the tag's name, so that
# `a <b and c> d` contains no tag. The pattern never reads the text between brackets twice, so matching is linear.
MARKUP = re.compile(
    r"</?[A-Za-z][A-Za-z0-9:_-]*(?:[ \t\r\n\f]*/?|[ \t\r\n\f]+[A-Za-z][A-Za-z0-9:_-]*[ \t\r\n\f]*=[^<>]*)>"
)
SEPARATORS = "<>/|"  # they separate words; other punctuation is inside a word (don't, 1,000) or next to a space


def fold(character: str) -> str:
    """Fold one character for the comparison of near duplicates.

    Letters are lower-cased and lose diacritics; digits become 0; white space and SEPARATORS become a space; characters
    of scripts without spaces are put between spaces; punctuation, symbols and control characters become "".
    """
    lower = unicodedata.normalize("NFD", character.lower().replace("ς", "σ"))  # σ and ς are two forms of one letter
    folded = ""
    for one in unicodedata.normalize("NFC", _DIACRITICS.sub("", lower)):
        kind = unicodedata.category(one)
        if one.isspace() or one in SEPARATORS:
            folded += " "
        elif kind == "Nd":
            folded += "0"
        elif kind[0] not in "PS" and kind not in ("Cf", "Cc", "Cs"):
            folded += f" {one} " if _UNSPACED.match(one) else one
    return folded


class _Folds(dict[int, str]):
    """A cache of `fold` by code point, filled on first use."""

    def __missing__(self, code: int) -> str:
        self[code] = fold(chr(code))
        return self[code]


_FOLDS = _Folds()


def blank_markup(text: str) -> str:
    """Replace each character of the text's tags by a space."""
    return MARKUP.sub(lambda tag: " " * len(tag[0]), text) if "<" in text else text


def normalize(text: str) -> str:
    """Normalise a text for near-duplicate search.

    The result is in lower case, with single spaces, every number as 0, and no tags, punctuation, symbols or diacritics.
    """
    return " ".join(_ZEROS.sub("0", blank_markup(text).translate(_FOLDS)).split())


def shingles(text: str, n: int) -> set[tuple[str, ...]]:
    """Every run of n words of a normalised text; at least one, as in `pipelines.text.hashing.shingles`.

    A text of fewer than n words has one shingle of all its words. A text without words has itself as its only shingle.
    """
    words = normalize(text).split() or [text]
    return {tuple(words[at : at + n]) for at in range(max(len(words) - n + 1, 1))}
