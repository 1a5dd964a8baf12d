"""The special tokens of a tokenizer by their role, and the format that makes a chat a text.

Everything looks a token up by its role: no code may rely on the order of the tokens, or on their ids.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from contract.conversation import Role

RESERVED = 64
"""Special tokens without a role yet. A trained model has an embedding for each, so that images, tools and calls can be
taught to it later without a new tokenizer."""

SPECIAL_TOKENS: Mapping[str, str] = {
    "end_of_text": "<|endoftext|>",
    "pad": "<|pad|>",
    "user": "<|user|>",
    "assistant": "<|assistant|>",
    "system": "<|system|>",
    **{f"reserved_{number}": f"<|reserved_{number}|>" for number in range(RESERVED)},
}
"""Role -> token."""

END_OF_TEXT, PAD = SPECIAL_TOKENS["end_of_text"], SPECIAL_TOKENS["pad"]

SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256
"""A byte-level tokenizer holds the special tokens and every byte."""


@dataclass(frozen=True)
class Frame:
    """The special tokens around the words of a turn; `ends` is empty if nothing follows them."""

    begins: str
    ends: str


CHAT_FORMAT: Mapping[Role, Frame] = {
    "system": Frame(SPECIAL_TOKENS["system"], ""),
    "user": Frame(SPECIAL_TOKENS["user"], ""),
    "assistant": Frame(SPECIAL_TOKENS["assistant"], END_OF_TEXT),
}
"""How each turn of a chat is framed: `<|user|>words<|assistant|>words<|endoftext|>`."""


def jinja_template() -> str:
    """CHAT_FORMAT as the Jinja template that `transformers` reads. It holds no line breaks, which would become text."""
    begins, ends = (
        json.dumps({role: getattr(frame, side) for role, frame in CHAT_FORMAT.items()}) for side in ("begins", "ends")
    )
    return (
        f"{{%- set begins = {begins} -%}}{{%- set ends = {ends} -%}}"
        "{%- for message in messages -%}"
        "{{- begins[message['role']] + message['content'] + ends[message['role']] -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- begins['assistant'] -}}{%- endif -%}"
    )
