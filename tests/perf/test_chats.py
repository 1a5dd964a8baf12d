"""The measurement of real chats: it finds no difference where there is none, and a difference where there is one."""

from pathlib import Path

import pytest

from contract.conversation import Turn
from perf import chats


def test_some_real_chats(data_dir: Path) -> None:
    folder = str(data_dir / "tooluse" / "llama-factory")
    assert chats.measure(folder, 8) == {"chats": 8, "template_ids_equal": 1.0, "truncations_uncounted": 0}


def test_a_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = (Turn("user", "How does the mill turn? " * 20), Turn("assistant", "Slowly."))
    for chat, tokenizer in chats.formats(tmp_path, ["How does the mill turn? Slowly."] * 9):
        assert chats.equal(chat, tokenizer, turns)
        assert not chats.equal(chat, tokenizer, (Turn("user", "<|pad|>"), turns[1])), "typed tokens are no tokens here"
        assert not chats.uncounted(chat, turns, 48)
        with monkeypatch.context() as patched:
            patched.setattr(type(chat), "encode", lambda *_: ([0] * 49, [0] * 49))
            assert chats.uncounted(chat, turns, 48)
            assert not chats.equal(chat, tokenizer, turns)
