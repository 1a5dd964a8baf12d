"""What is packed comes back token for token, others read it by their own specification, and damage is noticed."""

import io
import struct
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import shards
from contract.errors import DamagedError, InputError
from contract.kinds import Kind
from contract.shards import (
    CHUNK,
    ROWS,
    RowsWriter,
    TokenWriter,
    mapped,
    read_ids,
    read_index,
    read_rows,
    read_rows_header,
    read_tokens,
    rows_name,
    shards_of,
    token_type,
)

DOCUMENTS = st.lists(st.lists(st.integers(0, 70_000), min_size=1, max_size=40), min_size=1, max_size=12)
ROW = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 10)), min_size=1, max_size=4)


def joined(lists: list[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(lists))


def written(documents: list[list[int]], vocab: int, batch: int = 3) -> tuple[bytes, bytes, bytes]:
    """(tokens, index, ids) of a shard whose n-th document has the id n."""
    tokens, index, ids = io.BytesIO(), io.BytesIO(), io.BytesIO()
    writer = TokenWriter(tokens, ids, vocab)
    for at in range(0, len(documents), batch):
        some = documents[at : at + batch]
        keys = b"".join(number.to_bytes(16, "big") for number in range(at, at + len(some)))
        writer.add(np.array(joined(some), np.int64), np.array(list(map(len, some))), keys)
    assert (writer.tokens, writer.documents) == (sum(map(len, documents)), len(documents))
    assert [int(size) for sizes in writer.sizes() for size in sizes] == list(map(len, documents))
    writer.finish(index)
    return tokens.getvalue(), index.getvalue(), ids.getvalue()


def rows_file(rows: list[list[tuple[int, int]]], seq_len: int, tokens: int, batch: int = 2) -> bytes:
    sink = io.BytesIO()
    writer = RowsWriter(seq_len)
    for at in range(0, len(rows), batch):
        pieces = np.array(joined(rows[at : at + batch]))
        writer.add(np.array([len(row) for row in rows[at : at + batch]]), pieces[:, 0], pieces[:, 1])
    assert writer.rows == len(rows)
    writer.finish(sink, tokens)
    return sink.getvalue()


def reader(data: bytes) -> tuple[Any, int]:
    return lambda offset, size: data[offset : offset + size], len(data)


def megatron(index: bytes, tokens: bytes) -> list[list[int]]:
    """An independent reader of Megatron's format, from its specification: the sequences of each document, joined."""
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, count, marks = struct.unpack_from("<QBQQ", index, 9)
    assert version == 1
    letter, width = {4: ("i", 4), 8: ("H", 2)}[code]
    sizes = struct.unpack_from(f"<{count}i", index, 34)
    pointers = struct.unpack_from(f"<{count}q", index, 34 + 4 * count)
    ends = struct.unpack_from(f"<{marks}q", index, 34 + 12 * count)
    assert 34 + 12 * count + 8 * marks == len(index)
    assert (ends[0], ends[-1]) == (0, count)
    one = [list(struct.unpack_from(f"<{n}{letter}", tokens, at)) for n, at in zip(sizes, pointers, strict=True)]
    assert sum(sizes) * width == len(tokens)
    return [joined(one[begin:end]) for begin, end in pairwise(ends)]


@given(documents=DOCUMENTS, vocab=st.sampled_from([70_001, 1 << 20]))
def test_another_reader_of_the_format_finds_every_document(documents: list[list[int]], vocab: int) -> None:
    tokens, index, _ = written(documents, vocab)
    assert megatron(index, tokens) == documents


def test_small_vocabularies_take_two_bytes_a_token_and_others_read_them_too() -> None:
    assert [token_type(size).str for size in (65_536, 65_537)] == ["<u2", "<i4"]
    tokens, index, ids = written([[65_535, 1], [2]], 65_536)
    assert megatron(index, tokens) == [[65_535, 1], [2]]
    assert (tokens, ids) == (struct.pack("<3H", 65_535, 1, 2), bytes(31) + b"\x01")
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 2, 3)
    assert index == head + struct.pack("<2i", 2, 1) + struct.pack("<2q", 0, 4) + struct.pack("<3q", 0, 1, 2)


@given(documents=DOCUMENTS, data=st.data())
def test_tokens_documents_and_ids_come_back(documents: list[list[int]], data: Any) -> None:
    tokens, index_data, ids = written(documents, 70_001)
    index = read_index(*reader(index_data), "i")
    flat = joined(documents)
    owner = [number for number, document in enumerate(documents) for _ in document]
    assert (index.tokens, index.documents) == (len(flat), len(documents))
    start = data.draw(st.integers(0, len(flat) - 1))
    length = data.draw(st.integers(1, len(flat) - start))
    assert read_tokens(reader(tokens)[0], index, start, length, "t").tolist() == flat[start : start + length]
    own = index.documents_of(start, length)
    assert list(own) == sorted(set(owner[start : start + length]))
    assert read_ids(*reader(ids), own, index, "d") == [f"{number:032x}" for number in own]


