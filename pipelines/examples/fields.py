"""Reads values of a row whose keys differ from one public set to the next."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from contract.conversation import Conversation, Role, Turn
from contract.examples import Unusable, clean
from contract.schema import Drop

Row = Mapping[str, Any]

MAX_TASK_CHARS = 80
MOST_TURNS = 1000
"""Of a dialogue: no people talk so long. A template may be rendered once for each turn."""

ROLES: Mapping[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "function_call": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool", "ipython": "tool",
}  # fmt: skip
"""How sets name the sides of a dialogue -> our role."""

TOOLS = (
    "You may call these functions. They are given as JSON schemas within <tools></tools>:\n<tools>\n{}\n</tools>\n"
    'To call one, write {{"name": its name, "arguments": an object}} as JSON within <tool_call></tool_call>.'
)
"""What tells a model of its tools, as Hermes and Qwen do: plain text, which every chat template can carry."""


def present(row: Row, keys: Sequence[str]) -> str | None:
    """The first of these keys that a row has a value for."""
    return next((key for key in keys if row.get(key) is not None), None)


def text_at(row: Row, *keys: str, default: str | None = None) -> str:
    """The cleaned text at the first of these keys that has a value.

    Raises Unusable if there is none or it is no text; with a default, an absent or empty text is the default.
    """
    key = present(row, keys)
    if key is None:
        if default is None:
            raise Unusable(Drop.MISSING_TEXT, keys[0])
        return default
    text = plain(row[key], key)
    if not text and default is None:
        raise Unusable(Drop.EMPTY_TEXT, key)
    return text or default or ""


def plain(value: Any, key: str) -> str:
    """A value as cleaned text: a string, or a list of content parts as OpenAI writes them.

    Raises Unusable for a part that is no text, such as an image.
    """
    if isinstance(value, list) and value and all(isinstance(part, dict) and "type" in part for part in value):
        if other := [part["type"] for part in value if part["type"] != "text"]:
            raise Unusable(Drop.NOT_A_TEXT, f"{key}: {str(other[0])[:40]}")
        value = "".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise Unusable(Drop.NOT_A_TEXT, key)
    return clean(value)


def said(value: Any, key: str) -> str:
    """The cleaned words of a reply: a text, a message, or a list of one message. Raises Unusable if there are none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return text_at(value, *SAID) if isinstance(value, dict) else text_at({key: value}, key)


SAID = ("response", "text", "content", "value", "output", "completion", "answer", "body")
"""Where an object holds the words of a reply."""


def number_at(row: Row, *keys: str) -> float | None:
    """The number at the first of these keys that has one; digits in a text count, `true` does not."""
    for key in keys:
        if (found := number(row.get(key))) is not None:
            return found
    return None


def number(value: Any) -> float | None:
    """A finite number, or a text of one; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < float("inf") else None  # NaN is not below anything


def task_of(row: Any, otherwise: str) -> str:
    """The task that a row names, or `otherwise`."""
    if isinstance(row, dict):
        for key in ("task", "task_name"):
            named = row.get(key)
            if isinstance(named, str) and 0 < len(named) <= MAX_TASK_CHARS and named.isprintable():
                return named
    return otherwise


def turns_of(messages: Any, tools: Any = None, system: Any = None) -> Conversation:
    """The turns of a list of messages, as OpenAI's {role, content} or ShareGPT's {from, value}.

    Calls of tools become text of the assistant's turn, and the list of tools text of the system turn. Raises Unusable
    for what is no dialogue that a user opens.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise Unusable(Drop.NOT_A_DIALOGUE, "no list of messages")
    if len(messages) > MOST_TURNS:
        raise Unusable(Drop.NOT_A_DIALOGUE, f"{len(messages):,} turns, more than {MOST_TURNS:,}")
    turns = [_turn(message) for message in messages]
    if system is not None and plain(system, "system"):
        turns.insert(0, Turn("system", plain(system, "system")))
    if described := _tools(tools):
        opening = turns.pop(0).text + "\n\n" if turns[0].role == "system" else ""
        turns.insert(0, Turn("system", f"{opening}{described}"))
    spoken = [turn.role for turn in turns if turn.role != "system"]
    if not spoken or spoken[0] != "user":
        raise Unusable(Drop.NOT_A_DIALOGUE, "does not begin with a user's turn")
    return tuple(turns)


def chat_of(turns: Conversation) -> Conversation:
    """The turns, if they end with a reply. Raises Unusable if not."""
    if turns[-1].role != "assistant":
        raise Unusable(Drop.NOT_A_DIALOGUE, "no dialogue that ends with a reply")
    return turns


def prompt_of(turns: Conversation) -> Conversation:
    """The turns, if they end with something to reply to. Raises Unusable if not."""
    if turns[-1].role == "assistant":
        raise Unusable(Drop.NOT_A_DIALOGUE, "no dialogue that ends with a question")
    return turns


def _turn(message: Any) -> Turn:
    if not isinstance(message, dict):
        raise Unusable(Drop.NOT_A_DIALOGUE, "a message is no object")
    named = message.get("role", message.get("from"))
    role = ROLES.get(named.strip().lower()) if isinstance(named, str) else None
    if role is None:
        raise Unusable(Drop.NOT_A_DIALOGUE, f"unknown role {str(named)[:40]!r}")
    said = text_at(message, "content", "value", "text", default="")
    if str(named).lower() == "function_call":
        said = _called(_json(said))
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        functions = [call.get("function", call) if isinstance(call, dict) else call for call in calls]
        said = "\n".join([*([said] if said else []), *map(_called, functions)])
    elif isinstance(message.get("function_call"), dict):  # OpenAI's older form
        said = "\n".join([*([said] if said else []), _called(message["function_call"])])
    if not said:
        raise Unusable(Drop.EMPTY_TEXT, "reply" if role == "assistant" else role)
    return Turn(role, said)


def _called(function: Any) -> str:
    if isinstance(function, list):  # several calls at once
        return "\n".join(map(_called, function))
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Unusable(Drop.NOT_A_DIALOGUE, "a call of a tool has no name")
    given = function.get("arguments", function.get("parameters", {}))
    called = {"name": function["name"], "arguments": _json(given)}
    return f"<tool_call>\n{clean(json.dumps(called, ensure_ascii=False))}\n</tool_call>"


def _tools(tools: Any) -> str:
    found = _json(tools.strip()) if isinstance(tools, str) else tools
    if not found:
        return ""
    if not isinstance(found, list):
        raise Unusable(Drop.NOT_A_DIALOGUE, "tools is no list")
    return TOOLS.format(clean("\n".join(json.dumps(tool, ensure_ascii=False) for tool in found)))


def _json(value: Any) -> Any:
    """The JSON value of a text, or the text itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
