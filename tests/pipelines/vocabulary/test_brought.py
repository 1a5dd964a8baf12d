"""Brought tokenizers: what is refused, and how special tokens are found by role or added."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models

from contract.chat import SPECIAL_TOKENS
from contract.errors import InputError
from pipelines.vocabulary import brought


def make(*special: str, pieces: int = 4) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({chr(97 + number): number for number in range(pieces)}, []))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer


def test_tokens_are_found_by_role_and_missing_ones_are_added_at_the_end() -> None:
    tokenizer = make("</s>", "<eos>", "<|user|>")
    found = brought.add_special(tokenizer, {"pad": "[PAD]", "reserved_0": "<image>"})
    assert (found["end_of_text"], found["pad"], found["user"]) == ("</s>", "[PAD]", "<|user|>")
    assert (found["assistant"], found["reserved_0"]) == ("<|assistant|>", "<image>")
    assert found.keys() == SPECIAL_TOKENS.keys()
    assert [tokenizer.id_to_token(number) for number in range(10)] == [
        *"abcd", "</s>", "<eos>", "<|user|>", "[PAD]", "<|assistant|>", "<|system|>",
    ]  # fmt: skip
    assert tokenizer.get_vocab_size() == 7 + 69 - 2


def test_the_recipe_goes_before_what_is_found() -> None:
    assert brought.add_special(make("</s>", "<eos>"), {"end_of_text": "<eos>"})["end_of_text"] == "<eos>"
    assert brought.add_special(make("</s>", "<|endoftext|>"), {})["end_of_text"] == "<|endoftext|>"
    with pytest.raises(InputError, match="'</s>' is the token of end_of_text and pad; name another for one of them"):
        brought.add_special(make("</s>"), {"pad": "</s>"})


def spec(**changes: Any) -> bytes:
    return json.dumps(json.loads(make("</s>").to_str()) | changes).encode()


def test_a_file_is_read_without_padding_and_truncation() -> None:
    data = spec(truncation={"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0})
    assert brought.load("key", "uri", data).encode("abc").tokens == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "is not a tokenizer.json"),
        (b'{"model": 3}', r"is not a tokenizer.json \(it has no vocabulary\)"),
        (b"\x80PNG", "is neither a tokenizer.json nor a SentencePiece model"),
        (
            spec(model={"type": "BPE", "vocab": {"a": 0, "b": 7}, "merges": []}),
            "leaves out ids; 3 tokens must have the",
        ),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"tokenizer.start_from: file.*{message}"):
        brought.load("tokenizer.start_from", "file", data)


def test_a_file_that_is_missing_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"key: .*none.json does not exist"):
        brought.read_file("key", str(tmp_path / "none.json"))
    (tmp_path / "large").write_bytes(b"1234")
    assert brought.read_file("key", str(tmp_path / "large")) == b"1234"
    monkeypatch.setattr(brought, "MOST_BYTES", 3)
    with pytest.raises(InputError, match="has 4 bytes; a tokenizer has at most 3"):
        brought.read_file("key", str(tmp_path / "large"))
