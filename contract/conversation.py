"""What chat models learn from: conversations, and preferences between two replies to the same prompt."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
"""`tool` is the answer of a tool that the assistant called."""


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
    weight: of the pair in the loss of a reward model.
    """

    prompt: Conversation
    chosen: str
    rejected: str
    task: str = ""
    chosen_score: float | None = None
    rejected_score: float | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Example:
    """A chat to learn from: it ends with an assistant's turn.

    task: as of a preference. quality: a score that came with it. shots: the turns before the real question, which are
    worked examples of the same task. answers: of a prompt, texts of which any is right; none if they are not known.
    """

    turns: Conversation
    task: str = ""
    quality: float | None = None
    shots: int = 0
    answers: tuple[str, ...] = ()


def opening(turns: Conversation) -> str:
    """The first user turn's text. It decides on which side of a split a conversation stands.

    The same dialogue often occurs at several lengths, and many dialogues may share one system turn.
    """
    return next((turn.text for turn in turns if turn.role == "user"), turns[0].text)
