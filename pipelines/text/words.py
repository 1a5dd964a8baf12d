"""What a word, a line and a paragraph are, for every rule that counts them.

A word is a run of characters without white space. Scripts that are written without spaces (Chinese, Japanese, Thai, Lao, Khmer,
Burmese) have a character for a word: coarse, but counts, n-grams and fractions then mean something in every language.
"""

import re
from functools import cached_property

UNSPACED_LANGUAGES = frozenset({"zh", "ja", "yue", "wuu", "th", "lo", "km", "my", "bo", "dz"})
# Thai to Tibetan, Burmese, Khmer, kana, Han with its extensions.
_UNSPACED = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
PARAGRAPH_END = re.compile(r"\n\s*\n")


def split_words(text: str) -> list[str]:
    """The words of a text, in order, with their punctuation."""
    # Splitting on white space is several times as fast and the same where no unspaced script occurs.
    return text.split() if text.isascii() else WORD.findall(text)


class Text:
    """A text with its words, lines and paragraphs, each split once and only when a rule asks."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        return split_words(self.text)

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, without surrounding white space."""
        return [stripped for line in self.text.split("\n") if (stripped := line.strip())]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What stands between blank lines, without surrounding white space."""
        return [stripped for part in PARAGRAPH_END.split(self.text) if (stripped := part.strip())]
