"""Chat templates as `transformers` has them: a Jinja text that belongs to the tokenizer.

A template is rendered and read as `apply_chat_template` does, so that training sees the very tokens that a user of the
model does later. What is learned are the spans between `{% generation %}` and `{% endgeneration %}`; of a template
without them, what an assistant's turn adds to the prompt before it.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from threading import Lock
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from contract.chat import TEMPLATES
from contract.conversation import Turn
from contract.errors import InputError
from contract.guard import Guard, Outcome
from contract.printable import printable

MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
SPECIAL = re.compile(r"<\|[^|<>\s'\"\\{}]{1,60}\|>|<(?:start|end)_of_turn>")
"""Words of a template that stand for one token: those between `<|` and `|>`, and Gemma's."""
FREE = tuple(f"reserved_{number}" for number in range(1, 61))
"""Roles of the reserved tokens that a template may take: 0 is the answer of a tool, and the last three are blanks."""
LONGEST_CHAT = 64 << 20
"""Characters of a rendered chat. Four times the longest row that is read."""
RENDERING_S, RENDERING_MB = 10.0, 512
"""What the rendering of one chat may take. A chat of a megabyte takes some 10 ms."""
Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """A chat as text. learned: the spans of characters that an assistant says, with the token that ends its turn."""

    text: str
    learned: tuple[Span, ...]


@dataclass(frozen=True)
class ChatTemplate:
    """A template and the tokens that it may ask for by name. where: what named it, for messages."""

    text: str
    named: Mapping[str, str]
    where: str

    def render(self, turns: Sequence[Turn], asking: bool = False) -> Rendered:
        """The turns as text; asking: with what comes before a reply at the end.

        A template that somebody brought is rendered in a confined process, because it may loop for ever. Raises
        InputError if the template refuses the turns, or takes more time or memory than a chat may.
        """
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            if self.text in TEMPLATES.values():
                return rendered(self.text, self.named, messages, asking)
            return _confined(self.text, self.named, messages, asking)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            why = printable(str(error))[:500] or type(error).__name__
            raise InputError(
                f"{self.where}: refuses a chat of the turns {[turn.role for turn in turns[:20]]}: {why}"
            ) from error


def rendered(text: str, named: Mapping[str, str], messages: Sequence[dict[str, str]], asking: bool) -> Rendered:
    """What `apply_chat_template` makes of messages, and the spans that are learned.

    Without generation blocks, a reply begins where the prompt before it ends, and ends with the next special token.
    Raises ValueError if the prompt is not what the chat begins with, and what the template raises.
    """
    marked = bool(MARKED.search(text))
    whole, spans = _rendered(text, named, messages, asking, marked)
    if marked:
        return Rendered(whole, spans)
    ends = re.compile("|".join([SPECIAL.pattern, *map(re.escape, filter(None, named.values()))]))
    learned = []
    for at, message in enumerate(messages):
        if message["role"] == "assistant":
            before, _ = _rendered(text, named, messages[:at], True, marked)
            if not whole.startswith(before):
                raise ValueError(
                    "what comes before a reply changes with what follows, so nobody can tell what is learned; "
                    "put {% generation %} and {% endgeneration %} around what an assistant says"
                )
            words = message["content"].strip()  # as many templates do
            place = whole.find(words, len(before))
            said = len(before) if place < 0 else place + len(words)
            special = ends.search(whole, said)
            learned.append((len(before), special.end() if special else said))
    return Rendered(whole, tuple(learned))


def _rendered(
    text: str, named: Mapping[str, str], messages: Sequence[dict[str, str]], asking: bool, marked: bool
) -> tuple[str, tuple[Span, ...]]:
    made: Any = render_jinja_template(
        [list(messages)],
        chat_template=text,
        add_generation_prompt=asking,
        return_assistant_tokens_mask=marked,
        **dict[str, Any](named),
    )
    (found,), spans = made  # the library says that it returns only the first
    if len(found) > LONGEST_CHAT:
        raise ValueError(f"makes {len(found):,} characters of a chat; at most {LONGEST_CHAT:,} are allowed")
    return found, tuple((start, end) for start, end in spans[0]) if marked else ()


def _confined(text: str, named: Mapping[str, str], messages: Sequence[dict[str, str]], asking: bool) -> Rendered:
    """The same, made in a process that can be ended. Raises ValueError for whatever goes wrong there."""
    asked = json.dumps([text, dict(named), messages, asking]).encode()
    guard, lock = _renderer(os.getpid())
    with lock:
        reply = guard.call(asked, "")
        if reply.outcome is Outcome.FAILED:  # a task that is asked to stop goes on to its checkpoint; the child ended
            reply = guard.call(asked, "")
    if reply.outcome is Outcome.TIMEOUT:
        raise ValueError(f"takes more than {RENDERING_S:g} s")
    if reply.outcome is Outcome.MEMORY:
        raise ValueError(f"takes more than {RENDERING_MB} MB of memory")
    if reply.outcome is not Outcome.DONE:
        raise ValueError(f"the process that renders it failed ({reply.text})")
    made = json.loads(reply.data)
    if "error" in made:
        raise ValueError(made["error"])
    return Rendered(made["text"], tuple((start, end) for start, end in made["learned"]))


@cache
def _renderer(process: int) -> tuple[Guard, Lock]:
    """The confined process of this one: a process that was forked gets its own."""
    return Guard(_answer, RENDERING_S, RENDERING_MB), Lock()


def _answer(body: bytes, note: str) -> bytes:
    """Render what `_confined` asks for; runs in the confined process."""
    text, named, messages, asking = json.loads(body)
    try:
        made = rendered(text, named, messages, asking)
    except MemoryError:
        raise
    except Exception as error:  # a template can raise anything
        return json.dumps({"error": str(error)[:1000] or type(error).__name__}).encode()
    return json.dumps({"text": made.text, "learned": made.learned}).encode()


def with_tokens_of(template: str, tokenizer: str, special: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """(The tokenizer's JSON, the token of each role) in which every special word of a template is one token.

    A word that the tokenizer lacks takes the place of a reserved token, so that no embedding is added. Raises
    InputError if there are more of them than reserved tokens.
    """
    made: dict[str, Any] = json.loads(tokenizer)
    vocabulary = made["model"].get("vocab") or {}
    words = vocabulary if isinstance(vocabulary, dict) else [token for token, _ in vocabulary]  # of a unigram model
    known = {*words, *(token["content"] for token in made["added_tokens"])}
    missing = [word for word in dict.fromkeys(SPECIAL.findall(template)) if word not in known]
    free = [role for role in FREE if special[role] in known]
    if len(missing) > len(free):
        raise InputError(
            f"sft.chat_template: names {len(missing)} special tokens that the tokenizer lacks, and {len(free)} are "
            "reserved; use another template, or a tokenizer that has them (tokenizer.start_from)"
        )
    renamed = {special[role]: word for role, word in zip(free, missing, strict=False)}
    for token in made["added_tokens"]:
        token["content"] = renamed.get(token["content"], token["content"])
    if isinstance(vocabulary, dict):
        made["model"]["vocab"] = {renamed.get(token, token): number for token, number in vocabulary.items()}
    else:
        made["model"]["vocab"] = [[renamed.get(token, token), score] for token, score in vocabulary]
    roles = {role: renamed.get(token, token) for role, token in special.items()}
    return json.dumps(made, ensure_ascii=False), roles


@lru_cache(maxsize=8)
def words_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Finds any of these tokens in a text, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))
