"""What a source offers, how it is cut, and what its files are known by."""

import datetime
import gzip
import hashlib
import json
from pathlib import Path

import pytest

from contract import fetch, sources
from contract.content import WHOLE_BYTES, digests
from contract.errors import InputError, StoreError
from contract.recipe import Recipe
from contract.settings.corpus import Decontaminate
from contract.sources import (
    MAX_SEGMENTS,
    Segment,
    Source,
    check_crawl_files,
    dump_inputs,
    file_size,
    is_common_crawl,
    list_outside,
    list_segments,
    list_snapshots,
    load_inputs,
    newest_crawl,
    outside_digest,
    segment_size,
    snapshot_date,
)
from contract.store import Store

CRAWL = "CC-MAIN-2024-10"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A folder laid out as Common Crawl, with two crawls of 25 and 5 files."""
    folder = tmp_path / "mirror"
    (folder / "crawl-data").mkdir(parents=True)
    (folder / "collinfo.json").write_text(json.dumps([{"id": "CC-MAIN-2023-50"}, {"id": CRAWL}]))
    for crawl, count in ((CRAWL, 25), ("CC-MAIN-2023-50", 5)):
        (folder / "crawl-data" / crawl).mkdir()
        listing = "".join(f"crawl-data/{crawl}/{number}.warc.gz\n" for number in range(count))
        (folder / "crawl-data" / crawl / "warc.paths.gz").write_bytes(gzip.compress(listing.encode()))
    return folder


def segments_of(source: Path | str, snapshots: tuple[str, ...] = (), **crawl: int) -> list[Segment]:
    return list_segments(Recipe.model_validate({"snapshots": snapshots, "crawl": {"source": str(source), **crawl}}))


def test_the_newest_crawl_is_cut_into_segments_of_ten_files(mirror: Path) -> None:
    made = segments_of(mirror)
    assert [(one.snapshot, one.index, len(one.files)) for one in made] == [
        (CRAWL, 0, 10), (CRAWL, 1, 10), (CRAWL, 2, 5),
    ]  # fmt: skip
    assert made[1].partition == f"{CRAWL}.00001"
    path = f"crawl-data/{CRAWL}/10.warc.gz"
    assert made[1].files[0] == Source(f"{mirror}/{path}", path, 0, "")
    assert made[1].files[0].identity == f"{mirror}/{path}"


def test_a_mirrors_password_and_signature_are_no_part_of_a_file() -> None:
    def identity(uri: str) -> str:
        return Source(uri, "a", 0, "").identity

    assert (
        identity("https://me:secret@host/a?sig=x")
        == identity("https://you:other@host/a?sig=y")
        == "https://***@host/a?***"
    )
    assert identity("https://host/a") == "https://host/a" != identity("https://other/a")


def test_each_crawl_that_is_named_is_cut_by_itself(mirror: Path) -> None:
    made = segments_of(mirror, ("CC-MAIN-2023-50", CRAWL), files_per_segment=20, max_files=21)
    assert [(one.partition, len(one.files)) for one in made] == [
        ("CC-MAIN-2023-50.00000", 5), (f"{CRAWL}.00000", 20), (f"{CRAWL}.00001", 1),
    ]  # fmt: skip
    with pytest.raises(InputError, match="a name ends in year and ISO week"):
        segments_of(mirror, ("latest",))


def test_segments_grow_only_when_there_would_be_too_many() -> None:
    most = 10 * MAX_SEGMENTS
    assert [segment_size([most]), segment_size([most + 1]), segment_size([2 * most + 1])] == [10, 20, 40]
    assert segment_size([most - 10, 1]) == 10
    assert segment_size([most - 10, 11]) == 20, "each crawl's last segment counts"
    assert segment_size([]) == 10


def test_a_snapshot_is_dated_by_the_monday_of_its_week() -> None:
    assert snapshot_date("A-2020-53") == datetime.date(2020, 12, 28)
    with pytest.raises(InputError, match=r"crawl 'A-2021-53': there is no ISO week 53 in 2021"):
        snapshot_date("A-2021-53")
    for name in ("A-2021-10\n", "A-２０２１-10", "A-٢٠٢١-١٠", "A\n-2021-10"):
        with pytest.raises(InputError, match="a name ends in year and ISO week"):
            snapshot_date(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a captured file, a damaged one and what is no crawl file."""
    made = tmp_path / "my news!"
    (made / "deep").mkdir(parents=True)
    head = b"WARC/1.0\r\nWARC-Type: warcinfo\r\nWARC-Date: 2024-03-04T01:02:03Z\r\n\r\n"
    (made / "deep" / "a.warc").write_bytes(head)
    (made / "b.warc.wet.gz").write_bytes(b"damaged")
    (made / "notes.txt").write_text("x")
    return made


