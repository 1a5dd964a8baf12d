"""Rows of every kind of file, whole and damaged: what is good is read, what is not is counted, and nothing ends the reading."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError, StoreError
from contract.examples import MAX_LINE_BYTES, Unusable
from contract.schema import Drop
from contract.store import Store
from pipelines.sources import files
from pipelines.sources.files import elements, list_files, rows_of

ROWS = [{"text": "one"}, {"text": "zwei \u00fc"}, {"text": '3, [x] \\ " {'}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
ARRAY = json.dumps(ROWS, indent=1).encode()


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def read(folder: Path, name: str, data: bytes, **how: Any) -> list[Any]:
    """The values of a file's rows, and the reasons where there is none."""
    (folder / name).write_bytes(data)
    rows = list(rows_of(Store(str(folder)), name, **how))
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    return [row.value.reason if isinstance(row.value, Unusable) else row.value for row in rows]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gz", "zst"])
@pytest.mark.parametrize("content", [LINES, LINES.replace(b"\n", b"\r\n\r\n"), b"\xef\xbb\xbf" + LINES, ARRAY], ids=["lines", "windows", "bom", "array"])  # fmt: skip
def test_rows_are_the_same_however_they_are_packed(tmp_path: Path, pack: Any, content: bytes) -> None:
    assert read(tmp_path, "a.whatever", pack(content)) == ROWS


def test_parquet_keeps_its_nested_columns(tmp_path: Path) -> None:
    rows = [{"text": f"{number}", "meta": {"pile_set_name": "ArXiv"}} for number in range(200)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=50)
    assert [row.value for row in rows_of(Store(str(tmp_path)), "a.parquet")] == rows


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gz", "zst"])
def test_a_file_of_plain_text_is_one_row(tmp_path: Path, pack: Any) -> None:
    assert read(tmp_path, "book.txt.gz", pack("\ufeffOnce\nupon {".encode())) == [{"text": "Once\nupon {"}]
    assert read(tmp_path, "README", pack(b'{"text": "x"}'), text=True) == [{"text": '{"text": "x"}'}]


def test_a_bad_line_costs_that_line_only(tmp_path: Path) -> None:
    bad = [b"{", b"\xff\xfe\x00", b"[" * 100_000, b'"text"', b"null"]
    data = b"\n".join([b'{"text": "a"}', *bad, b'{"text": "b"}'])
    assert read(tmp_path, "a.jsonl", data) == [
        {"text": "a"}, Drop.NOT_JSON, Drop.NOT_UTF8, Drop.NOT_JSON, "text", None, {"text": "b"}
    ]  # fmt: skip


