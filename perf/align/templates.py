"""Whether training reads real chats as transformers does: ids and loss mask against `apply_chat_template`.

The chats of public sets of several shapes are encoded in our own format, in each well-known template, and in one that is
brought. `template_ids_equal` is the share of them whose ids and mask are those of transformers.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contract.chat import SPECIAL_TOKENS, TEMPLATES
from contract.conversation import Conversation
from contract.examples import Unusable
from contract.settings.corpus import Tokenizer as Settings
from contract.settings.examples import Instructions
from perf.bars import Bars
from pipelines.examples.reading import read_chats
from pipelines.vocabulary.training import train
from training import export
from training.chat.jinja import ChatTemplate, with_tokens_of
from training.chat.template import Chat

FOLDERS = ("sft/fastchat", "sft/gpteacher", "sft/llama-factory", "sft/self-instruct", "tooluse/llama-factory")
WHOLE = 1 << 20
BROUGHT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Qwen's: it has no generation blocks, so the library tells no mask, and it is rendered in a confined process."""


def run(bars: Bars, data: Path) -> None:
    chats = [turns for name in FOLDERS for turns in chats_of(data / name)]
    same = made = 0
    with TemporaryDirectory() as place:
        for name, chat, tokenizer in formats(Path(place), texts_of(chats)):
            alike = sum(equal(chat, tokenizer, turns) for turns in chats)
            print(f"{name}: {alike:,} of {len(chats):,} chats have the ids of apply_chat_template")
            same, made = same + alike, made + len(chats)
    bars.exactly("template_ids_equal", same / made, 1)


def chats_of(folder: Path) -> list[Conversation]:
    """The chats of a folder, of any shapes."""
    rows = read_chats(Instructions(data=str(folder)), Counter())
    return [row.found.turns for row in rows if not isinstance(row.found, Unusable)]


def texts_of(chats: Sequence[Conversation]) -> list[str]:
    """What is said in the chats."""
    return [turn.text for turns in chats for turn in turns]


def formats(folder: Path, texts: Sequence[str]) -> Iterator[tuple[str, Chat, Any]]:
    """(Name, our chat, transformers' tokenizer as it is exported) of each format, with a tokenizer of these texts."""
    from transformers import PreTrainedTokenizerFast

    plain = train(texts, Settings(vocab_size=4096), list(SPECIAL_TOKENS.values())).to_str()
    for name, template in {"gristmill": None, **TEMPLATES, "brought": BROUGHT}.items():
        text, special = plain, dict(SPECIAL_TOKENS)
        if template is not None:
            text, special = with_tokens_of(template, plain, SPECIAL_TOKENS)
        path = folder / f"{name}.json"
        path.write_text(text)
        named = {"eos_token": special["end_of_text"], "pad_token": special["pad"]}
        chat = Chat(path, special, None if template is None else ChatTemplate(template, named, name))
        export.write_tokenizer(chat, folder / name, None)
        yield name, chat, PreTrainedTokenizerFast.from_pretrained(folder / name, local_files_only=True)


def equal(chat: Chat, tokenizer: Any, turns: Conversation) -> bool:
    """Whether the ids of a chat, and the loss mask where the template tells one, are those of `apply_chat_template`."""
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    marked = chat.template is not None and chat.template.text != BROUGHT
    theirs = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=marked
    )
    ids, mask = chat.encode(turns, WHOLE)
    return bool(ids == theirs["input_ids"] and (not marked or mask == theirs["assistant_masks"]))
