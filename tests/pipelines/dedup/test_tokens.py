"""Blocks of tokens, and cuts in bytes: never inside a character, the same for words and for a tokenizer's ids."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.cuts import without
from contract.documents import Part
from contract.errors import InputError
from contract.schema import DOCUMENTS, Drop
from contract.store import Store
from pipelines.dedup.tokens import Block, _block, blocks, load_tokenizer, to_bytes
from pipelines.spark.documents import IndexSink, write_cuts
from pipelines.spark.tables import TableWriter

TEXT = st.text("ab é漢🙂\n\u3000", max_size=30)


def ranges(size: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Disjoint, ascending, not empty."""
    points = st.lists(st.integers(0, size), unique=True, max_size=8).map(sorted)
    return points.map(lambda found: list(zip(found[::2], found[1::2], strict=False)))


def test_blocks_of_long_texts_are_small(tmp_store: Store, make_document: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.dedup.tokens.BLOCK_BYTES", 100)
    texts = ["a" * size for size in (10, 60, 29, 1, 150, 250, 5, 5)]
    writer = TableWriter(tmp_store, "documents.parquet", "documents", DOCUMENTS)
    for text in texts:
        writer.write(make_document(text), len(text))
    (file,) = writer.close()
    made = list(blocks(tmp_store, Part(file), None))
    assert [one.rows.tolist() for one in made] == [[0, 1, 2], [3], [4], [5, 6, 7]]
    assert [text.as_py().decode() for one in made for text in one.texts] == texts
    chosen = blocks(tmp_store, Part(file), None, np.array([3, 6]))
    assert [one.rows.tolist() for one in chosen] == [[3, 6]]


def test_blocks_have_what_is_left_of_what_is_left(tmp_store: Store, make_document: Any) -> None:
    """Of four documents one was dropped, and earlier passes cut two."""
    rows = [make_document(text, name=str(at)) for at, text in enumerate(("é b c", "dropped", "d e f", "g  h"))]
    writer = TableWriter(tmp_store, "documents.parquet", "documents", DOCUMENTS)
    for row in rows:
        writer.write(row)
    (file,) = writer.close()
    judged = IndexSink(tmp_store, "out", "dedup_url", "00000-0123abcd")
    for at, row in enumerate(rows):
        if at == 1:
            judged.drop(row, Drop.DUPLICATE_URL)
        else:
            judged.keep(at, 0)
    judged.finish(Part(file))
    (part,) = judged.close().parts
    ids = {at: row["id"] for at, row in enumerate(rows)}
    cuts = write_cuts(tmp_store, "cuts.parquet", {2: [(0, 2), (4, 5)], 0: [(0, 3)]}, ids)
    (made,) = blocks(tmp_store, replace(part, cuts=cuts), None)
    assert made.rows.tolist() == [0, 2, 3]
    assert list(made.ids) == [rows[at]["id"] for at in (0, 2, 3)]
    assert [text.as_py().decode() for text in made.texts] == ["b c", "e ", "g  h"]
    assert made.tokens.bounds.tolist() == [0, 2, 3, 5]
    assert (made.starts.tolist(), made.ends.tolist()) == ([0, 2, 0, 0, 3], [1, 3, 1, 1, 4])


def block(*texts: str, tokenizer: str | None = None) -> Block:
    ids = [f"{n:032x}" for n in range(len(texts))]
    return _block(pa.record_batch({"row": np.arange(len(texts)), "id": ids, "text": list(texts)}), tokenizer)


@pytest.mark.parametrize(
    ("text", "first", "end", "left"),
    [
        ("a b c", 0, 1, "b c"),
        ("a b c", 1, 2, "a c"),
        ("a b c", 1, 3, "a"),
        ("  a b ", 0, 2, ""),
        ("a\n\n漢 🙂\u3000é", 1, 2, "a\n\n🙂\u3000é"),
        ("a \u3000b ", 1, 2, "a"),
    ],
)
def test_words_go_with_the_white_space_after_them(text: str, first: int, end: int, left: str) -> None:
    assert without(text.encode(), [to_bytes(block(text), 0, first, end)]).decode() == left


@given(st.data())
def test_words_cut_are_the_words_named(data: st.DataObject) -> None:
    texts = data.draw(st.lists(TEXT, min_size=1, max_size=3))
    made = block(*texts)
    for number, text in enumerate(texts):
        words = text.split()
        assert made.tokens.bounds[number + 1] - made.tokens.bounds[number] == len(words)
        for first, end in data.draw(ranges(len(words))):
            left = without(text.encode(), [to_bytes(made, number, first, end)]).decode()
            assert left.split() == words[:first] + words[end:]


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One token a byte, so that every character beyond ASCII is split."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return str(path)


@given(st.data())
def test_no_character_is_cut_in_two(byte_tokenizer: str, data: st.DataObject) -> None:
    text = data.draw(TEXT)
    made = block(text, tokenizer=byte_tokenizer)
    size = len(text.encode())
    assert made.tokens.bounds.tolist() == [0, size]
    for first, end in data.draw(ranges(size)):
        start, stop = to_bytes(made, 0, first, end)
        left = without(
            text.encode(), [(start, stop)] if start < stop else []
        ).decode()  # raises where a character is torn
        assert all(text.count(one) >= left.count(one) for one in set(left))
        if end < size:  # at the end, white space before the cut goes too
            assert start >= first or first == 0
        assert stop <= end or start == stop


def test_padding_and_truncation_of_a_tokenizer_are_not_obeyed(byte_tokenizer: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    texts = ["a", "a long text", "b" * 40]
    asking = Tokenizer.from_file(byte_tokenizer)
    asking.enable_padding(length=60)
    asking.enable_truncation(8)
    asking.save(str(tmp_path / "tokenizer.json"))
    made = block(*texts, tokenizer=str(tmp_path / "tokenizer.json"))
    assert np.diff(made.tokens.bounds).tolist() == [1, 11, 40]
    assert to_bytes(made, 2, 3, 8) == (3, 8)


def test_a_tokenizer_that_is_none(tmp_path: object) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_tokenizer(f"{tmp_path}/absent.json")