def test_text_in_another_encoding_is_counted(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", "größer".encode("latin-1")) == [Drop.NOT_UTF8]
    assert read(tmp_path, "a.jsonl", '{"text": "größer"}\n{"text": "a"}'.encode("utf-16")) == [
        Drop.NOT_UTF8, Drop.NOT_JSON
    ]  # fmt: skip


def test_a_line_that_is_too_long_is_never_held(tmp_path: Path) -> None:
    long = b'{"text": "' + b"x" * MAX_LINE_BYTES + b'"}'
    assert read(tmp_path, "a.jsonl", b'{"text": "a"}\n' + long + b'\n{"text": "b"}') == [
        {"text": "a"}, Drop.ROW_TOO_LONG, {"text": "b"}
    ]  # fmt: skip
    assert read(tmp_path, "a.json", b'[{"text": "a"},' + long + b', {"text": "b"}]') == [
        {"text": "a"}, Drop.ROW_TOO_LONG, {"text": "b"}
    ]  # fmt: skip
    assert read(tmp_path, "a.txt", b"x" * (MAX_LINE_BYTES + 1)) == [Drop.ROW_TOO_LONG]
    assert len(read(tmp_path, "a.txt", b"x" * MAX_LINE_BYTES)[0]["text"]) == MAX_LINE_BYTES


@pytest.mark.parametrize("pack", [gzip.compress, zstd], ids=["gz", "zst"])
@pytest.mark.parametrize("several", [1, 2])
def test_a_download_that_was_cut_off_gives_what_it_has(tmp_path: Path, pack: Any, several: int) -> None:
    rows = [{"text": str(number) * 50} for number in range(20_000)]
    whole = b"".join(pack(b"".join(json.dumps(row).encode() + b"\n" for row in rows)) for _ in range(several))
    assert read(tmp_path, "a", whole) == rows * several
    found = read(tmp_path, "a", whole[: int(len(whole) * 0.9)])
    assert found[-1] == Drop.DAMAGED_FILE
    assert found[:-1] == (rows * several)[: len(found) - 1]
    assert len(found) > 1000


def test_a_damaged_file_is_one_loss(tmp_path: Path) -> None:
    assert read(tmp_path, "a.gz", b"\x1f\x8b" + b"\xff" * 100) == [Drop.DAMAGED_FILE]
    assert read(tmp_path, "a.parquet", b"PAR1" + b"\x00" * 100) == [Drop.DAMAGED_FILE]
    assert read(tmp_path, "empty", b"") == []
    assert read(tmp_path, "a.json", ARRAY[:-1]) == [*ROWS[:2], Drop.DAMAGED_FILE]
    assert read(tmp_path, "a.json", b"[]") == []
    assert read(tmp_path, "a.json", b"[1") == [Drop.DAMAGED_FILE]


def test_a_store_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "_values", broken)
    with pytest.raises(StoreError, match="Input/output error"):
        list(rows_of(Store(str(tmp_path)), "a"))
    monkeypatch.undo()
    with pytest.raises(InputError, match="a: is gone since the run was resolved"):
        list(rows_of(Store(str(tmp_path)), "a"))


VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(st.sampled_from('ab"\\[]{},: \u00fc')), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)  # fmt: skip


@given(rows=st.lists(VALUES, max_size=8), indent=st.sampled_from([None, 1]), piece=st.integers(1, 40))
def test_the_elements_of_an_array_are_found_whatever_they_hold(rows: list[Any], indent: int | None, piece: int) -> None:
    data = json.dumps(rows, indent=indent).encode()
    before, files.PIECE = files.PIECE, piece
    try:
        found = list(elements(io.BufferedReader(io.BytesIO(b" \n" + data + b"\n"))))
        cut = list(elements(io.BufferedReader(io.BytesIO(data[:-1]))))
    finally:
        files.PIECE = before
    assert [json.loads(one) for one in found if isinstance(one, bytes)] == rows
    assert len(found) == len(rows)
    assert isinstance(cut[-1], Unusable)


def test_what_a_folder_holds(tmp_path: Path) -> None:
    names = [
        "b.jsonl.zst",
        "a/x.json.gz",
        "c.parquet",
        "d.TXT",
        "README.md",
        "_SUCCESS",
        ".hidden.jsonl",
        "_tmp/e.jsonl",
    ]
    for name in names:
        (tmp_path / "books" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "books" / name).write_text("x")
    store, found, others = list_files("k", str(tmp_path / "books"))
    assert store.uri == Store(str(tmp_path)).uri
    assert [file.path for file in found] == ["books/a/x.json.gz", "books/b.jsonl.zst", "books/c.parquet", "books/d.TXT"]
    assert others == 4
    assert len(list_files("k", str(tmp_path / "books"), text=True)[1]) == 5
    assert [file.path for file in list_files("k", str(tmp_path / "books" / "README.md"))[1]] == ["README.md"]
    with pytest.raises(InputError, match=r"^k: .*/nothing: no such file or folder"):
        list_files("k", str(tmp_path / "nothing"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.csv").write_text("x")
    with pytest.raises(InputError, match=r"^k: .*/other: none of its 1 files ends in .jsonl"):
        list_files("k", str(tmp_path / "other"))