@given(rows=st.lists(ROW, min_size=1, max_size=9), data=st.data())
def test_rows_come_back_whole_or_as_a_range(rows: list[list[tuple[int, int]]], data: Any) -> None:
    content = rows_file(rows, 40, 100)
    header = read_rows_header(*reader(content), "r")
    assert (header.seq_len, header.rows, header.pieces, header.tokens) == (40, len(rows), sum(map(len, rows)), 100)
    begin = data.draw(st.integers(0, len(rows)))
    end = data.draw(st.integers(begin, len(rows)))
    found = read_rows(reader(content)[0], header, "r", begin, end)
    assert [found.pieces(row) for row in range(len(found))] == rows[begin:end]
    whole = read_rows(reader(content)[0], header, "r")
    assert [whole.pieces(row) for row in range(len(whole))] == rows


def test_a_range_of_rows_is_three_byte_ranges(tmp_path: Path) -> None:
    """No reader needs the whole file: the rows 2 and 3 of four, of one piece each."""
    content = rows_file([[(at, 5)] for at in range(4)], 8, 100)
    (tmp_path / "a").write_bytes(content)
    read, size = mapped(tmp_path / "a")
    asked = []

    def noted(offset: int, count: int) -> Any:
        asked.append((offset, count))
        return read(offset, count)

    header = read_rows_header(noted, size, "r")
    rows = read_rows(noted, header, "r", 2, 4)
    assert asked == [(0, 64), (64 + 16, 24), (104 + 16, 16), (136 + 8, 8)]
    assert (rows.start.tolist(), rows.length.tolist(), rows.first.tolist()) == ([2, 3], [5, 5], [0, 1, 2])
    with pytest.raises(InputError, match="r: has 4 rows, and no rows 3 to 5"):
        read_rows(read, header, "r", 3, 5)
    with pytest.raises(InputError, match="and no rows 3 to 2"):
        read_rows(read, header, "r", 3, 2)


def test_a_map_reads_without_a_copy_and_an_empty_file_reads_as_nothing(tmp_path: Path) -> None:
    tokens, index, _ = written([[1, 2, 3]], 9)
    (tmp_path / "a").write_bytes(tokens)
    (tmp_path / "b").write_bytes(b"")
    read, size = mapped(tmp_path / "a")
    found = read_tokens(read, read_index(*reader(index), "i"), 1, 2, "t")
    assert (size, found.tolist(), found.flags.owndata) == (6, [2, 3], False)
    read, size = mapped(tmp_path / "b")
    assert (size, len(read(0, 9))) == (0, 0)


def test_more_documents_than_a_writer_holds_at_a_time() -> None:
    """Chunks meet without a gap in each of the three columns."""
    count = 2 * CHUNK + 3
    tokens, index, ids = io.BytesIO(), io.BytesIO(), io.BytesIO()
    writer = TokenWriter(tokens, ids, 1 << 20)
    sizes = np.arange(count) % 3 + 1
    writer.add(np.arange(sizes.sum()) % 1000, sizes, bytes(16 * count))
    writer.finish(index)
    found = read_index(*reader(index.getvalue()), "i")
    assert np.array_equal(np.diff(found.starts), sizes)
    rows = io.BytesIO()
    cut = RowsWriter(8)
    for _ in range(2):
        cut.add(np.ones(CHUNK + 1, np.int64), np.arange(CHUNK + 1), np.full(CHUNK + 1, 2))
    cut.finish(rows, 1 << 20)
    header = read_rows_header(*reader(rows.getvalue()), "r")
    whole = read_rows(reader(rows.getvalue())[0], header, "r")
    assert np.array_equal(whole.first, np.arange(2 * CHUNK + 3))
    assert np.array_equal(whole.start, np.tile(np.arange(CHUNK + 1), 2))


@pytest.mark.parametrize(
    ("tokens", "sizes", "ids", "message"),
    [
        ([9], [1], 16, "token id 9 is outside the vocabulary of 9"),
        ([-1], [1], 16, "is outside the vocabulary of 9"),
        ([1, 2], [1], 16, "the sizes of 1 documents do not divide 2 tokens"),
        ([1, 2], [2, 0], 32, "the sizes of 2 documents do not divide 2 tokens"),
        ([1, 2], [3, -1], 32, "the sizes of 2 documents do not divide 2 tokens"),
        ([1, 2], [2], 15, "1 documents but 15 bytes of ids"),
    ],
)
def test_documents_that_do_not_fit_are_refused(tokens: list[int], sizes: list[int], ids: int, message: str) -> None:
    sinks = io.BytesIO(), io.BytesIO()
    with pytest.raises(ValueError, match=message):
        TokenWriter(*sinks, 9).add(np.array(tokens), np.array(sizes), bytes(ids))
    assert [sink.getvalue() for sink in sinks] == [b"", b""]


