"""Evaluation sets in the formats in which they are published."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract import evalset
from contract.evalset import Item, Malformed, is_named_like_one, read_contents, read_members, strings

LINES = b'{"id": "x1", "question": "one", "choices": ["a", {"label": "b"}], "n": 1}\n\n"two"\n'
ITEMS = [(("one", "a", "b"), ":1"), (("two",), ":3")]


def packed_zip(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


def packed_tar(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:xz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


def items_of(name: str, data: bytes) -> list[Item]:
    return [item for _, items in read_members(name, data) for item in items]


def test_strings() -> None:
    assert list(strings({"a": "x", "b": ["y", {"c": "z", "d": 1, "task_id": "t"}], "e": None})) == ["x", "y", "z"]
    assert list(strings(json.loads('"\\ud800x"'))) == ["?x"]


@pytest.mark.parametrize(
    ("name", "data", "member"),
    [
        ("a.jsonl", LINES, "a.jsonl"),
        ("a", LINES, "a"),
        ("a.json", LINES, "a.json"),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES, "a.jsonl"),
        ("a.jsonl", LINES.replace(b"\n", b"\r\n"), "a.jsonl"),
        ("a.jsonl.gz", gzip.compress(LINES), "a.jsonl"),
        ("a.jsonl.xz", lzma.compress(LINES), "a.jsonl"),
        ("a.jsonl.bz2", bz2.compress(LINES), "a.jsonl"),
        (
            "a.zip",
            packed_zip({"d/b.jsonl.gz": gzip.compress(LINES), "d/README": b"x", "__MACOSX/b.jsonl": b"x"}),
            "a.zip/d/b.jsonl",
        ),
        ("a.tar.xz", packed_tar({"d/b.jsonl": LINES, "d/notes.txt": b"x"}), "a.tar/d/b.jsonl"),
    ],
)
def test_lines_packed_or_not(name: str, data: bytes, member: str) -> None:
    assert items_of(name, data) == [Item(member + where, fields) for fields, where in ITEMS]


def test_contents_are_unpacked_bytes_under_the_names_of_their_members() -> None:
    packed = packed_zip({"b.jsonl": LINES, "notes.txt": b"x"})
    assert dict(read_contents("a.zip", packed)) == {"a.zip/b.jsonl": LINES}
    assert dict(read_contents("b.jsonl.gz", gzip.compress(LINES))) == {"b.jsonl": LINES}
    with pytest.raises(Malformed, match=r"a\.zip cannot be read"):
        dict(read_contents("a.zip", packed[:-9]))


def test_every_member_is_named_with_its_items_even_if_it_has_none() -> None:
    read = dict(read_members("a.zip", packed_zip({"b.jsonl": LINES, "empty.csv": b""})))
    assert {name: len(items) for name, items in read.items()} == {"a.zip/b.jsonl": 2, "a.zip/empty.csv": 0}


def test_tables() -> None:
    bare = b'"What, then?",4,none,B\nAnd now?,5,all,A\n'
    assert items_of("mmlu.csv", bare) == [
        Item("mmlu.csv:1", ("What, then?", "4", "none", "B")),
        Item("mmlu.csv:2", ("And now?", "5", "all", "A")),
    ]
    headed = 'id,question,A,answer\n0,"two\nlines",x,A\n1,後,,B\n'.encode()
    assert items_of("ceval.csv", headed) == [
        Item("ceval.csv:3", ("two\nlines", "x", "A")),
        Item("ceval.csv:4", ("後", "", "B")),
    ]
    assert items_of("a.tsv", b"prompt\tanswer\none, two\tthree\n") == [Item("a.tsv:2", ("one, two", "three"))]


def test_documents() -> None:
    value = {"canary": "keep out", "examples": [{"input": "1 + 1", "target": "2"}, {"input": "3", "target": "3"}]}
    assert items_of("task.json", json.dumps(value, indent=1).encode()) == [
        Item("task.json#0", ("1 + 1", "2")),
        Item("task.json#1", ("3", "3")),
        Item("task.json", ("keep out",)),
    ]
    assert items_of("list.json", b'["a", ["b", "c"]]') == [
        Item("list.json#0", ("a",)),
        Item("list.json#1", ("b", "c")),
    ]


def test_parquet() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"question": ["q1", "q2"], "choices": [["a", "b"], ["c"]], "answer": [0, 1]}), sink)
    assert items_of("t.parquet", sink.getvalue()) == [
        Item("t.parquet#0", ("q1", "a", "b")),
        Item("t.parquet#1", ("q2", "c")),
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"a": "b"}\n{"a": \n', r"^a\.jsonl line 2 is not JSON"),
        ("a.json", b'{"a":\n "b"\n"c"}', r"^a\.json line 3 is not JSON"),
        ("a.jsonl", b'"a"\n"\xff"\n', r"^a\.jsonl line 2 is not UTF-8"),
        ("a.csv", b'x,y\n"a"b,c\n', r"^a\.csv line 2 is not CSV"),
        ("a.jsonl", b"[" * 100_000, r"^a\.jsonl line 1 is not JSON"),
        ("a.json", b"[" * 100_000, r"^a\.json line 1 is not JSON"),
        ("a.jsonl", b'"a"\n"b"\n\xff', r"^a\.jsonl line 3 is not UTF-8"),
        ("a.tsv", b'x\ty\n"a"b\tc\n', r"^a\.tsv line 2 is not CSV"),
        ("a.zip", packed_zip({"d/b.jsonl": b"{"}), r"^a\.zip/d/b\.jsonl line 1 is not JSON"),
        ("a.jsonl.gz", gzip.compress(b"{}")[:10] + b"\xff" * 20, r"^a\.jsonl\.gz cannot be read"),
        ("a.xz", lzma.compress(b"{}")[:-5], r"^a\.xz cannot be read"),
        ("a.zip", packed_zip({"b.jsonl": b"{}"})[:40], r"^a\.zip cannot be read"),
        ("a.zip", b"<html>not found</html>", r"^a\.zip cannot be read: it is not an archive"),
        ("a.tar.gz", gzip.compress(b"junk"), r"^a\.tar cannot be read: it is not an archive"),
        ("a.tgz", b"", r"^a\.tgz cannot be read: it is not an archive"),
        ("a.parquet", b"PAR1", r"^a\.parquet cannot be read"),
    ],
)
def test_what_is_wrong_is_named(name: str, data: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        items_of(name, data)


def test_bombs_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evalset, "MAX_UNPACKED", 1 << 20)
    bomb = b"\n" * ((1 << 20) + 1)
    rows = io.BytesIO()
    pq.write_table(pa.table({"question": ["x" * 100] * 20_000}), rows)
    for name, data in (
        ("a.jsonl.gz", gzip.compress(bomb)),
        ("a.jsonl.xz", lzma.compress(bomb)),
        ("a.jsonl.bz2", bz2.compress(bomb)),
        ("a.zip", packed_zip({"a.jsonl": bomb[: 1 << 19], "b.jsonl": bomb[: 1 << 19], "c.jsonl": b"\n"})),
        ("a.tar", packed_tar({"a.jsonl": bomb})),
        ("a.parquet", rows.getvalue()),
    ):
        with pytest.raises(Malformed, match=rf"^{name} cannot be read: unpacked, it has more than 1,048,576 bytes$"):
            items_of(name, data)
    assert items_of("a.jsonl.gz", gzip.compress(bomb[:-1])) == []


def encrypted_zip() -> bytes:
    """A zip file that says of its member that it is encrypted."""
    data = bytearray(packed_zip({"b.jsonl": LINES}))
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.zip", encrypted_zip(), "a.zip/b.jsonl cannot be read: it is encrypted; unpack it first"),
        (
            "a.zip",
            packed_zip({"b.zip": packed_zip({"c.jsonl": LINES})}),
            "a.zip/b.zip cannot be read: it is an archive within an archive; unpack the outer one first",
        ),
        (
            "a.zip",
            packed_zip({"b.tar.xz": packed_tar({"c.jsonl": LINES})}),
            "a.zip/b.tar cannot be read: it is an archive within an archive; unpack the outer one first",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(gzip.compress(gzip.compress(gzip.compress(LINES)))),
            "a.jsonl cannot be read: it is packed more than 3 times over",
        ),
        (
            "a.zip",
            gzip.compress(gzip.compress(gzip.compress(packed_zip({"c.jsonl": LINES})))),
            "a.zip cannot be read: it is packed more than 3 times over",
        ),
        ("a.json", b"[" + b"9" * 5000 + b"]", "a.json line 1 is not JSON: Exceeds the limit"),
    ],
)
def test_archives_and_values_that_nobody_publishes_are_refused_in_one_line(
    name: str, data: bytes, message: str
) -> None:
    with pytest.raises(Malformed) as refused:
        items_of(name, data)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_values_are_read_as_deep_as_they_can_be_and_refused_beyond(name: str) -> None:
    """Two readers go down, each with a limit of its own."""
    refused = []
    for depth in range(700, 1100, 3):
        try:
            assert [item.fields for item in items_of(name, b"[" * depth + b'"x"' + b"]" * depth)] == [("x",)]
        except Malformed as error:
            refused.append("maximum recursion depth" in str(error))
    assert all(refused)
    assert 0 < len(refused) < 134


def test_a_cell_may_be_long() -> None:
    (item,) = items_of("a.csv", b"question,answer\n" + b"x" * 200_000 + b",y\n")
    assert item.fields == ("x" * 200_000, "y")


def test_which_members_are_read() -> None:
    paths = ["a.jsonl", "d/b.JSON.gz", "c.tar.xz", "._a.csv", "d/.x/a.csv", "__MACOSX/a.csv", "README.md", "a.txt"]
    assert [is_named_like_one(path) for path in paths] == [True] * 3 + [False] * 5


def test_published_files_load_as_they_are(data_dir: Path) -> None:
    evals = data_dir / "evals"
    counted = {
        path.name: len(items_of(path.name, path.read_bytes()))
        for path in evals.rglob("*.*")
        if "mapping" not in path.name
    }
    assert counted == {
        "bbh_tasks_and_cot_prompts.tar.xz": 6511 + 27,  # with the canary of each task
        "ceval_dev_val_only.zip": 260 + 1346,
        "cmmlu_dev_val_only.zip": 335,
        "mmlu_dev_val_only.zip": 285 + 1531,
        "train.jsonl": 7473,
        "example_problem.jsonl": 1,
        "example_samples.jsonl": 6,
    }


def test_members_come_in_the_order_of_their_names_and_only_files() -> None:
    members = {"b.jsonl": b'"b"', "a.jsonl": b'"a"', ".c.jsonl": b'"c"', "d.txt": b'"d"'}
    for name, packed in (("x.zip", packed_zip(members)), ("x.tar", packed_tar(members))):
        assert [member for member, _ in read_members(name, packed)] == [f"{name}/a.jsonl", f"{name}/b.jsonl"]


@pytest.mark.parametrize("key", ["", "ID", "_id", "uid", "qid", "idx", "index", "task_id", "question_id", "example_id"])
def test_identifiers_are_no_text(key: str) -> None:
    assert list(strings({key: "x1", "text": "y"})) == ["y"]
    assert items_of("a.csv", f"{key},question\nx1,y\n".encode()) == [Item("a.csv:2", ("y",))]


@pytest.mark.parametrize("key", ["question", "Prompt", " input", "problem", "text", "context"])
def test_a_first_row_with_such_a_name_is_a_header(key: str) -> None:
    assert [item.where for item in items_of("a.csv", f"a,{key}\nx,y\n,\nz,w,extra\n".encode())] == [
        "a.csv:2",
        "a.csv:4",
    ]
    assert items_of("a.csv", f"a,{key}\nz,w,extra\n".encode())[0].fields == ("z", "w", "extra")
    assert len(items_of("a.csv", b"a,answer\nx,y\n")) == 2
