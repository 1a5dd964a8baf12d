"""The prompts to which a policy replies: those of preference pairs, or of a file of their own, perhaps with answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from contract.conversation import Conversation, Turn
from contract.errors import InputError
from contract.examples import Format, Unusable, clean, read
from contract.kinds import Kind
from contract.schema import Drop
from contract.settings.training import Rollouts
from training.data.examples import distinct_prompts, read_pairs
from training.data.order import permutation
from training.engine.job import Job

HELD_OUT = 10
"""Of a file of prompts, at most one in so many is held out."""
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Asked:
    """A prompt, the answers of which any is right, none if they are not known, and its row in what it was read from."""

    prompt: Conversation
    answers: tuple[str, ...]
    row: int


class Prompts:
    """Prompts that are made when they are asked for."""

    def __init__(self, rows: Sequence[int], make: Callable[[int], Asked]) -> None:
        self._rows, self._make = rows, make

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Asked:
        return self._make(self._rows[index])


@dataclass(frozen=True)
class PromptSet:
    """Prompts to learn from, prompts to measure on, and how many rows of a file were unusable, by reason."""

    training: Prompts
    heldout: Prompts
    dropped: Mapping[str, int]


def read_prompts(job: Job) -> PromptSet:
    """The prompts that a stage's settings name.

    Of pairs, those that are held out are measured on, as in `evaluate`. Of a file, up to a tenth is: which rows follows
    from the seed; a file of fewer than ten prompts is measured on the prompts that were learned from. Raises InputError
    if there is none.
    """
    settings: Rollouts = job.settings
    if settings.prompts is None:
        pairs, others = read_pairs(job, Kind.PAIRS), read_pairs(job, Kind.HELDOUT_PAIRS)
        of_pair = [lambda row, some=some: Asked(some[row].prompt, (), row) for some in (pairs, others)]
        most = distinct_prompts(others, settings.eval_prompts)
        return PromptSet(Prompts(distinct_prompts(pairs), of_pair[0]), Prompts(most, of_pair[1]), {})
    found, dropped = _rows(f"{job.task.stage}.prompts", settings.prompts)
    order = [permutation(len(found), settings.seed)(place) for place in range(len(found))]
    held = min(settings.eval_prompts, len(found) // HELD_OUT)
    asked = partial(_numbered, found)
    measured = order[:held] if held else order[: settings.eval_prompts]
    return PromptSet(Prompts(sorted(order[held:]), asked), Prompts(sorted(measured), asked), dropped)


def _numbered(found: Sequence[tuple[Conversation, tuple[str, ...]]], row: int) -> Asked:
    return Asked(*found[row], row)


def _rows(key: str, uri: str) -> tuple[list[tuple[Conversation, tuple[str, ...]]], dict[str, int]]:
    found: list[tuple[Conversation, tuple[str, ...]]] = []
    dropped: dict[str, int] = {}
    first = ""
    for row in read(key, uri, PROMPTS):
        if isinstance(row.found, Unusable):
            dropped[row.found.reason.value] = dropped.get(row.found.reason.value, 0) + 1
            first = first or f"{row.place}: {row.found}"
        else:
            found.append(row.found)
    if not found:
        raise InputError(f"{key}: {uri} holds no usable row ({first or 'it is empty'}); allowed: {PROMPTS.allowed}")
    return found, dropped


def parse_prompt(row: Any) -> tuple[Conversation, tuple[str, ...]]:
    """{"prompt": text or messages, "answer": text or texts, or absent}: the turns, and the answers.

    Messages are [{"role": ..., "content": text}] and end with a user's.
    """
    if not isinstance(row, dict):
        raise Unusable(Drop.NOT_AN_OBJECT)
    prompt, answers = row.get("prompt"), row.get("answer")
    if prompt is None:
        raise Unusable(Drop.MISSING_TEXT, "prompt")
    turns = _turns(prompt) if isinstance(prompt, list) else (Turn("user", _text(prompt, "prompt")),)
    listed = answers if isinstance(answers, list) else [] if answers is None else [answers]
    return turns, tuple(_text(one, "answer") for one in listed)


def _turns(messages: Sequence[Any]) -> Conversation:
    turns = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise Unusable(Drop.NOT_A_DIALOGUE, f"a message's role is none of {', '.join(ROLES)}")
        turns.append(Turn(message["role"], _text(message.get("content"), "content")))
    if not turns or turns[-1].role != "user":
        raise Unusable(Drop.NOT_A_DIALOGUE, "a prompt must end with a user's message")
    return tuple(turns)


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise Unusable(Drop.NOT_A_TEXT, key)
    text = clean(value)
    if not text:
        raise Unusable(Drop.EMPTY_TEXT, key)
    return text


PROMPTS = Format(
    parse_prompt,
    'one object a line or in an array, {"prompt": text or [{"role": ..., "content": text}], '
    '"answer": text or texts, or absent}',
)
