"""Points for replies whose answers are known. They need no model, and they punish invention: see `Answers`."""

from collections.abc import Sequence
from enum import IntEnum

from contract.settings.training import Answers

IDEOGRAPHS = 0x2E80
"""From here on, scripts are written without spaces between words."""


class Verdict(IntEnum):
    """What a reply is. The numbers only name them, in tensors."""

    UNKNOWN = -1
    """Nobody knows the answer."""
    WRONG = 0
    ABSTAINED = 1
    RIGHT = 2


def verdict(reply: str, answers: Sequence[str], settings: Answers) -> Verdict:
    """What a reply to a prompt with these answers is."""
    if not answers:
        return Verdict.UNKNOWN
    if any(_says(reply, answer) for answer in answers):
        return Verdict.RIGHT
    return Verdict.ABSTAINED if any(_says(reply, phrase) for phrase in settings.phrases) else Verdict.WRONG


def points(found: Verdict, settings: Answers) -> float:
    """The points of a reply; 0 where nobody knows the answer."""
    return {
        Verdict.UNKNOWN: 0.0,
        Verdict.WRONG: settings.wrong,
        Verdict.ABSTAINED: settings.abstained,
        Verdict.RIGHT: settings.right,
    }[found]


def _says(text: str, words: str) -> bool:
    """Whether a text contains words as whole words, whatever their case and white space."""
    text, words = (" ".join(one.casefold().replace("’", "'").split()) for one in (text, words))
    at = text.find(words)
    while at >= 0:
        end = at + len(words)
        if not _joined(text[at - 1 : at], words[:1]) and not _joined(words[-1:], text[end : end + 1]):
            return True
        at = text.find(words, at + 1)
    return False


def _joined(left: str, right: str) -> bool:
    """Whether two neighbouring characters, either of which may be missing, belong to one word."""
    return all(one.isalnum() and ord(one) < IDEOGRAPHS for one in (left, right) if one) and bool(left and right)
