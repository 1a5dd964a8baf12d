"""The bytes that tokens spell, read from a tokenizer.json of every shape."""

from typing import Any

import pytest

from contract.vocabulary import token_bytes, unknown_id, vocabulary


def spec(model: dict[str, Any], decoder: Any, *added: tuple[int, str, bool]) -> dict[str, Any]:
    tokens = [{"id": index, "content": content, "special": special} for index, content, special in added]
    return {"model": model, "decoder": decoder, "added_tokens": tokens}


BPE = {"type": "BPE", "vocab": {"a": 0, "\u0120\u00e9": 1, "<0x41>": 2}, "unk_token": None, "byte_fallback": False}
LLAMA = {
    "type": "BPE",
    "vocab": {"<unk>": 0, "<0x41>": 1, "\u2581\u00e9": 2},
    "unk_token": "<unk>",
    "byte_fallback": True,
}
SPACES = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
STRIP = {"type": "Replace", "pattern": {"Regex": "^##"}, "content": ""}
WORDPIECE = {
    "type": "WordPiece",
    "vocab": {"[UNK]": 0, "##\u6c34": 1, "##": 2},
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
}
UNIGRAM = {
    "type": "Unigram",
    "vocab": [["<unk>", 0.0], ["\u2581a", -1.0], ["<0x0A>", 0.0]],
    "unk_id": 0,
    "byte_fallback": True,
}


@pytest.mark.parametrize(
    ("given", "lengths", "unknown"),
    [
        (spec(BPE, {"type": "ByteLevel"}, (3, "<|pad|>", True), (4, "<\u00e9>", False)), [1, 2, 6, 0, 4], None),
        (spec(LLAMA, {"type": "Sequence", "decoders": [SPACES, {"type": "ByteFallback"}]}, (0, "<unk>", True)), [0, 1, 3], 0),
        (spec(LLAMA, {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]}), [0, 1, 5], 0),
        (spec(WORDPIECE, {"type": "Sequence", "decoders": [STRIP, {"type": "Fuse"}]}), [0, 3, 0], 0),
        (spec(UNIGRAM, {"type": "Metaspace", "replacement": "\u2581"}), [0, 2, 1], 0),
        (spec(BPE, None), [1, 4, 6], None),
    ],
)  # fmt: skip
def test_token_bytes(given: dict[str, Any], lengths: list[int], unknown: int | None) -> None:
    assert token_bytes(given).tolist() == lengths
    assert unknown_id(given) == unknown


def test_added_tokens_are_in_the_vocabulary() -> None:
    assert vocabulary(spec(UNIGRAM, None, (3, "x", True))) == {"<unk>": 0, "\u2581a": 1, "<0x0A>": 2, "x": 3}
