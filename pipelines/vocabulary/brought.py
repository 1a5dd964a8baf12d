"""A tokenizer that somebody else made: read from its file, checked, and completed with the special tokens it lacks."""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from contract.chat import SPECIAL_TOKENS
from contract.errors import InputError
from contract.store import split_uri
from contract.vocabulary import vocabulary
from pipelines.vocabulary import pieces
from pipelines.vocabulary.training import as_special

MOST_BYTES = 1 << 28  # the largest published tokenizer.json has an eighth of that
MOST_TOKENS = 1 << 20  # as `tokenizer.vocab_size`
ALSO_KNOWN_AS: Mapping[str, tuple[str, ...]] = {
    "end_of_text": ("</s>", "<|end_of_text|>", "<eos>"),
    "pad": ("<pad>", "[PAD]", "<|finetune_right_pad_id|>"),
}
"""Role -> tokens that published tokenizers have for it (LLaMA, Llama 3, Gemma, BERT), the first one first."""


def read_file(key: str, uri: str) -> bytes:
    """The file that the setting at a dotted key names. Raises InputError if there is none, or one too large."""
    store, name = split_uri(uri)
    try:
        if (size := store.size(name)) > MOST_BYTES:
            raise InputError(f"{key}: {uri} has {size:,} bytes; a tokenizer has at most {MOST_BYTES:,}")
        return store.read_bytes(name)
    except FileNotFoundError:
        raise InputError(f"{key}: {uri} does not exist") from None


def load(key: str, uri: str, data: bytes) -> Tokenizer:
    """The tokenizer in the bytes of a tokenizer.json or a SentencePiece model, without padding and truncation.

    Raises InputError if they are neither, or if its ids are not 0, 1, 2 and so on.
    """
    where = f"{key}: {uri}"
    tokenizer = _from_json(where, data) if is_json(data) else pieces.convert(pieces.parse(data, where))
    ids = sorted(set(vocabulary(json.loads(tokenizer.to_str())).values()))
    if len(ids) > MOST_TOKENS:
        raise InputError(f"{where} has {len(ids):,} tokens; at most {MOST_TOKENS:,} are allowed")
    if ids != list(range(len(ids))):
        raise InputError(f"{where} leaves out ids; {len(ids):,} tokens must have the ids 0 to {len(ids) - 1:,}")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def is_json(data: bytes) -> bool:
    return data.lstrip()[:1] == b"{"


def add_special(tokenizer: Tokenizer, named: Mapping[str, str]) -> dict[str, str]:
    """Give every role its token, and return role -> token. Tokens that the tokenizer lacks are added at its end.

    A role's token is the one that the recipe names, else its default if the tokenizer has it, else one that published
    tokenizers have for it, else its default.
    """
    held = vocabulary(json.loads(tokenizer.to_str()))
    chosen = {
        role: named.get(role) or next((one for one in (usual, *ALSO_KNOWN_AS.get(role, ())) if one in held), usual)
        for role, usual in SPECIAL_TOKENS.items()
    }
    taken = [*chosen.values()]
    if twice := next((token for token in taken if taken.count(token) > 1), None):
        roles = " and ".join(role for role, token in chosen.items() if token == twice)
        raise InputError(f"tokenizer.special_tokens: {twice!r} is the token of {roles}; name another for one of them")
    tokenizer.add_special_tokens(as_special(taken))
    return chosen


def _from_json(where: str, data: bytes) -> Tokenizer:
    try:
        spec: Any = json.loads(data)
        if not isinstance(spec.get("model"), dict) or "vocab" not in spec["model"]:
            raise ValueError("it has no vocabulary")
        return Tokenizer.from_str(data.decode())
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise InputError(f"{where} is not a tokenizer.json ({str(error)[:200]})") from None
