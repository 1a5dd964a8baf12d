"""What becomes of real chats on their way to training: `python -m perf.chats --data FOLDER`.

`template_ids_equal` is the share of chats whose ids and loss mask are those of transformers' `apply_chat_template`, in
our own format and in the well-known templates. `truncations_uncounted` counts the chats that lost something to a limit
and whose cut has no name.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from contract.chat import SPECIAL_TOKENS, TEMPLATES
from contract.conversation import Conversation
from contract.examples import Unusable
from contract.settings.corpus import Tokenizer as Settings
from contract.settings.examples import Instructions
from pipelines.examples.reading import read_chats
from pipelines.vocabulary.training import train
from training import export
from training.chat.jinja import ChatTemplate, with_tokens_of
from training.chat.template import Chat

LIMITS = (48, 128, 512)
"""Tokens to which chats are cut."""
WHOLE = 1 << 20


def chats_of(folder: str, most: int | None = None) -> list[Conversation]:
    """The chats of a folder of any shapes."""
    rows = read_chats(Instructions(data=folder, max_examples=most), Counter())
    return [row.found.turns for row in rows if not isinstance(row.found, Unusable)]


def formats(folder: Path, texts: Sequence[str]) -> Iterator[tuple[Chat, Any]]:
    """Our own format and each well-known template: our chat, and transformers' tokenizer as it is exported."""
    from transformers import PreTrainedTokenizerFast

    plain = train(texts, Settings(vocab_size=4096), list(SPECIAL_TOKENS.values())).to_str()
    for name, template in {"own": None, **TEMPLATES}.items():
        text, special = (
            (plain, dict(SPECIAL_TOKENS)) if template is None else with_tokens_of(template, plain, SPECIAL_TOKENS)
        )
        path = folder / f"{name}.json"
        path.write_text(text)
        named = {"eos_token": special["end_of_text"], "pad_token": special["pad"]}
        chat = Chat(path, special, None if template is None else ChatTemplate(template, named, name))
        export.write_tokenizer(chat, folder / name, None)
        yield chat, PreTrainedTokenizerFast.from_pretrained(folder / name, local_files_only=True)


def equal(chat: Chat, tokenizer: Any, turns: Conversation) -> bool:
    """Whether ids and loss mask of a chat are those of `apply_chat_template`; our own format tells no mask."""
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    marked = chat.template is not None
    theirs = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=marked
    )
    ids, mask = chat.encode(turns, WHOLE)
    return bool(ids == theirs["input_ids"] and (not marked or mask == theirs["assistant_masks"]))


def uncounted(chat: Chat, turns: Conversation, limit: int) -> bool:
    """Whether a chat lost something to a limit and no cut says so, or is longer than the limit."""
    whole, fit = chat.fit_chat(turns, WHOLE), chat.fit_chat(turns, limit)
    lost = len(whole.prompt) + len(whole.replies[0]) > len(fit.prompt) + len(fit.replies[0])
    return len(chat.encode(turns, limit)[0]) > limit or lost != bool(fit.cuts)


def measure(folder: str, most: int | None = None) -> dict[str, float]:
    """The figures over the chats of a folder."""
    chats = chats_of(folder, most)
    same = lost = made = 0
    with tempfile.TemporaryDirectory() as place:
        for chat, tokenizer in formats(Path(place), [turn.text for turns in chats for turn in turns]):
            made += len(chats)
            same += sum(equal(chat, tokenizer, turns) for turns in chats)
            lost += sum(uncounted(chat, turns, limit) for turns in chats for limit in LIMITS)
    return {"chats": len(chats), "template_ids_equal": same / made, "truncations_uncounted": lost}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a folder of chats")
    parser.add_argument("--most", type=int, help="read only so many")
    given = parser.parse_args()
    print(json.dumps(measure(given.data, given.most), indent=1))
