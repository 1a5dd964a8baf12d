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
class Preference:
    """The same prompt with a better and a worse reply.

    task: what kind of prompt it is; empty if nothing says so. The scores are null where the replies were only ranked.
    """

    prompt: Conversation
    chosen: str
    rejected: str
    task: str = ""
    chosen_score: float | None = None
    rejected_score: float | None = None


def opening(turns: Conversation) -> str:
    """The first user turn's text. It decides on which side of a split a conversation stands.

    The same dialogue often occurs at several lengths, and many dialogues may share one system turn.
    """
    return next((turn.text for turn in turns if turn.role == "user"), turns[0].text)
