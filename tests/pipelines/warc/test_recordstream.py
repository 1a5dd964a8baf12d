"""Crawl files as streams: places, and the search for the next record, whatever the sizes in which they are read."""

import gzip
import tracemalloc

import pytest

from pipelines.warc import recordsearch, recordstream
from pipelines.warc.pages import read_pages
from pipelines.warc.rangefile import RangeFile
from pipelines.warc.record import Loss
from pipelines.warc.recordsearch import first_record, next_member
from pipelines.warc.recordstream import Inflated, Plain


def starts(parts):
    """Where each part begins when they stand one after the other."""
    return [sum(map(len, parts[:at])) for at in range(len(parts))]


@pytest.fixture
def narrow(monkeypatch):
    """Everything is read in steps that are smaller than a record."""
    for module, sizes in (
        (recordstream, {"BUFFER": 61, "HEAD_BYTES": 300, "FIRST_READ": 17, "FIRST_PIECE": 13}),
        (recordsearch, {"SCAN": 50, "PROBE": 400, "MEMBER_PROBE": 400, "FIRST_READ": 17}),
    ):
        for name, size in sizes.items():
            monkeypatch.setattr(module, name, size)


@pytest.mark.parametrize("before", [None, 700, 701, 2000])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_next_record_is_found_from_anywhere(write, pages, narrow, zipped, before):
    parts = [gzip.compress(page, mtime=0) for page in pages] if zipped else pages
    offsets = starts(parts)
    search = next_member if zipped else first_record
    with RangeFile(str(write(b"".join(parts)))) as file:
        for after in (*range(1, 2 * offsets[2], 7), *offsets[1:5], *(at + 1 for at in offsets[1:5]), 10**6):
            expected = next((at for at in offsets if at >= after and (before is None or at < before)), None)
            assert search(file, after, before) == expected
    assert offsets[2] < 700 < offsets[-1]


def test_the_end_of_a_search_is_not_in_it(write, pages):
    with RangeFile(str(write(pages))) as file:
        assert first_record(file, 1, len(pages[0])) is None
        assert first_record(file, 1, len(pages[0]) + 1) == len(pages[0])
    members = [gzip.compress(page, mtime=0) for page in pages]
    with RangeFile(str(write(b"".join(members)))) as file:
        assert next_member(file, 0, 1) == 0
        assert next_member(file, 1, len(members[0])) is None
        assert next_member(file, 1, len(members[0]) + 1) == len(members[0])


def test_places_in_a_stream(write, pages):
    members = [gzip.compress(page, mtime=0) for page in pages[:3]]
    skipped = len(members[0])
    with RangeFile(str(write([members[0], members[1], b"\0" * 7, members[2]]))) as file:
        stream = Inflated(file, skipped)
        assert stream.read(10) == pages[1][:10]
        assert stream.tell() == 10
        assert stream.readall() == pages[1][10:] + pages[2]
        assert stream.tell() == len(pages[1] + pages[2])
        assert stream.place(0) == (skipped, 0)
        assert stream.place(len(pages[1]) - 1) == (skipped, len(pages[1]) - 1)
        assert stream.place(len(pages[1])) == (skipped + len(members[1]) + 7, 0)
        assert stream.place(len(pages[1]) + 5) == (skipped + len(members[1]) + 7, 5)
        assert stream.damage is None
    with RangeFile(str(write(pages[:3]))) as file:
        plain = Plain(file, len(pages[0]))
        assert plain.readall() == pages[1] + pages[2]
        assert plain.place(9) == (len(pages[0]) + 9, 0)
        assert plain.tell() == len(pages[1] + pages[2])


@pytest.mark.parametrize("inner", [b"", b"x"])
def test_members_of_nothing_and_of_little_within_a_record_take_no_memory(write, pages, inner):
    """Before, the place of each of them was kept: 3 MiB for a MiB."""
    packed = [gzip.compress(page, mtime=0) for page in pages[:2]]
    with RangeFile(str(write([packed[0], gzip.compress(inner) * 20_000, packed[1]]))) as file:
        stream = Inflated(file, 0)
        stream.bound(0, len(pages[0]) + 20_000 * len(inner), 0)
        stream.read(10)
        tracemalloc.start()
        assert len(stream.readall()) == len(pages[0]) + 20_000 * len(inner) + len(pages[1]) - 10
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert kept < 100_000
        assert stream.place(0) == (0, 0)
        end = stream.tell() - len(pages[1])
        assert stream.place(end) == (len(packed[0]) + 20_000 * len(gzip.compress(inner)), 0)
        assert stream.whole(0)


def test_a_member_is_whole_when_its_checksum_was_right(write, pages):
    members = [gzip.compress(page, mtime=0) for page in pages[:2]]
    for tail, whole in ((members[1], True), (members[1][:-1], False), (members[1][:-5] + b"????" + b"\0", False)):
        with RangeFile(str(write([members[0], tail]))) as file:
            stream = Inflated(file, 0)
            stream.read(5)
            assert stream.whole(0)
            while stream.tell() <= len(pages[0]):
                stream.read(50)
            assert stream.whole(len(pages[0]) - 1)
            assert stream.whole(len(pages[0])) is whole


def found_in(path):
    with RangeFile(str(path)) as file:
        return list(read_pages(file, 1 << 20))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("damage", ["none", "garbage", "length", "padding"])
def test_the_sizes_of_steps_change_nothing(write, pages, request, zipped, damage):
    parts = list(pages[:12])
    if damage == "garbage":
        parts[4] = b"garbage\r\n\r\n" * 40
    if damage == "length":
        length = int(parts[4].partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        parts[4] = parts[4].replace(b"Content-Length: %d" % length, b"Content-Length: %d" % (length + 900), 1)
    path = write(parts, zipped)
    if damage == "padding" and zipped:
        path.write_bytes(path.read_bytes() + b"\0" * 200)
    wide = found_in(path)
    request.getfixturevalue("narrow")
    narrow = found_in(path)

    def plainly(found):
        return [one.kind if isinstance(one, Loss) else one for one in found]

    assert plainly(narrow) == plainly(wide)
    assert [one.url[14:] for one in wide if not isinstance(one, Loss)] == [
        str(n) for n in range(12) if n != 4 or damage in ("none", "padding")
    ]
