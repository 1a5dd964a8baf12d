"""Cuts in bytes: composed over passes, never inside a character, the same for words and for a tokenizer's ids."""

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError
from contract.schema import DOCUMENTS, Drop
from contract.store import Store
from pipelines.dedup.tokens import (
    CUTS,
    Block,
    Item,
    _block,
    blocks,
    compose,
    load_tokenizer,
    read_cuts,
    to_bytes,
    without,
)
from pipelines.spark.job import DocumentSink, TableWriter
from pipelines.spark.survivors import Part

TEXT = st.text("ab é漢🙂\n\u3000", max_size=30)


def ranges(size: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Disjoint, ascending, not empty."""
    points = st.lists(st.integers(0, size), unique=True, max_size=8).map(sorted)
    return points.map(lambda found: list(zip(found[::2], found[1::2], strict=False)))


@given(st.data())
def test_composed_cuts_leave_what_two_passes_leave(data: st.DataObject) -> None:
    text = bytes(data.draw(st.lists(st.integers(0, 255), max_size=40)))
    first = data.draw(ranges(len(text)))
    left = without(text, first)
    later = data.draw(ranges(len(left)))
    both = compose(first, later)
    assert without(text, both) == without(left, later)
    assert all(start < end for start, end in both)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(both))


def test_many_cuts_are_composed_in_one_walk() -> None:
    first = [(4 * at, 4 * at + 1) for at in range(20_000)]
    later = [(3 * at + 1, 3 * at + 2) for at in range(20_000)]
    began = time.process_time()
    assert compose(first, later) == [
        cut for at in range(20_000) for cut in ((4 * at, 4 * at + 1), (4 * at + 2, 4 * at + 3))
    ]
    assert time.process_time() - began < 2


def test_blocks_of_long_texts_are_small(tmp_store: Store, make_document: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.dedup.tokens.BLOCK_BYTES", 100)
    texts = ["a" * size for size in (10, 60, 29, 1, 150, 250, 5, 5)]
    writer = TableWriter(tmp_store, "documents.parquet", "documents", DOCUMENTS)
    for text in texts:
        writer.write(make_document(text), len(text))
    (file,) = writer.close()
    made = list(blocks(tmp_store, Item(Part(file)), None))
    assert [one.rows.tolist() for one in made] == [[0, 1, 2], [3], [4], [5, 6, 7]]
    assert [text.as_py().decode() for one in made for text in one.texts] == texts
    chosen = blocks(tmp_store, Item(Part(file)), None, np.array([3, 6]))
    assert [one.rows.tolist() for one in chosen] == [[], [3], [], [6]]


def test_a_text_without_its_cuts() -> None:
    assert without(b"0123456789", []) == b"0123456789"
    assert without(b"0123456789", [(0, 2), (5, 6), (8, 10)]) == b"23467"


def test_cuts_of_a_second_pass_are_cuts_of_the_original() -> None:
    assert compose([(2, 4)], [(0, 1), (2, 3)]) == [(0, 1), (2, 5)]  # of 01456789
    assert compose([(2, 4)], [(1, 3)]) == [(1, 5)]
    assert compose([(2, 4), (6, 7)], [(3, 5)]) == [(2, 4), (5, 8)]  # of 014589
    assert compose([(2, 4)], []) == [(2, 4)]
    assert compose([], [(3, 5)]) == [(3, 5)]


def test_blocks_have_what_is_left_of_what_is_left(tmp_store: Store, make_document: Any) -> None:
    """Of four documents one was dropped, and earlier passes cut two."""
    rows = [make_document(text, name=str(at)) for at, text in enumerate(("é b c", "dropped", "d e f", "g  h"))]
    writer = TableWriter(tmp_store, "documents.parquet", "documents", DOCUMENTS)
    for row in rows:
        writer.write(row)
    (file,) = writer.close()
    drops = DocumentSink(tmp_store, "out", "dedup_url", "00000-0123abcd")
    drops.drop(rows[1], Drop.DUPLICATE_URL)
    cuts = TableWriter(tmp_store, "cuts.parquet", "cuts", CUTS)
    for row, start, end in ((0, 0, 3), (2, 0, 2), (2, 4, 5)):
        cuts.write({"row": row, "id": rows[row]["id"], "start": start, "end": end})
    item = Item(Part(file, tuple(drops.close().files)), cuts.close()[0])
    assert read_cuts(tmp_store, item) == {0: [(0, 3)], 2: [(0, 2), (4, 5)]}
    assert read_cuts(tmp_store, Item(Part(file))) == {}
    (made,) = blocks(tmp_store, item, None)
    assert made.rows.tolist() == [0, 2, 3]
    assert list(made.ids) == [rows[at]["id"] for at in (0, 2, 3)]
    assert [text.as_py().decode() for text in made.texts] == ["b c", "e ", "g  h"]
    assert made.tokens.bounds.tolist() == [0, 2, 3, 5]
    assert (made.starts.tolist(), made.ends.tolist()) == ([0, 2, 0, 0, 3], [1, 3, 1, 1, 4])


def block(*texts: str, tokenizer: str | None = None) -> Block:
    batch = pa.record_batch({"id": [f"{n:032x}" for n in range(len(texts))], "text": list(texts)})
    return _block(batch, np.arange(len(texts)), {}, tokenizer)


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
