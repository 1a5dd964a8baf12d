"""What chat models learn from: conversations, and preferences between two replies to the same prompt."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """What one side says before the other side answers."""

    role: Role
    text: str


Conversation = tuple[Turn, ...]


@dataclass(frozen=True)
class Scored:
    """A reply and how good people find it: higher is better, on a scale that all replies to its prompt share."""

    text: str
    score: float


@dataclass(frozen=True)
class Preference:
    """The same prompt with a better and a worse reply.

    `replies` are all that were ranked, the best first, `chosen` and `rejected` being the first and the last of them;
    empty if there are only these two, and nobody scored them. `source` is where they stand, as in the table of pairs.
    """

    prompt: Conversation
    chosen: str
    rejected: str
    replies: tuple[Scored, ...] = ()
    source: str = ""


def opening(turns: Conversation) -> str:
    """The first user turn's text. It decides on which side of a split a conversation stands.

    The same dialogue often occurs at several lengths, and many dialogues may share one system turn.
    """
    return next((turn.text for turn in turns if turn.role == "user"), turns[0].text)
