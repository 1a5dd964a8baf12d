"""crawl: how files are split and pages sorted; real captures with their damage, block lists, identifiers, the heads of files."""

import functools
import gzip
import http.server
import json
import shutil
from collections import Counter
from hashlib import blake2b
from types import SimpleNamespace

import pytest

from contract.errors import InputError
from contract.schema import PAGES, Drop
from contract.settings.corpus import Crawl
from contract.sources import Source
from contract.tables import read_rows
from perf.reading import measure
from pipelines.crawl import (
    PART_PAGES,
    FileRange,
    PartOutput,
    _fill,
    meet,
    page_id,
    page_row,
    sort_page,
    split_source,
    whole,
)
from pipelines.spark.documents import DocumentSink
from pipelines.warc.record import Loss


def source(size=1000, name="a.warc"):
    return Source(f"file:///crawl/{name}", name, size, "")


@pytest.mark.parametrize(
    ("size", "limit", "stretches"),
    [
        (10_000, 0, [(0, 2500), (2500, 5000), (5000, 7500), (7500, None)]),
        (3000, 0, [(0, None)]),
        (3001, 0, [(0, 1500), (1500, None)]),
        (10_000, 6000, [(0, 3000), (3000, None)]),
        (10_000, 3000, [(0, None)]),
        (10_000, 3001, [(0, 1500), (1500, None)]),
        (2000, 5000, [(0, None)]),
    ],
)
def test_parts_of_a_file(size, limit, stretches):
    settings = Crawl(source="x", split_bytes=3000, max_bytes_per_file=limit or None)
    parts = split_source(source(size), settings)
    assert [(part.start, part.end) for part in parts] == stretches
    assert {part.source for part in parts} == {source(size)}


def read(begun, ended):
    return PartOutput(begun=begun, ended=ended)


@pytest.mark.parametrize(
    ("stretches", "met"),
    [
        ([(0, 10), (10, 25), (25, None)], True),
        ([(0, 10), (11, None)], False),
        ([(0, 10), (9, None)], False),
        ([(0, 10)], False),
        ([(0, None)], True),
        ([(0, None), (None, None)], True),
        ([(0, 20), (None, None), (20, None)], True),
        ([(None, None)], True),
    ],
)
def test_parts_meet_where_one_begins_as_the_other_ends(stretches, met):
    assert meet([read(*one) for one in stretches]) is met


def test_only_files_whose_parts_do_not_meet_are_read_again():
    a, b = source(name="a"), source(name="b")
    parts = [FileRange(a, 0, 5), FileRange(a, 5), FileRange(b, 0, 5), FileRange(b, 5)]
    outputs = [read(0, 6), read(7, None), read(0, 5), read(5, None)]
    asked = []
    one = read(0, None)
    kept, gone = whole(parts, outputs, lambda some: asked.append(list(some)) or [one])
    assert asked == [[FileRange(a)]]
    assert [kept, gone] == [[one, *outputs[2:]], outputs[:2]]
    assert whole(parts[2:], outputs[2:], pytest.fail) == (outputs[2:], [])


def test_an_identifier_is_of_a_place():
    assert page_id("CC-MAIN-2024-10", "a.warc.gz", 5) == page_id("CC-MAIN-2024-10", "a.warc.gz", 5, 0)
    places = [("s", "a", 5, 0), ("s", "a", 5, 1), ("s", "a", 6, 0), ("s", "b", 5, 0), ("t", "a", 5, 0)]
    assert len({page_id(*place) for place in places}) == 5
    assert {len(page_id(*place)) for place in places} == {32}


def page(url="https://example.org/", payload=b"<p>text", **columns):
    given = {"url": url, "date": None, "offset": 7, "inner": 0, "payload": payload, "charset": None, "kind": "html"}
    return SimpleNamespace(**given, **({"too_large": 0} | columns))


def test_a_page_is_kept_or_goes_for_its_address_or_its_size(tmp_store):
    judge = SimpleNamespace(judge=lambda url: (Drop.URL_BLOCKED, "list: x") if "blocked" in url else None)
    sink = DocumentSink(tmp_store, "out", "crawl", "0", PAGES, "pages")
    pages = [
        page(),
        page("https://blocked.test/", b"y" * 300),
        page("https://blocked.test/large", b"", too_large=5000),
        page("https://example.org/large", b"", too_large=9000),
    ]
    for one in pages:
        sort_page(one, page_row(one, "S", "a.warc"), judge, sink)
    output = sink.close()
    kept, dropped = ([*read_rows(tmp_store, file.path)] for file in output.files)
    assert [(row["url"], row["payload"], row["file"], row["snapshot"]) for row in kept] == [
        ("https://example.org/", b"<p>text", "a.warc", "S")
    ]
    assert kept[0]["digest"] == blake2b(b"<p>text", digest_size=16).hexdigest()
    assert [(row["reason"], row["value"], row["snippet"]) for row in dropped] == [
        ("url_blocked", "list: x", "y" * 200), ("url_blocked", "list: x", ""), ("payload_too_large", "9000", ""),
    ]  # fmt: skip
    assert (output.counts.bytes_read, output.counts.bytes_kept) == (7 + 300 + 9000, 7)