def test_a_folder_is_one_crawl_of_its_crawl_files(folder: Path) -> None:
    assert list_snapshots(f"{folder}/") == ["MY-NEWS-2024-10"]
    [segment] = segments_of(folder)
    store = Store(str(folder))
    held = digests(store, store.files())
    assert segment.files == (
        Source(store.full("b.warc.wet.gz"), "b.warc.wet.gz", 7, held["b.warc.wet.gz"]),
        Source(store.full("deep/a.warc"), "deep/a.warc", 66, held["deep/a.warc"]),
    )
    assert segment.files[1].identity == f"deep/a.warc:66:{held['deep/a.warc']}"
    assert [len(one.files) for one in segments_of(folder, max_files=1)] == [1]
    with pytest.raises(InputError, match="holds the crawl MY-NEWS-2024-10, not MY-NEWS-2024-11; leave `snapshots`"):
        segments_of(folder, ("MY-NEWS-2024-11",))


def test_only_the_first_files_are_asked_for_a_date(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sources.content, "capture_date", lambda _, path: asked.append(path))
    for number in range(12):
        (folder / f"{number:02d}.arc").touch()
    list_snapshots(str(folder))
    assert asked == [f"{number:02d}.arc" for number in range(8)]


def test_a_folder_that_cannot_be_listed_is_the_sources_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(store: Store, prefix: str = "") -> None:
        raise StoreError("broken")

    monkeypatch.setattr(Store, "files", fail)
    with pytest.raises(InputError, match=r"^crawl\.source /a: cannot be listed: broken"):
        list_snapshots("/a")


def test_what_a_mirror_lacks_is_named(mirror: Path) -> None:
    with pytest.raises(InputError, match=r"CC-MAIN-2022-05/warc\.paths\.gz: no such file; check crawl\.source"):
        segments_of(mirror, ("CC-MAIN-2022-05",))


def test_web_addresses_are_mirrors_and_folders_are_where_they_say_so(mirror: Path, folder: Path) -> None:
    assert is_common_crawl("http://a.test")
    assert is_common_crawl("https://a.test")
    assert is_common_crawl(str(mirror))
    assert not is_common_crawl(str(folder))


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("https://data.commoncrawl.org/", "https://index.commoncrawl.org/collinfo.json"),
        ("https://mirror.test/cc/", "https://mirror.test/cc/collinfo.json"),
    ],
)
def test_common_crawls_list_of_crawls_lies_on_another_server(
    source: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {asked: json.dumps([{"id": CRAWL}]).encode()}
    monkeypatch.setattr(fetch, "get", lambda url, *_: answers[url])
    assert list_snapshots(source) == [CRAWL]
    listed = f"{source.rstrip('/')}/crawl-data/{CRAWL}/warc.paths.gz"
    answers[listed] = gzip.compress(b"crawl-data/a.warc.gz\n")
    [segment] = segments_of(source)
    assert [file.uri for file in segment.files] == [f"{source.rstrip('/')}/crawl-data/a.warc.gz"]


def test_what_lies_beside_the_crawl_is_known_by_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "lists" / "deep").mkdir(parents=True)
    (tmp_path / "lists" / "a").write_text("one")
    (tmp_path / "lists" / "deep" / "b").write_text("three")
    (tmp_path / "bench.jsonl").write_text("x")
    recipe = Recipe.model_validate(
        {
            "crawl": {"blocklists": [str(tmp_path / "lists")]},
            "decontaminate": {"benchmarks": {"a": str(tmp_path / "bench.jsonl")}},
        }
    )
    found = list_outside(recipe)
    assert list(found) == ["crawl.blocklists.0", "decontaminate.benchmarks.a"]
    assert outside_digest(recipe, "crawl.blocklists.0") == found["crawl.blocklists.0"]
    store = Store(str(tmp_path))
    held = digests(store, store.files("lists"), "lists", WHOLE_BYTES)
    listing = f"lists/a:3:{held['lists/a']}\nlists/deep/b:5:{held['lists/deep/b']}\n"
    assert found["crawl.blocklists.0"] == hashlib.sha256(listing.encode()).hexdigest()[:16]


