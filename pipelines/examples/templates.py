"""Wordings of a task, as FLAN has them: several a task, with a chain of thought or without, and worked examples before.

Longpre et al. 2023 ("The Flan Collection") found that mixing zero-shot, few-shot and chain-of-thought wordings helps
each of them.
"""

from collections.abc import Sequence
from typing import Any

from contract.conversation import Conversation, Turn
from contract.examples import Unusable, clean
from contract.schema import Drop
from contract.settings.examples import PLACE, Template
from pipelines.examples.shapes import drawn

POOL = 4
"""Worked examples that are set aside for each one that stands before a question."""


def worded(row: Any, templates: Sequence[Template], seed: int = 0) -> Conversation:
    """A row in one of the wordings whose keys it has, drawn by the row and the seed. Raises Unusable if none fits."""
    if not isinstance(row, dict):
        raise Unusable(Drop.NOT_AN_OBJECT)
    values = {key: text for key, value in row.items() if isinstance(key, str) and (text := _value(value))}
    fitting = [one for one in templates if all(key in values for key in keys_of(one))]
    if not fitting:
        wanted = keys_of(templates[0])
        raise Unusable(Drop.NO_TEMPLATE, f"no value at {', '.join(sorted(wanted - values.keys()))}"[:200])
    used = sorted(set().union(*map(keys_of, fitting)))
    template = fitting[drawn(f"{seed}\0" + "\0".join(values.get(key, "") for key in used), len(fitting))]
    prompt, reply = (clean(PLACE.sub(lambda at: values[at[1]], text)) for text in (template.prompt, template.reply))
    if not prompt or not reply:
        raise Unusable(Drop.EMPTY_TEXT, "prompt" if not prompt else "reply")
    return Turn("user", prompt), Turn("assistant", reply)


def keys_of(template: Template) -> frozenset[str]:
    """The keys whose values a template takes."""
    return frozenset(PLACE.findall(template.prompt) + PLACE.findall(template.reply))


def _value(value: Any) -> str:
    """A value as text; empty for what has none."""
    if isinstance(value, list | tuple):
        return "\n".join(f"- {text}" for one in value if (text := _value(one)))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return value if isinstance(value, str) else str(value)


def with_shots(
    chat: Conversation, pool: Sequence[Conversation], shots: Sequence[int], seed: int = 0
) -> tuple[Conversation, int]:
    """(The chat with worked examples before it, how many turns they take). The chat's text draws number and examples.

    A system turn stays in front. No chat stands before itself.
    """
    key = f"{seed}\0{chat[0].text}\0{chat[-1].text}"
    wanted = shots[drawn(f"{key}\0shots", len(shots))]
    others = [one for one in pool if one[-2:] != chat[-2:]]
    start = drawn(f"{key}\0first", len(others)) if others else 0
    chosen = [others[(start + at) % len(others)] for at in range(min(wanted, len(others)))]
    before = [turn for one in chosen for turn in one if turn.role != "system"]
    opening = [turn for turn in chat[:1] if turn.role == "system"]
    return (*opening, *before, *chat[len(opening) :]), len(before)