def test_a_batch_of_no_documents_adds_nothing() -> None:
    index_sink = io.BytesIO()
    writer = TokenWriter(io.BytesIO(), io.BytesIO(), 9)
    writer.add(np.zeros(0, np.int64), np.zeros(0, np.int64), b"")
    writer.finish(index_sink)
    index = read_index(*reader(index_sink.getvalue()), "i")
    assert (index.tokens, index.documents) == (0, 0)


def changed(data: bytes, offset: int, kind: str, value: int) -> bytes:
    """The data with one number replaced."""
    return data[:offset] + struct.pack(f"<{kind}", value) + data[offset + struct.calcsize(kind) :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:33], "is not an index of tokens"),
        (lambda data: b"MMIDIDY" + data[7:], "is not an index of tokens"),
        (lambda data: changed(data, 9, "Q", 2), "index version 2 of ids of type 8 cannot be read"),
        (lambda data: changed(data, 17, "B", 5), "index version 1 of ids of type 5 cannot be read"),
        (lambda data: data[:-1], "is 81 bytes for 2 documents and 3 marks; the file is damaged, run pack again"),
        (lambda data: data + b"x", "is 83 bytes for 2 documents"),
        (lambda data: changed(data, 18, "Q", 1 << 63), "is 82 bytes for 9223372036854775808 documents"),
        (lambda data: changed(data, 26, "Q", 2), "2 marks"),
        (lambda data: changed(data, 34, "i", 0), "sizes and places of documents that contradict each other"),
        (lambda data: changed(data, 34, "i", -2), "contradict each other"),
        (lambda data: changed(data, 42, "q", 2), "contradict each other"),
        (lambda data: changed(data, 50, "q", 2), "contradict each other"),
        (lambda data: changed(data, 66, "q", 2), "divides a document into several sequences"),
    ],
)
def test_a_damaged_index_is_refused(change: Any, message: str) -> None:
    _, index, _ = written([[1, 2], [3]], 9)
    assert len(index) == 34 + 2 * 12 + 3 * 8
    with pytest.raises(InputError, match=f"^i: .*{message}"):
        read_index(*reader(change(index)), "i")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:63], "is not a file of rows"),
        (lambda data: b"GRISTTOK" + data[8:], "is not a file of rows"),
        (lambda data: changed(data, 8, "I", 2), "rows version 2; this code reads version 1"),
        (lambda data: changed(data, 12, "I", 0), "says a sequence length of 0 and 9 tokens"),
        (lambda data: changed(data, 12, "I", 3), "has a row of more than 4 tokens"),
        (lambda data: changed(data, 16, "Q", 1 << 62), "is 124 bytes, its header says"),
        (lambda data: changed(data, 24, "Q", 4), "is 124 bytes, its header says 136"),
        (lambda data: changed(data, 32, "Q", 8), "has a piece that is empty or outside the shard"),
        (lambda data: changed(data, 32, "Q", 1 << 62), "says a sequence length of 4 and"),
        (lambda data: data[:-1], "is 123 bytes, its header says 124"),
        (lambda data: changed(data, 64, "Q", 1), "a row without a piece, or a piece without a row"),
        (lambda data: changed(data, 72, "Q", 0), "a row without a piece, or a piece without a row"),
        (lambda data: changed(data, 72, "Q", 1 << 63), "a row without a piece, or a piece without a row"),
        (lambda data: changed(data, 80, "Q", 2), "a row without a piece, or a piece without a row"),
        (lambda data: changed(data, 80, "Q", 4), "a row without a piece, or a piece without a row"),
        (lambda data: changed(data, 88, "Q", 1 << 63), "has a piece that is empty or outside the shard"),
        (lambda data: changed(data, 88, "Q", 5), "has a piece that is empty or outside the shard"),
        (lambda data: changed(data, 112, "I", 0), "has a piece that is empty or outside the shard"),
        (lambda data: changed(data, 112, "I", 6), "has a row of more than 5 tokens"),
    ],
)
def test_damaged_rows_are_refused(change: Any, message: str) -> None:
    data = rows_file([[(0, 5)], [(5, 2), (7, 2)]], 4, 9)
    assert data[:64] == ROWS.pack(b"GRISTROW", 1, 4, 2, 3, 9)
    data = change(data)
    with pytest.raises(InputError, match=f"^r: .*{message}"):
        read_rows(reader(data)[0], read_rows_header(*reader(data), "r"), "r")