def test_damage_is_counted_and_told_and_a_table_has_its_fill_of_pages(tmp_store, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.crawl.PART_PAGES", 2)
    found = iter([Loss("torn", "at 5"), page(), Loss("other", ""), page(), page()])
    judge = SimpleNamespace(judge=lambda url: None)
    sorters = [DocumentSink(tmp_store, "out", "crawl", f"{at}", PAGES, "pages") for at in range(3)]
    assert [_fill(found, sink, source(), "S", judge) for sink in sorters] == [True, False, False]
    assert [sink.counts.read for sink in sorters] == [2, 1, 0]
    assert dict(sorters[0].counts.losses) == {"torn": 1, "other": 1}
    assert capsys.readouterr().out == "crawl file:///crawl/a.warc: torn: at 5\n"


@pytest.fixture(scope="module")
def captures(data_dir, tmp_path_factory):
    """Some real capture files, the malformed ones among them, and a file that is no WARC."""
    folder = tmp_path_factory.mktemp("captures")
    for name in ("example.warc.gz", "example-wrong-chunks.warc.gz", "example-trunc.warc", "example.arc.gz", "bad.arc"):
        shutil.copy(data_dir / "warc" / "webrecorder+warcio" / name, folder)
    shutil.copy(data_dir / "warc" / "commoncrawl+whirlwind-python" / "whirlwind.warc.wet.gz", folder)
    shutil.copy(data_dir / "html_gold" / "aeb.dev.warc.gz", folder)
    (folder / "page.warc").write_bytes(b"<html>not an archive</html>")
    return folder


def test_real_captures(captures, resolve_run, run_stage, rows_of, without_spark):
    run = resolve_run(captures)
    [manifest] = run_stage(run, "crawl")
    pages = rows_of(run.store, [manifest], "pages")
    # 80 of the benchmark, one of three captures each, and Wikipedia's WET record, which is a curated host.
    assert (manifest.rows.read, manifest.rows.kept, manifest.rows.reasons) == (84, 83, {"url_curated_host": 1})
    assert len(pages) == 83
    losses = manifest.rows.losses
    assert {kind: losses[kind] for kind in ("arc_refused", "not_warc", "bad_warc_header")} == {
        "arc_refused": 2,
        "not_warc": 1,
        "bad_warc_header": 1,
    }
    assert len({page["id"] for page in pages}) == 83
    assert all(page["id"] == page_id(page["snapshot"], page["file"], page["offset"]) for page in pages)
    assert sum(len(page["payload"]) for page in pages) == manifest.rows.bytes_kept
    [drop] = rows_of(run.store, [manifest], "drops")
    assert (drop["reason"], drop["value"], drop["stage"]) == ("url_curated_host", "wikipedia.org", "crawl")


def test_the_same_files_give_the_same_identifiers(captures, resolve_run, run_stage, rows_of, without_spark):
    answers = []
    for name, extra in (("a", {}), ("b", {"crawl.skip_curated_hosts": False, "crawl.files_per_segment": 3})):
        run = resolve_run(captures, extra, name)
        answers.append({(page["id"], page["digest"]) for page in rows_of(run.store, run_stage(run, "crawl"), "pages")})
    assert len(answers[0]) == 83
    assert answers[0] < answers[1]


def test_large_files_are_read_by_several_tasks_to_the_same_end(
    captures, resolve_run, run_stage, rows_of, without_spark
):
    answers = []
    for name, split_bytes in (("whole", 1 << 30), ("split", 400_000)):
        run = resolve_run(captures, {"store": f"{captures}/../store-{name}", "crawl.split_bytes": split_bytes}, name)
        [manifest] = run_stage(run, "crawl")
        rows = [{**row, "payload": len(row["payload"])} for row in rows_of(run.store, [manifest], "pages")]
        answers.append((rows, manifest.rows))
        assert manifest.metrics["parts"] == (8 if name == "whole" else 14)
    assert answers[0] == answers[1]


def test_a_file_whose_parts_do_not_meet_is_read_again_in_one_piece(
    tmp_path, resolve_run, run_stage, rows_of, without_spark
):
    """The second part would begin within a page that holds a crawl file."""
    (tmp_path / "crawl").mkdir()

    def record(url, html):
        http_block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>" + html
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nContent-Type: application/http\r\nContent-Length: {len(http_block)}\r\n\r\n"
        return head.encode() + http_block + b"\r\n\r\n"

    inner = b"".join(record(f"http://inner.test/{n}", b"x" * 500) for n in range(50))
    outer = [record("http://outer.test/0", inner), *(record(f"http://outer.test/{n}", b"y" * 99) for n in range(1, 9))]
    (tmp_path / "crawl" / "a.warc").write_bytes(b"".join(outer))
    (tmp_path / "crawl" / "b.warc").write_bytes(b"".join(outer[1:]))
    run = resolve_run(tmp_path / "crawl", {"crawl.split_bytes": len(inner) // 2})
    [manifest] = run_stage(run, "crawl")
    pages = rows_of(run.store, [manifest], "pages")
    assert [page["url"] for page in pages] == [f"http://outer.test/{n}" for n in [*range(9), *range(1, 9)]]
    assert (manifest.rows.read, manifest.rows.kept, manifest.rows.losses) == (17, 17, {})
    written = {entry.path for entry in run.store.files(manifest.files[0].path.rpartition("/")[0])}
    assert written == {file.path for file in manifest.files}, "what the parts wrote is deleted"


def test_the_head_of_each_file_and_block_lists(captures, resolve_run, run_stage, rows_of, tmp_path):
    (tmp_path / "lists" / "news").mkdir(parents=True)
    (tmp_path / "lists" / "news" / "domains").write_text("example.com\n")
    run = resolve_run(
        captures,
        {
            "crawl.max_bytes_per_file": 500_000,
            "crawl.blocklists": [str(tmp_path / "lists")],
            "crawl.strict_words": ["NEWS"],
        },
    )
    [manifest] = run_stage(run, "crawl")
    assert 5 < manifest.rows.kept < 40
    assert "truncated_gzip" not in manifest.rows.losses
    values = Counter((row["reason"], row["value"]) for row in rows_of(run.store, [manifest], "drops"))
    assert values["url_blocked_domain", "news: example.com"] == 3
    assert values["url_strict_word", "news"] >= 1


def test_a_large_file_becomes_several_parts(data_dir, tmp_path, resolve_run, run_stage):
    (tmp_path / "crawl").mkdir()
    shutil.copy(data_dir / "html_gold" / "trafilatura_eval.dev.warc.gz", tmp_path / "crawl")
    run = resolve_run(tmp_path / "crawl", {"crawl.skip_curated_hosts": False})
    [manifest] = run_stage(run, "crawl")
    assert [file.rows for file in manifest.of("pages")] == [PART_PAGES] * 4 + [516 - 4 * PART_PAGES]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain", "one_member"])
def test_memory_does_not_follow_the_size_of_a_file(data_dir, form):
    small, large = (measure(form, data_dir, size << 20) for size in (100, 200))
    assert (small["pages"], large["pages"]) == (693, 1386)
    assert large["peak_mb"] < small["peak_mb"] + 60
    assert large["peak_mb"] < 700


def test_a_missing_block_list_stops_before_anything_is_read(captures, resolve_run, run_stage, tmp_path, without_spark):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "README").write_text("no list here")
    run = resolve_run(captures, {"crawl.blocklists": [str(tmp_path / "lists")]})
    with pytest.raises(InputError, match=r"crawl\.blocklists"):
        run_stage(run, "crawl")
    assert run.store.folders("crawl") == []


@pytest.fixture
def mirror(data_dir, tmp_path, serve):
    """A web server with two snapshots laid out as Common Crawl's."""
    folder = tmp_path / "mirror" / "crawl-data" / "CC-TEST-2024-10"
    folder.mkdir(parents=True)
    shutil.copy(data_dir / "html_gold" / "aeb.dev.warc.gz", folder / "a.warc.gz")
    (folder / "warc.paths.gz").write_bytes(gzip.compress(b"crawl-data/CC-TEST-2024-10/a.warc.gz\n"))
    listed = [{"id": "CC-TEST-2023-50"}, {"id": "CC-TEST-2024-10"}]
    (tmp_path / "mirror" / "collinfo.json").write_text(json.dumps(listed))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "mirror"))
    return serve(handler)


def test_a_mirror_of_common_crawl_over_http(mirror, captures, resolve_run, run_stage, rows_of, without_spark):
    run = resolve_run(mirror, {"crawl.max_bytes_per_file": 300_000})
    [manifest] = run_stage(run, "crawl")
    assert manifest.sources == (f"{mirror}/crawl-data/CC-TEST-2024-10/a.warc.gz",)
    pages = rows_of(run.store, [manifest], "pages")
    assert 3 < len(pages) < 30
    assert manifest.rows.losses == {"record_warcinfo": 1}
    assert {page["snapshot"] for page in pages} == {"CC-TEST-2024-10"}
    local = resolve_run(captures, {"crawl.max_bytes_per_file": 300_000}, "local")
    others = {row["digest"] for row in rows_of(local.store, run_stage(local, "crawl"), "pages")}
    assert {page["digest"] for page in pages} <= others
