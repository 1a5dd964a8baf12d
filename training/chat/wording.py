"""How texts and dialogues become a model's tokens, and tokens a text: of our models, and of folders of transformers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.conversation import Turn
from contract.errors import InputError
from training.chat.template import Chat

BEHIND = 8
"""Tokens with which an answer is decoded: at least one of them is no special token."""


@dataclass(frozen=True)
class Wording:
    """A model's tokenizer, as `training.answering.answer` uses it.

    encode: texts -> ids of each, with the tokens that the tokenizer puts before every text, such as LLaMA's <s>.
    bare: the same without these. dialogue: turns and the most tokens -> ids that end where the reply begins. decode:
    ids -> text without special tokens. ends: tokens that end a reply. first: what stands before a text that has
    nothing before it.
    """

    encode: Callable[[Sequence[str]], list[list[int]]]
    bare: Callable[[str], list[int]]
    dialogue: Callable[[Sequence[Turn], int], list[int]]
    decode: Callable[[Sequence[int]], str]
    ends: frozenset[int]
    first: int

    def behind(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """The text of ids that stand behind others, without that of the others.

        SentencePiece's decoders take the first space of a text for the tokenizer's own. That of an answer is part of
        it: the first line of a function's body is indented by it.
        """
        near = list(before[-BEHIND:])
        known, whole = self.decode(near), self.decode([*near, *ids])
        if whole.startswith(known):
            return whole[len(known) :]
        return self.decode(ids)  # the ids before end inside of a character


def of_chat(chat: Chat) -> Wording:
    """That of a run's models. Every document of the corpus stands behind an end-of-text, and so does a text here."""
    first = chat.end_of_document
    return Wording(chat.texts, chat.text, chat.prompt, chat.decode, frozenset({first, chat.end_of_text}), first)


def of_folder(folder: Path) -> Wording:
    """That of a folder of transformers: its tokenizer with its own chat template.

    Raises InputError if the folder holds no tokenizer; `dialogue` does if the tokenizer has no chat template.
    """
    from transformers import AutoTokenizer, GenerationConfig

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a damaged folder ends in any of the library's exceptions
        raise InputError(f"{folder}: its tokenizer cannot be loaded: {error}") from error
    if tokenizer.eos_token_id is None:
        raise InputError(f"{folder}: its tokenizer names no end-of-text token (eos_token), so replies would never end")
    ends = {tokenizer.eos_token_id}
    if (folder / "generation_config.json").is_file():
        more = GenerationConfig.from_pretrained(folder).eos_token_id
        ends |= set(more if isinstance(more, list) else [] if more is None else [more])

    def dialogue(turns: Sequence[Turn], most: int) -> list[int]:
        if not tokenizer.chat_template:
            raise InputError(f"{folder}: its tokenizer has no chat template; ask it without `dialogue`")
        said = [{"role": turn.role, "content": turn.text} for turn in turns]
        text = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])[-most:]

    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return Wording(
        lambda texts: list(tokenizer(list(texts))["input_ids"]) if texts else [],
        lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"]),
        dialogue,
        lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True)),
        frozenset(ends),
        first,
    )
