"""What a file holds is told by its bytes, never by when it was written."""

import gzip
import os
from pathlib import Path

import pytest

from contract import content
from contract.content import END_BYTES, capture_date, digests
from contract.store import Store

HEAD = b"WARC/1.0\r\nWARC-Type: warcinfo\r\nWARC-Date: 2024-03-04T05:06:07Z\r\n\r\n"


def digest_of(folder: Path, data: bytes, **given: int) -> str:
    (folder / "a").write_bytes(data)
    store = Store(str(folder))
    return digests(store, store.files(), **given)["a"]


def test_a_touched_file_holds_what_it_held(tmp_path: Path) -> None:
    before = digest_of(tmp_path, b"words")
    os.utime(tmp_path / "a", (1, 1))
    store = Store(str(tmp_path))
    assert digests(store, store.files())["a"] == before
    assert digest_of(tmp_path, b"wordz") != before


def test_the_ends_of_a_large_file_and_stretches_between_tell_what_it_holds(tmp_path: Path) -> None:
    data = bytes((2 + 16) * END_BYTES)  # 16 stretches, each in the middle of 64 KiB
    before = digest_of(tmp_path, data)

    def changed(at: int) -> bool:
        return digest_of(tmp_path, data[:at] + b"x" + data[at + 1 :]) != before

    assert all(changed(at) for at in (0, END_BYTES - 1, len(data) - END_BYTES, len(data) - 1))
    for part in range(1, 17):
        centre = part * END_BYTES + END_BYTES // 2
        assert [changed(centre + by) for by in (-2049, -2048, 2047, 2048)] == [False, True, True, False]
    os.utime(tmp_path / "a", (1, 1))
    assert digest_of(tmp_path, data) == before
    middle = data[:END_BYTES] + b"x" + data[END_BYTES + 1 :]
    assert digest_of(tmp_path, middle) == before
    assert digest_of(tmp_path, middle, whole_bytes=len(data)) != digest_of(tmp_path, data, whole_bytes=len(data))


@pytest.mark.parametrize("between", [1, 4096, END_BYTES])
def test_every_byte_of_a_little_larger_file_is_looked_at(tmp_path: Path, between: int) -> None:
    data = bytes(2 * END_BYTES + between)
    before = digest_of(tmp_path, data)
    for at in {END_BYTES, END_BYTES + between // 2, END_BYTES + between - 1}:
        assert digest_of(tmp_path, data[:at] + b"x" + data[at + 1 :]) != before


def test_a_file_with_holes_is_not_the_complete_one(tmp_path: Path) -> None:
    """Each of four connections has brought the first half of its quarter, and the last one the end as well."""
    data = b"w" * (4 << 20)
    quarter = len(data) // 4
    holes = bytearray(data)
    for start in range(quarter // 2, len(data) - quarter, quarter):
        holes[start : start + quarter // 2] = bytes(quarter // 2)
    assert digest_of(tmp_path, bytes(holes)) != digest_of(tmp_path, data)


def test_a_file_is_read_whole_up_to_the_limit_and_not_above(tmp_path: Path) -> None:
    data = bytes(4 * END_BYTES)
    middle = data[: 2 * END_BYTES] + b"x" + data[2 * END_BYTES + 1 :]  # between two stretches
    for limit, noticed in ((len(data), True), (len(data) - 1, False)):
        held = [digest_of(tmp_path, one, whole_bytes=limit) for one in (data, middle)]
        assert (held[0] != held[1]) == noticed
    assert len(held[0]) == 32
    assert (END_BYTES, content.WHOLE_BYTES) == (65_536, 67_108_864), "other ones make files others that are the same"


@pytest.mark.parametrize("zipped", [True, False])
def test_the_first_record_tells_when_a_file_was_captured(tmp_path: Path, zipped: bool) -> None:
    def date(head: bytes) -> str:
        (tmp_path / "a.warc").write_bytes(gzip.compress(head * 9) if zipped else head * 9)
        return str(capture_date(Store(str(tmp_path)), "a.warc"))

    assert date(HEAD) == "2024-03-04"
    assert date(HEAD.replace(b"\r\n", b"\n").replace(b"WARC-Date:", b"warc-date: ")) == "2024-03-04"
    assert date(HEAD.replace(b"2024", b"1991")) == "1991-03-04"
    late = b"WARC/1.0\r\nX: " + b"x" * END_BYTES
    assert date(late + b"\r\n" + HEAD[10:]) == "None", "only the head is looked at"
    for bad in (b"", b"XXXX" + HEAD, HEAD.replace(b"-03-", b"-13-"), HEAD.replace(b"2024", b"1990"), b"WARC/1.0\r\n"):
        assert date(bad) == "None"


def test_a_damaged_head_tells_no_date(tmp_path: Path) -> None:
    (tmp_path / "a.warc.gz").write_bytes(b"\x1f\x8b\x08" + b"\xff" * 99)
    assert capture_date(Store(str(tmp_path)), "a.warc.gz") is None


def test_an_object_on_s3_is_known_by_its_etag(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_digest", None)  # nothing is read
    for path, data in (("x/a", b"one"), ("x/b", b"one"), ("xy", b"two"), ("x/c/d", b"three")):
        s3_store.write_bytes(path, data)
    held = digests(s3_store, s3_store.files())
    assert held["x/a"] == held["x/b"] != held["xy"] != held["x/c/d"]
    assert digests(s3_store, s3_store.files("x"), "x") == {path: held[path] for path in ("x/a", "x/b", "x/c/d")}
    below = Store(f"{s3_store.uri}/x")
    assert digests(below, below.files()) == {"a": held["x/a"], "b": held["x/b"], "c/d": held["x/c/d"]}
    s3_store.write_bytes("x/a", b"one")
    assert digests(s3_store, s3_store.files())["x/a"] == held["x/a"]
    s3_store.write_bytes("x/a", b"uno")
    assert digests(s3_store, s3_store.files())["x/a"] != held["x/a"]
