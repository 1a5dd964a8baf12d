"""What a tokenizer.json says of its tokens: their ids, and how many bytes of a text each of them spells.

Both planes ask. The file is read as JSON, so nothing needs the tokenizers library.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""The name of a byte in a vocabulary with byte fallback."""


def vocabulary(spec: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id, added tokens included. `spec` is a tokenizer.json."""
    held = spec["model"]["vocab"]
    ids = dict(held) if isinstance(held, dict) else {piece: index for index, (piece, _) in enumerate(held)}
    return ids | {token["content"]: token["id"] for token in spec["added_tokens"]}


def token_bytes(spec: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """The number of bytes of UTF-8 that each token spells, by id; 0 for special tokens and for the unknown token.

    Over the tokens of a text they add up to the text's bytes, except for what the tokenizer itself changes: a space
    that it puts before the text counts as a byte, and what it loses does not count.
    """
    model, ids = spec["model"], vocabulary(spec)
    parts = list(_parts(spec["decoder"]))
    byte_level = any(part["type"] == "ByteLevel" for part in parts)
    spaces = [part["replacement"] for part in parts if part["type"] == "Metaspace"]
    spaces += [
        part["pattern"]["String"]
        for part in parts
        if part["type"] == "Replace" and part["content"] == " " and "String" in part["pattern"]
    ]
    lengths = np.zeros(max(ids.values()) + 1, np.int64)
    for piece, index in ids.items():
        if byte_level:
            lengths[index] = len(piece)  # one character stands for one byte
        elif model.get("byte_fallback") and BYTE.fullmatch(piece):
            lengths[index] = 1
        else:
            for space in spaces:
                piece = piece.replace(space, " ")
            lengths[index] = len(piece.removeprefix(model.get("continuing_subword_prefix") or "").encode())
    for token in spec["added_tokens"]:
        lengths[token["id"]] = 0 if token["special"] else len(token["content"].encode())
    if (unknown := unknown_id(spec)) is not None:
        lengths[unknown] = 0
    return lengths


def unknown_id(spec: Mapping[str, Any]) -> int | None:
    """The id of the token that stands for what the vocabulary lacks; None if it lacks nothing."""
    model = spec["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    return vocabulary(spec).get(model.get("unk_token"))


def _parts(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The decoder, or the ones of which it is a sequence."""
    if decoder is not None and decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _parts(part)
    elif decoder is not None:
        yield decoder
