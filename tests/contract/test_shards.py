"""What is packed comes back token for token, traces to its documents, and damage is noticed."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import InputError
from contract.shards import HEADER, encode, open_shard, token_width

END = 0
DOCUMENTS = st.lists(st.lists(st.integers(1, 70_000), max_size=40), max_size=12)


def save(path: Path, documents: list[list[int]], seq_len: int, vocab: int) -> Path:
    arrays = [np.array([*document, END], dtype=np.uint32) for document in documents]
    path.write_bytes(encode(arrays, [f"{index:032x}" for index in range(len(arrays))], seq_len, vocab, END))
    return path


@settings(deadline=None)
@given(documents=DOCUMENTS, seq_len=st.integers(2, 33))
def test_tokens_documents_and_segments_come_back(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], seq_len: int
) -> None:
    shard = open_shard(save(tmp_path_factory.mktemp("shard") / "a", documents, seq_len, 70_001))
    flat = [token for document in documents for token in (*document, END)]
    assert shard.used == len(flat)
    assert shard.tokens.reshape(-1)[: shard.used].tolist() == flat
    assert shard.tokens.size == -(-len(flat) // seq_len) * seq_len
    assert set(shard.tokens.reshape(-1)[shard.used :].tolist()) <= {END}
    owner = [f"{index:032x}" for index, document in enumerate(documents) for _ in range(len(document) + 1)]
    for sequence in range(len(shard.tokens)):
        own = owner[sequence * seq_len : (sequence + 1) * seq_len]
        assert shard.documents(sequence) == list(dict.fromkeys(own))
        numbers = shard.segments(sequence)[: len(own)]
        assert numbers.tolist() == [list(dict.fromkeys(own)).index(one) for one in own]


def test_the_header_is_64_bytes_and_small_vocabularies_take_two_bytes_a_token(tmp_path: Path) -> None:
    assert HEADER.size == 64
    assert (token_width(65_536), token_width(65_537)) == (2, 4)
    small, large = save(tmp_path / "a", [[1] * 9], 10, 100), save(tmp_path / "b", [[1] * 9], 10, 1 << 20)
    assert (small.stat().st_size, large.stat().st_size) == (64 + 20 + 8 + 16, 64 + 40 + 8 + 16)


def test_an_id_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="token id 9 is outside the vocabulary of 9"):
        save(tmp_path / "a", [[9]], 4, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "its header says 108; the file is damaged"),
        (lambda data: data + b"x", "its header says 108; the file is damaged"),
        (lambda data: b"NOTSHARD" + data[8:], "is not a token shard"),
        (lambda data: data[:20], "is not a token shard"),
        (lambda data: data[:8] + b"\x09" + data[9:], "token shard version 9"),
        (lambda data: data[:12] + b"\x03" + data[13:], "token shard version 1 with 3-byte tokens"),
        (lambda data: data[:63], "is not a token shard"),
    ],
)
def test_a_damaged_shard_is_refused(tmp_path: Path, change: object, message: str) -> None:
    path = save(tmp_path / "a", [[1] * 9], 10, 100)
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        open_shard(path)


def test_every_document_has_an_id() -> None:
    with pytest.raises(ValueError, match="1 documents but 2 ids"):
        encode([np.array([1, END], np.uint32)], ["0" * 32, "1" * 32], 4, 9, END)


def test_the_files_first_bytes_say_what_it_holds(tmp_path: Path) -> None:
    data = save(tmp_path / "a", [[1, 2], [3]], 4, 9).read_bytes()
    assert data[:64] == HEADER.pack(b"GRISTTOK", 1, 2, 4, 2, 2, 5)
    assert np.frombuffer(data[64:80], "<u2").tolist() == [1, 2, END, 3, END, END, END, END]
    assert np.frombuffer(data[80:96], "<u8").tolist() == [0, 3]
    shard = open_shard(tmp_path / "a")
    assert (shard.tokens.shape, shard.used, shard.ids.shape) == ((2, 4), 5, (2, 16))
    with pytest.raises(FrozenInstanceError):
        shard.used = 4  # type: ignore[misc]