def test_tokens_and_ids_that_a_file_lacks_are_refused() -> None:
    tokens, index_data, ids = written([[1, 2], [3]], 9)
    index = read_index(*reader(index_data), "i")
    with pytest.raises(InputError, match="t: has no tokens 1 to 4"):
        read_tokens(reader(tokens)[0], index, 1, 3, "t")
    with pytest.raises(InputError, match="t: ends before byte 6; the file is damaged"):
        read_tokens(reader(tokens[:-1])[0], index, 1, 2, "t")
    with pytest.raises(InputError, match="d: is 31 bytes for 2 documents"):
        read_ids(*reader(ids[:-1]), range(0, 1), index, "d")


@given(data=st.binary(max_size=200))
def test_no_bytes_make_a_reader_fail_otherwise(data: bytes) -> None:
    """Whatever follows a right beginning is refused in one line, or is a file."""
    for start, read in ((b"MMIDIDX\x00\x00", read_index), (b"GRISTROW\x01\x00\x00\x00", read_rows_header)):
        content = start + data
        try:
            found = read(*reader(content), "x")
            if read is read_rows_header:
                read_rows(reader(content)[0], found, "x")
        except InputError:
            pass


def listed(*names: tuple[str, str, int | None]) -> Any:
    from contract.manifest import File

    files = [File(path=f"a/{name}", kind=kind, bytes=1, part=part) for name, kind, part in names]

    class Listed:
        path = "pack/x/all/manifest.json"

        def __init__(self) -> None:
            self.files = files

        def of(self, kind: Kind) -> list[File]:
            return [file for file in files if file.kind == kind]

    return Listed()


def test_the_files_of_a_shard_are_found_by_their_part() -> None:
    one = [("t.bin", "tokens", 0), ("t.idx", "token_index", 0), ("t.ids", "token_ids", 0), ("t-8.rows", "rows", 0)]
    other = [("h.bin", "heldout_tokens", 1), ("h.idx", "token_index", 1), ("h.ids", "token_ids", 1)]
    manifest = listed(*one, *other, ("t-64.rows", "rows", 0))
    (train,), (heldout,) = shards_of(manifest, Kind.TOKENS), shards_of(manifest, Kind.HELDOUT_TOKENS)
    assert (train.tokens.path, train.index.path, train.ids.path) == ("a/t.bin", "a/t.idx", "a/t.ids")
    assert [file.path for file in train.files] == ["a/t.bin", "a/t.idx", "a/t.ids", "a/t-8.rows", "a/t-64.rows"]
    assert {length: file.path for length, file in train.rows.items()} == {8: "a/t-8.rows", 64: "a/t-64.rows"}
    assert (heldout.index.path, heldout.rows) == ("a/h.idx", {})
    assert rows_name("t", 64) == "t-64.rows"


@pytest.mark.parametrize("lost", [1, 2])
def test_a_shard_without_one_of_its_files_is_refused(lost: int) -> None:
    names = [("t.bin", "tokens", 0), ("t.idx", "token_index", 0), ("t.ids", "token_ids", 0)]
    with pytest.raises(DamagedError, match=r"the shard a/t\.bin has not one index and one file of ids"):
        shards_of(listed(*names[:lost], *names[lost + 1 :]), Kind.TOKENS)


def test_a_shard_outside_a_part_and_rows_of_no_length_are_refused() -> None:
    names = [("t.bin", "tokens", None), ("t.idx", "token_index", None), ("t.ids", "token_ids", None)]
    with pytest.raises(DamagedError, match="has not one index"):
        shards_of(listed(*names), Kind.TOKENS)
    with pytest.raises(DamagedError, match="does not end in its sequence length"):
        shards_of(listed(*[(name, kind, 0) for name, kind, _ in names], ("t-x.rows", "rows", 0)), Kind.TOKENS)


def test_many_numbers_are_held_on_disk() -> None:
    spool = shards._Spool("<u8")
    spool.add(np.arange(1000))
    assert not spool._file._rolled
    spool.add(np.arange(1000, CHUNK * 2))
    assert spool._file._rolled
    first, second = spool.chunks(), spool.chunks()
    assert np.array_equal(next(first), np.arange(CHUNK))
    assert np.array_equal(np.concatenate(list(second)), np.arange(CHUNK * 2))
    assert np.array_equal(next(first), np.arange(CHUNK, CHUNK * 2)), "two readers do not disturb each other"
    spool.add(np.arange(3))
    assert [len(chunk) for chunk in spool.chunks()] == [CHUNK, CHUNK, 3]