def test_one_letter_in_the_middle_of_a_list_is_noticed(tmp_path: Path) -> None:
    """Where a crawl file of that size is known by its ends."""
    recipe = Recipe(decontaminate=Decontaminate(benchmarks={"a": str(tmp_path / "long")}))

    def known(letter: bytes) -> dict[str, str]:
        (tmp_path / "long").write_bytes(bytes(200_000) + letter + bytes(200_000))
        return list_outside(recipe)

    assert known(b"a") != known(b"b")


def test_only_files_whose_content_is_known_are_looked_at_again(tmp_path: Path) -> None:
    check_crawl_files(Segment(CRAWL, 0, (Source("https://nowhere.test/a", "a", 0, ""),)))
    [segment] = (Segment("X-2024-10", 0, (Source(f"{tmp_path}/a", "a", 1, "held"),)),)
    with pytest.raises(InputError, match="the crawl file is gone"):
        check_crawl_files(segment)
    after_a_mirrors = Segment(CRAWL, 0, (Source("https://nowhere.test/a", "a", 0, ""), *segment.files))
    with pytest.raises(InputError, match="the crawl file is gone"):
        check_crawl_files(after_a_mirrors)


def test_a_file_that_grew_is_not_read_to_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"12")
    monkeypatch.setattr(sources.content, "digests", None)
    with pytest.raises(InputError, match="the crawl file changed"):
        check_crawl_files(Segment("X-2024-10", 0, (Source(f"{tmp_path}/a", "a", 1, "held"),)))


def test_a_size_is_asked_for_only_where_the_listing_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "size", lambda url, *_: {"http://a.test/x": 7, "https://a.test/x": 8}[url])
    assert file_size(Source("http://a.test/x", "x", 3, "")) == 3
    assert file_size(Source("http://a.test/x", "x", 0, "")) == 7
    assert file_size(Source("https://a.test/x", "x", 0, "")) == 8
    (tmp_path / "x").write_bytes(b"12345")
    assert file_size(Source(f"{tmp_path}/x", "x", 0, "")) == 5
    assert file_size(Source(f"{tmp_path}/y", "y", 0, "")) == 0


def test_inputs_are_read_back_as_they_were_written() -> None:
    segments = [
        Segment("X-2024-10", 3, (Source("u", "n", 5, "c"), Source("v", "m", 0, ""))),
        Segment("Y-2024-11", 0, ()),
    ]
    assert load_inputs(dump_inputs(segments, {"instructions.data": "d"})) == (segments, {"instructions.data": "d"})
    path = dump_inputs(segments, {}).replace(b'"index": 3', b'"index": "../3"')
    deep = b"[" * 200_000
    for old in (
        b"{}",
        b'{"segments": [{}], "outside": {}}',
        b'{"segments": [], "outsides": {}}',
        b"[]",
        b"{",
        b"\xff",
        deep,
        path,
    ):
        with pytest.raises(InputError, match="another version of Gristmill resolved this run"):
            load_inputs(old)


def test_a_segments_name_is_a_crawls_because_paths_are_made_of_it() -> None:
    made = dump_inputs([Segment("../../X-2024-10", 3, ())], {})
    with pytest.raises(InputError, match=r"crawl '\.\./\.\./X-2024-10': a name ends in year and ISO week"):
        load_inputs(made)


@pytest.mark.parametrize(
    "path", ["../x.warc.gz", "a/../../x.warc.gz", "/etc/x.warc.gz", "a//x.warc.gz", "a/%2e%2e/x.warc.gz"]
)
def test_a_mirrors_list_names_only_files_below_it(mirror: Path, path: str) -> None:
    listing = gzip.compress(f"crawl-data/{CRAWL}/0.warc.gz\n{path}\n".encode())
    (mirror / "crawl-data" / CRAWL / "warc.paths.gz").write_bytes(listing)
    with pytest.raises(
        InputError, match=r"warc\.paths\.gz: lists '.*', which is not a path below the source; check crawl\.source"
    ):
        segments_of(mirror)
    assert len(segments_of(mirror, max_files=1)) == 1


def test_the_newest_crawl_is_the_latest_and_of_one_week_the_last_by_name() -> None:
    for names, newest in (
        (("A-2024-10", "B-2023-52"), "A-2024-10"),
        (("B-2023-52", "A-2024-10"), "A-2024-10"),
        (("NEWS-2024-10", "CC-2024-10"), "NEWS-2024-10"),
    ):
        assert newest_crawl(Recipe(snapshots=names)) == newest
