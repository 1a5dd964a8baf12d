"""The special tokens of a tokenizer by their role, and the format that makes a chat a text.

Everything looks a token up by its role: no code may rely on the order of the tokens, or on their ids.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from contract.conversation import Role
from contract.errors import DamagedError

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
"""Role -> token, unless `tokenizer.special_tokens` or a brought tokenizer says another."""

BLANKS: Mapping[str, str] = {"blank": "reserved_61", "begins": "reserved_62", "ends": "reserved_63"}
"""What blank infilling needs -> the role of its token: what stands for a span in the text, and what begins and ends the
span itself. They are the last that chats, images or tools will need."""

END_OF_TEXT, PAD = SPECIAL_TOKENS["end_of_text"], SPECIAL_TOKENS["pad"]

SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256
"""A byte-level tokenizer holds the special tokens and every byte."""


@dataclass(frozen=True)
class Frame:
    """The roles of the special tokens around the words of a turn; `ends` is empty if nothing follows them."""

    begins: str
    ends: str


CHAT_FORMAT: Mapping[Role, Frame] = {
    "system": Frame("system", ""),
    "user": Frame("user", ""),
    "assistant": Frame("assistant", "end_of_text"),
    "tool": Frame("reserved_0", ""),
}
"""How each turn of a chat is framed: `<|user|>words<|assistant|>words<|endoftext|>`."""


def dump_special_tokens(tokens: Mapping[str, str]) -> bytes:
    """Role -> token as the JSON that the stage `tokenizer` commits."""
    return json.dumps(dict(tokens), indent=1, ensure_ascii=False).encode()


def load_special_tokens(data: bytes, where: str) -> dict[str, str]:
    """The inverse of `dump_special_tokens`. Raises DamagedError unless every role has a token of its own."""
    try:
        tokens = json.loads(data)
        if tokens.keys() == SPECIAL_TOKENS.keys() and len({str(token) for token in tokens.values()}) == len(tokens):
            return {role: str(token) for role, token in tokens.items()}
    except (ValueError, AttributeError, RecursionError):
        pass
    raise DamagedError(f"{where}: does not name one token for each role; delete it and run tokenizer again")


def jinja_template(tokens: Mapping[str, str]) -> str:
    """CHAT_FORMAT with these tokens, as the Jinja template that `transformers` reads.

    It holds no line breaks, which would become text.
    """
    named = {"": "", **tokens}
    begins, ends = (
        json.dumps({role: named[getattr(frame, side)] for role, frame in CHAT_FORMAT.items()})
        for side in ("begins", "ends")
    )
    return (
        f"{{%- set begins = {begins} -%}}{{%- set ends = {ends} -%}}"
        "{%- for message in messages -%}"
        "{{- begins[message['role']] + message['content'] + ends[message['role']] -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- begins['assistant'] -}}{%- endif -%}"
    )


def _template(before: str, begins: str, ends: str, after: str, words: str, asking: str) -> str:
    """A template whose turns all look the same: `begins`, the words, `ends`, `after`.

    An assistant's words and `ends` are learned. All but `words` are Jinja expressions.
    """
    return (
        f"{{{{- {before} -}}}}"
        "{%- for message in messages -%}"
        f"{{{{- {begins} -}}}}"
        "{%- if message['role'] == 'assistant' -%}"
        f"{{% generation %}}{{{{- {words} + {ends} -}}}}{{% endgeneration %}}"
        "{%- else -%}"
        f"{{{{- {words} + {ends} -}}}}"
        "{%- endif -%}"
        f"{{{{- {after} -}}}}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- {asking} -}}}}{{%- endif -%}}"
    )


OWN_FORMAT = "gristmill"
"""The name of the format above in a recipe."""

TEMPLATES: Mapping[str, str] = {
    "chatml": _template(
        "''", "'<|im_start|>' + message['role'] + '\\n'", "'<|im_end|>'", "'\\n'", "message['content']",
        "'<|im_start|>assistant\\n'",
    ),
    "llama-3": _template(
        "'<|begin_of_text|>'",
        "'<|start_header_id|>' + {'tool': 'ipython'}.get(message['role'], message['role']) + '<|end_header_id|>\\n\\n'",
        "'<|eot_id|>'",
        "''",
        "message['content'] | trim",
        "'<|start_header_id|>assistant<|end_header_id|>\\n\\n'",
    ),
    "zephyr": _template(
        "''",
        "{'system': '<|system|>\\n', 'user': '<|user|>\\n', 'assistant': '<|assistant|>\\n', 'tool': '<|tool|>\\n'}"
        "[message['role']]",
        "eos_token",
        "'\\n'",
        "message['content']",
        "'<|assistant|>\\n'",
    ),
}  # fmt: skip
"""Well-known templates, which `sft.chat_template` may name instead of the format above."""
