"""Chat templates as `transformers` has them: a Jinja text that belongs to the tokenizer.

A template is rendered and read as `apply_chat_template` does, so that training sees the very tokens that a user of the
model does later. What is learned are the spans between `{% generation %}` and `{% endgeneration %}`; of a template
without them, what an assistant's turn adds to the prompt before it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from contract.chat import TEMPLATES
from contract.conversation import Turn
from contract.errors import InputError
from contract.store import split_uri

MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
SPECIAL = re.compile(r"<\|[^|<>\s'\"\\{}]{1,60}\|>|<(?:start|end)_of_turn>")
"""Words of a template that stand for one token: those between `<|` and `|>`, and Gemma's."""
FREE = tuple(f"reserved_{number}" for number in range(1, 61))
"""Roles of the reserved tokens that a template may take: 0 is the answer of a tool, and the last three are blanks."""
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

        Raises InputError if the template refuses them.
        """
        if MARKED.search(self.text):
            return self._rendered(turns, asking)
        learned = []
        for at, turn in enumerate(turns):
            if turn.role == "assistant":
                before, after = self._rendered(turns[:at], True).text, self._rendered(turns[: at + 1], False).text
                if not after.startswith(before):
                    raise InputError(
                        f"{self.where}: what comes before a reply changes with it, so nobody can tell what is learned; "
                        "put {% generation %} and {% endgeneration %} around what an assistant says"
                    )
                said = after.find(turn.text, len(before))
                ends = re.compile("|".join([SPECIAL.pattern, *map(re.escape, self.named.values())]))
                special = ends.search(after, len(before) if said < 0 else said + len(turn.text))
                learned.append((len(before), special.end() if special else len(after)))
        return Rendered(self._rendered(turns, asking).text, tuple(learned))

    def _rendered(self, turns: Sequence[Turn], asking: bool) -> Rendered:
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        marked = bool(MARKED.search(self.text))
        try:
            made: Any = render_jinja_template(
                [messages],
                chat_template=self.text,
                add_generation_prompt=asking,
                return_assistant_tokens_mask=marked,
                **dict[str, Any](self.named),
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.where}: refuses a chat of the turns {[turn.role for turn in turns]}: {error}"
            ) from error
        texts, spans = made  # the library says that it returns only the first
        return Rendered(texts[0], tuple((start, end) for start, end in spans[0]) if marked else ())


def read_template(name: str) -> str:
    """The text of a well-known template, or of the one in a file: Jinja, or JSON with the key `chat_template`.

    Raises InputError if a file holds none.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    where = f"sft.chat_template: {name}"
    store, path = split_uri(name)
    try:
        text = store.read_bytes(path).decode()
        if path.endswith(".json"):
            found = json.loads(text).get("chat_template")
            if not isinstance(found, str):
                raise InputError(f"{where}: holds no text at the key chat_template; name a file that does, or a .jinja")
            text = found
    except FileNotFoundError:
        raise InputError(f"{where}: no such file; name a Jinja file, or one of {', '.join(TEMPLATES)}") from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{where}: is neither Jinja nor JSON with a key chat_template ({error})") from error
    return text


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
