"""Reading crawl files: what is a page, what is a loss, and that damage costs only what it hit."""

import datetime
import gzip
import itertools
import random
import time
import zlib
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.schema import PAGES
from pipelines.crawl import PartOutput, meet, page_row
from pipelines.warc.pages import Span, read_pages
from pipelines.warc.rangefile import RangeFile
from pipelines.warc.record import Loss, Page

LIMIT = 1 << 20


def read(path, limit=LIMIT, head=None):
    """(pages, losses by kind) of a file."""
    with RangeFile(str(path), head) as file:
        found = list(read_pages(file, limit))
    return [one for one in found if isinstance(one, Page)], Counter(one.kind for one in found if isinstance(one, Loss))


def read_cut(path, cuts, head=None):
    """`read` in spans between the cuts, and whether the spans met."""
    found, parts = [], []
    for start, end in itertools.pairwise([0, *sorted(cuts), None]):
        span = Span(start, end)
        with RangeFile(str(path), head) as file:
            found += read_pages(file, LIMIT, span)
        parts.append(PartOutput(begun=span.begun, ended=span.ended))
    losses = Counter(one.kind for one in found if isinstance(one, Loss))
    return [one for one in found if isinstance(one, Page)], losses, meet(parts)


def test_every_record_of_a_gzip_file_with_its_members_offset(write, pages):
    found, losses = read(write(pages, zipped=True))
    sizes = [len(gzip.compress(page, mtime=0)) for page in pages]
    assert [page.url for page in found] == [f"http://a.test/{n}" for n in range(20)]
    assert [page.offset for page in found] == [0, *itertools.accumulate(sizes)][:20]
    assert {page.inner for page in found} == {0}
    assert not losses
    first = found[0]
    assert first.payload.startswith(b"<html><body>page 0 ")
    assert (first.charset, first.kind, first.date.isoformat()) == ("utf-8", "html", "2024-03-04T01:02:03+00:00")


def test_plain_file_and_one_gzip_member_around_it_give_the_same_pages(write, pages):
    plain, _ = read(write(pages))
    whole, losses = read(write(b"".join(pages), zipped=True))
    assert [page.payload for page in plain] == [page.payload for page in whole]
    assert {page.offset for page in whole} == {0}
    assert [page.inner for page in whole] == [page.offset for page in plain]  # so identifiers differ
    assert not losses


def test_truncated_gzip_is_noticed(write, pages):
    path = write(pages, zipped=True)
    path.write_bytes(path.read_bytes()[:-30])
    found, losses = read(path)
    assert len(found) == 19
    assert losses == {"truncated_gzip": 1}


def test_corruption_in_mid_file_costs_one_record(write, pages):
    path = write(pages, zipped=True)
    data = bytearray(path.read_bytes())
    at = sum(len(gzip.compress(page, mtime=0)) for page in pages[:7]) + 40
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(data)
    found, losses = read(path)
    assert [page.url[-2:].strip("/") for page in found] == [str(n) for n in range(20) if n != 7]
    assert losses == {"corrupt_gzip": 1}


@pytest.mark.parametrize("short", [None, 0, 10])
def test_each_damage_costs_one_record_in_a_limited_file_too(write, response, short):
    """The search for the record behind a damage reads up to the limit, which must not pass for the end of what is read."""
    members = [gzip.compress(response(f"http://a.test/{n}", b"<html>%d" % n), mtime=0) for n in range(200)]
    for n in (50, 120):
        members[n] = members[n][:40] + b"\xff" * 8 + members[n][48:]
    path = write(b"".join(members))
    found, losses = read(path, head=None if short is None else path.stat().st_size - short)
    whole = 199 if short else 200  # without its checksum the last one is not known to be right
    assert [page.url[14:] for page in found] == [str(n) for n in range(whole) if n not in (50, 120)]
    assert losses == {"corrupt_gzip": 2}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("bad", [{0}, {0, 4}, {2, 3}, {2, 5}, {0, 19}, {19}])
def test_records_with_a_bad_first_line_are_lost_alone_and_by_name(write, pages, bad, zipped):
    damaged = [page.replace(b"WARC/1.0", b"WARC/ARC/1.0") if index in bad else page for index, page in enumerate(pages)]
    found, losses = read(write(damaged, zipped=zipped))
    assert [page.url for page in found] == [f"http://a.test/{n}" for n in range(20) if n not in bad]
    assert losses == {"bad_warc_header": 1 if bad == {2, 3} else len(bad)}  # neighbours are one damaged stretch


def test_records_of_the_oldest_version_are_found_again_behind_damage(write, pages):
    old = [page.replace(b"WARC/1.0", b"WARC/0.17") for page in pages]
    old[3] = b"garbage\r\n\r\n"
    for zipped in (True, False):
        found, losses = read(write(old, zipped=zipped))
        assert (len(found), losses) == (19, {"bad_warc_header": 1})


def test_bytes_between_gzip_members_cost_nothing_but_are_counted(write, pages):
    path = write(pages[:2], zipped=True)
    rest = b"".join(gzip.compress(page) for page in pages[2:])
    path.write_bytes(path.read_bytes() + b"not gzip at all" + rest)
    found, losses = read(path)
    assert len(found) == 20
    assert losses == {"corrupt_gzip": 1}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(1, 255)), min_size=1, max_size=4))
def test_whatever_is_damaged_no_page_comes_out_wrong(flips, write, pages):
    path = write(pages, zipped=True)
    data = bytearray(path.read_bytes())
    for place, change in flips:
        data[int(place * len(data))] ^= change
    path.write_bytes(data)
    original = {f"http://a.test/{n}": page for n, page in enumerate(pages)}
    found, losses = read(path)
    for page in found:
        assert original[page.url].endswith(page.payload + b"\r\n\r\n")
    assert len(found) + len(flips) >= 20
    assert len(found) == 20 or losses


@pytest.mark.parametrize("short", [0, 6, 12])  # the limit cuts nothing, the last checksum, the end of the last member
def test_a_page_with_a_wrong_checksum_is_never_kept_not_even_the_last(write, pages, short):
    path = write(pages[:2], zipped=True)
    data = path.read_bytes()
    original = {f"http://a.test/{n}": page for n, page in enumerate(pages[:2])}
    last = len(gzip.compress(pages[0], mtime=0))
    for bit in range(last * 8 if short else 0, len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found, losses = read(path, head=len(data) - short if short else None)
        for page in found:
            assert original[page.url].endswith(page.payload + b"\r\n\r\n"), bit
        if not short:
            assert len(found) + losses.total() == 2, bit  # each page is there or is counted
    path.write_bytes(data)
    found, losses = read(path, head=len(data) - short if short else None)
    assert ([page.url[14:] for page in found], losses) == (["0"] if short else ["0", "1"], {})


def test_a_sound_page_before_bytes_that_are_no_record_is_kept_when_its_member_is_whole(write, pages):
    path = write([pages[0] + b"garbage " * 300_000], zipped=True)
    found, losses = read(path)
    assert ([page.url for page in found], losses) == (["http://a.test/0"], {"bad_warc_header": 1})
    path.write_bytes(path.read_bytes()[:-1])
    assert read(path) == ([], {"truncated_gzip": 1})


def test_garbage_in_a_plain_file(write, pages):
    found, losses = read(write([*pages[:3], b"garbage garbage\r\nmore\r\n\r\n", *pages[3:]]))
    assert len(found) == 20
    assert losses == {"bad_warc_header": 1}


@pytest.mark.parametrize("short", [0, 10])
def test_garbage_just_before_the_limit_of_a_plain_file(write, pages, short):
    path = write([*pages[:3], b"garbage garbage\r\nmore\r\n\r\n", *pages[3:]])
    found, losses = read(path, head=path.stat().st_size - short)
    assert len(found) == (19 if short else 20)  # the limit cuts the last one
    assert losses == {"bad_warc_header": 1}


def test_record_cut_off_at_the_end_of_a_plain_file(write, pages):
    found, losses = read(write(b"".join(pages)[:-100]))
    assert len(found) == 19
    assert losses == {"truncated_record": 1}


@pytest.mark.parametrize("zipped", [True, False])
def test_reading_only_the_head_is_no_damage(write, pages, zipped):
    path = write(pages, zipped=zipped)
    size = path.stat().st_size
    for head in range(size // 2, size // 2 + 400, 13):
        found, losses = read(path, head=head)
        assert 5 <= len(found) <= 12
        assert not losses


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty_file"),
        (b"<html>no archive</html>", "not_warc"),
        (b"filedesc://x.arc 0.0.0.0 20240101000000 text/plain 76\n", "arc_refused"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_are_no_warc(write, content, kind, zipped):
    found, losses = read(write(content, zipped=zipped and bool(content)))
    assert not found
    assert losses == {kind: 1}


def test_records_that_are_no_pages_are_counted_by_kind(write, record, response):
    html = b"<html>x</html>"
    parts = [
        record("warcinfo", "", b"software: test\r\n", "application/warc-fields"),
        record("request", "http://a.test/", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request"),
        record("revisit", "http://a.test/", b"HTTP/1.1 200 OK\r\n\r\n"),
        record("response", "dns:a.test", b"a.test. 1 IN A 127.0.0.1", "text/dns"),
        record("response", "", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + html),
        record("response", "http://a.test/", b"gibberish without any header"),
        response("http://a.test/", html, status="404 Not Found"),
        response("http://a.test/", html, status="301 Moved"),
        response("http://a.test/", b"%PDF-1.7", "Content-Type: application/pdf"),
        response("http://a.test/", b"\x89PNG\r\n", "Content-Type: text/html"),
        response("http://a.test/", b"plain words", "Content-Type: text/plain"),
        response("http://a.test/", b"\x00\x01", "Content-Type: text/html\r\nContent-Encoding: lzw"),
        response("http://a.test/" + "a/" * 4089 + "b", html),
        response("http://a.test/" + "a/" * 4089, html),
        response("http://a.test/ok", html, "X-Nothing: 1"),
    ]
    found, losses = read(write(parts))
    assert [page.url for page in found] == ["http://a.test/" + "a/" * 4089, "http://a.test/ok"]
    assert losses == {
        "record_warcinfo": 1,
        "record_request": 1,
        "record_revisit": 1,
        "not_http": 1,
        "no_url": 1,
        "long_url": 1,
        "bad_http_header": 1,
        "status_404": 1,
        "status_301": 1,
        "not_html": 3,
        "bad_content_encoding": 1,
    }


def test_wet_records_are_pages_of_text(write, record):
    body = "Grüße aus dem WET".encode()
    found, losses = read(write([record("conversion", "http://a.test/", body, "text/plain")], zipped=True))
    assert [(page.kind, page.charset, page.payload) for page in found] == [("text", "utf-8", body)]
    assert not losses


def test_headers_that_end_in_a_bare_newline(write, record):
    body = b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n<html>x</html>"
    found, _ = read(write([record("response", "http://a.test/", body, line=b"\n")] * 2))
    assert [page.payload for page in found] == [b"<html>x</html>"] * 2


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2024-03-04T03:02:03+02:00", datetime.datetime(2024, 3, 4, 1, 2, 3, tzinfo=datetime.UTC)),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("yesterday", None),
    ],
)
def test_a_date_that_no_calendar_holds_is_none(write, record, written, expected):
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>x</html>"
    parts = [
        record("response", "http://a.test/1", http, date=written),
        record("conversion", "http://a.test/2", b"x", "text/plain", date=written),
    ]
    found, losses = read(write(parts))
    assert [page.date for page in found] == [expected, expected]
    assert not losses
    table = pa.Table.from_pylist([page_row(page, "s", "f") for page in found], PAGES)
    assert [row["date"] for row in table.to_pylist()] == [expected, expected]


def test_payload_above_the_limit_is_a_page_without_payload(write, response):
    found, losses = read(write([response("http://a.test/", b"<html>" + b"x" * 5000)]), limit=1000)
    assert [(page.payload, page.too_large) for page in found] == [(b"", 5006)]
    bomb = response(
        "http://a.test/", gzip.compress(b"<html>" + b"x" * 500_000), "Content-Type: text/html\r\nContent-Encoding: gzip"
    )
    found, losses = read(write([bomb]), limit=100_000)
    assert [(page.payload, page.too_large) for page in found] == [(b"", 100_001)]
    assert not losses


@pytest.mark.parametrize(("size", "shown"), [(1000, (1000, 0)), (1001, (0, 1001))])
def test_a_payload_of_just_the_limit_is_read_and_one_byte_more_is_not(write, record, response, size, shown):
    html = b"<html>" + b"x" * (size - 6)
    packed = response("http://a.test/", gzip.compress(html), "Content-Type: text/html\r\nContent-Encoding: gzip")
    parts = [response("http://a.test/", html), record("conversion", "http://a.test/", html, "text/plain"), packed]
    found, losses = read(write(parts), limit=1000)
    assert [(len(page.payload), page.too_large) for page in found] == [shown] * 3
    assert [(page.kind, page.offset) for page in found] == [
        ("html", 0),
        ("text", len(parts[0])),
        ("html", len(parts[0] + parts[1])),
    ]
    assert not losses


def test_a_body_above_the_limit_of_a_type_that_may_be_anything_is_no_page(write, response):
    large = response("http://a.test/", b"<html>" + b"x" * 5000, "Content-Type: application/octet-stream")
    assert read(write([large]), limit=1000) == ([], {"not_html": 1})


def all_losses(path):
    with RangeFile(str(path)) as file:
        return [one for one in read_pages(file, LIMIT) if isinstance(one, Loss)]


def test_a_loss_says_where_and_what(write, pages, response):
    assert all_losses(write(b"<html>no archive at all</html>")) == [Loss("not_warc", "starts with b'<html>no archive'")]
    assert all_losses(
        write([response("http://a.test/", b"\0", "Content-Type: text/html\r\nContent-Encoding: lzw")])
    ) == [Loss("bad_content_encoding", "http://a.test/: content encoding 'lzw' is unknown")]
    [loss] = all_losses(write([*pages[:3], b"garbage garbage\r\nmore\r\n\r\n", *pages[3:]]))
    assert loss.kind == "bad_warc_header"
    assert loss.detail.startswith(f"after byte {len(pages[0] + pages[1]):,}: ")
    damaged = write(pages[:2], zipped=True)
    damaged.write_bytes(damaged.read_bytes()[:-30])
    [loss] = all_losses(damaged)
    assert loss == Loss("truncated_gzip", f"near byte {damaged.stat().st_size:,}")


@pytest.mark.parametrize(("size", "counted"), [(62, None), (63, 65)])
def test_bytes_between_records_with_bare_line_feeds_are_counted_from_sixty_five_on(write, record, size, counted):
    """With the two line feeds behind the record before."""
    http = b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n<html>x</html>"
    part = record("response", "http://a.test/", http, line=b"\n")
    path = write([part, b"x" * (size - 1) + b"\n", part])
    at = len(part) + size
    assert all_losses(path) == ([Loss("bad_warc_header", f"{counted} bytes before byte {at}")] if counted else [])
    assert len(read(path)[0]) == 2


@pytest.mark.parametrize(
    ("url", "mime", "shown", "kind"),
    [
        ("<http://a.test/>", "application/http", "http://a.test/", None),
        ("urn:a", "application/http", "urn:a", None),
        ("HTTPS://a.test/", "application/octet-stream", None, "bad_http_header"),
        ("http://a.test/", "text/html", None, "bad_http_header"),
        ("ftp://a.test/", "text/html", None, "not_http"),
    ],
)
def test_a_response_is_known_by_its_type_or_its_address(write, record, url, mime, shown, kind):
    http = b"HTTP/1.1 200 OK\r\nContent-Type: TEXT/html; charset=latin-1\r\n\r\n<html>x</html>"
    found, losses = read(write([record("response", url, http, mime)]))
    assert [(page.url, page.payload, page.charset) for page in found] == (
        [(shown, b"<html>x</html>", "latin-1")] if shown else []
    )
    assert losses == ({kind: 1} if kind else {})


def test_a_record_of_another_type_without_its_end_is_truncated(write, record):
    part = record("request", "http://a.test/", b"GET / HTTP/1.1\r\n" + b"x" * 99)
    assert read(write(part[:-30])) == ([], {"truncated_record": 1})


def test_real_captures_with_their_damage(data_dir):
    """Counted by hand with `zcat | grep` and the archives' own notes on what is wrong with them."""
    expected = {
        "warc/webrecorder+warcio/example.warc.gz": (
            1,
            {"record_warcinfo": 2, "record_request": 2, "record_revisit": 1},
        ),
        "warc/webrecorder+warcio/example-wrong-chunks.warc.gz": (1, {"record_request": 1}),
        "warc/webrecorder+warcio/example-bad-non-chunked.warc.gz": (
            1,
            {"record_warcinfo": 2, "record_request": 2, "record_revisit": 1},
        ),
        "warc/webrecorder+warcio/example.arc.gz": (0, {"arc_refused": 1}),
        "warc/commoncrawl+whirlwind-python/whirlwind.warc.wet.gz": (1, {"record_warcinfo": 1}),
        "warc/commoncrawl+whirlwind-python/whirlwind.warc.wat.gz": (0, {"record_warcinfo": 1, "record_metadata": 1}),
        "warc/oduwsdl+ipwb/5mementos.warc": (7, {"record_warcinfo": 1}),
        "html_gold/trafilatura_eval.dev.warc.gz": (516, {"record_warcinfo": 1}),
    }
    for name, (count, losses) in expected.items():
        found, lost = read(str(data_dir / name), 8 << 20)
        assert (len(found), dict(lost)) == (count, losses), name


@pytest.mark.parametrize(
    "name",
    [
        "html_gold/aeb.dev.warc.gz",
        "warc/oduwsdl+ipwb/sample-1.warc.gz",
        "warc/oduwsdl+ipwb/IAH-20080430204825-00000-blackbook.warc.gz",
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_real_file_cut_anywhere_loses_and_doubles_nothing(data_dir, tmp_path, name, zipped):
    path = data_dir / name
    if not zipped:
        path = tmp_path / "plain.warc"
        path.write_bytes(gzip.decompress((data_dir / name).read_bytes()))
    expected, losses = read(path)
    offsets = [page.offset for page in expected]
    chance = random.Random(20240304)
    size = path.stat().st_size
    for count in (1, 2, 7):
        cuts = [chance.randrange(1, size) for _ in range(count)] + [chance.choice(offsets) + chance.randint(-1, 1)]
        assert read_cut(path, [cut for cut in cuts if cut > 0]) == (expected, losses, True)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zipped=st.booleans(),
    cuts=st.lists(st.floats(0.0001, 1), min_size=1, max_size=4),
    flips=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(1, 255)), max_size=3),
    short=st.sampled_from([None, 1, 100]),
)
def test_a_damaged_file_cut_anywhere_is_read_as_in_one_piece_or_its_parts_do_not_meet(
    zipped, cuts, flips, short, write, pages
):
    path = write(pages, zipped=zipped)
    data = bytearray(path.read_bytes())
    for place, change in flips:
        data[int(place * len(data))] ^= change
    path.write_bytes(data)
    head = short and len(data) - short
    found, losses, met = read_cut(path, [max(1, int(cut * len(data))) for cut in cuts], head)
    assert not met or (found, losses) == read(path, head=head)
    assert met or flips, "parts of an intact file meet"


def test_one_gzip_member_goes_whole_to_the_first_part(write, pages):
    path = write(b"".join(pages), zipped=True)
    size = path.stat().st_size
    assert read_cut(path, [size // 3, size // 2]) == (*read(path), True)


@pytest.mark.parametrize("content", [b"", b"<html>no archive</html>", b"filedesc://x.arc 0.0.0.0 20240101000000 text"])
def test_a_refused_file_is_refused_once(write, content):
    found, losses, met = read_cut(write(content), [3, 9])
    assert (found, losses.total(), met) == ([], 1, True)


def stored(data):
    """A gzip member that holds its data as it is, as deflate does with what does not compress."""
    engine = zlib.compressobj(0, zlib.DEFLATED, 31)
    return engine.compress(data) + engine.flush()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_crawl_file_within_a_page_makes_parts_that_do_not_meet(write, pages, response, zipped):
    inner = b"".join(stored(page) for page in pages) if zipped else b"".join(pages)
    outer = [response("http://a.test/outer", b"<html>" + inner), *pages]
    path = write(b"".join(map(stored, outer)) if zipped else outer)
    expected, losses = read(path)
    assert (len(expected), dict(losses)) == (21, {})
    assert read_cut(path, [len(inner) // 2])[2] is False


def test_bad_records_between_lines_that_end_in_a_bare_newline_are_counted(write, record):
    body = b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n<html>x</html>"
    parts = [record("response", f"http://a.test/{n}", body, line=b"\n") for n in range(6)]
    for bad in ({2}, {0}, {5}, {1, 4}):
        damaged = [part.replace(b"WARC/1.0", b"WARC/ARC/1.0") if n in bad else part for n, part in enumerate(parts)]
        found, losses = read(write(damaged if 0 not in bad else [parts[0], *damaged]))
        assert len(found) == 6 - len(bad - {0})
        assert losses == {"bad_warc_header": len(bad)}
    assert read(write(b"\n\n".join(parts)))[1] == {}
    assert read(write(b"WARC/1.07\nWARC-Ty"))[1] == {"bad_warc_header": 1}


def longer_by(record, extra):
    """A record whose head says that it has more bytes than it has."""
    _, _, block = record.partition(b"\r\n\r\n")
    length = len(block) - 4
    return record.replace(b"Content-Length: %d" % length, b"Content-Length: %d" % (length + extra), 1)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("size", [20, 200_000])  # the following records are read already, or not yet
@pytest.mark.parametrize("longer", ["three records", "all the rest", 20 << 20])
def test_a_length_that_is_too_large_costs_one_record(write, response, size, longer, zipped):
    chance = random.Random(1)
    records = [response(f"http://a.test/{n}", b"<html>" + chance.randbytes(size)) for n in range(12)]
    # Without gzip, a length that ends where a record does is that of a page that holds a crawl file.
    spare = 0 if zipped else 99
    extra = {"three records": sum(map(len, records[1:4])) + spare, "all the rest": sum(map(len, records[1:])) + spare}
    path = write([longer_by(records[0], extra.get(longer, longer)), *records[1:]], zipped=zipped)
    found, losses = read(path)
    assert [page.url[14:] for page in found] == [str(n) for n in range(1, 12)]
    assert losses == {"wrong_length": 1}
    at = path.stat().st_size // 3
    assert read_cut(path, [at, 2 * at]) == (found, losses, True)


@pytest.mark.parametrize("line", [b"\r\n", b"\n"])
@pytest.mark.parametrize("extra", [5, 9, 17, 60, 300, 1000, 10**15])
@pytest.mark.parametrize("wrong", [{0}, {3}, {2, 3}, set(range(9))])
def test_a_wrong_length_in_a_plain_file_costs_its_own_record(write, record, wrong, extra, line):
    http = b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n<html>" + b"words " * 60
    parts = [record("response", f"http://a.test/{n}", http, line=line) for n in range(10)]
    told = b"Content-Length: %d" % len(http)
    damaged = [
        one.replace(told, b"Content-Length: %d" % (len(http) + extra)) if n in wrong else one
        for n, one in enumerate(parts)
    ]
    path = write(damaged)
    found, losses = read(path)
    assert [page.url[14:] for page in found] == [str(n) for n in range(10) if n not in wrong]
    assert losses == {"wrong_length": len(wrong)}
    assert {page.payload for page in found} == {http.partition(b"\n\n")[2]}


def test_a_page_that_holds_a_crawl_file_keeps_it(write, pages, response):
    inner = b"<html>" + b"".join(pages)
    shown = [response(f"http://a.test/shown-{n}", inner * 50) for n in range(3)]
    found, losses = read(write([pages[0], *shown, pages[1]]))
    assert [page.url[14:] for page in found] == ["0", "shown-0", "shown-1", "shown-2", "1"]
    assert {page.payload for page in found[1:4]} == {inner * 50}
    assert not losses
    found, losses = read(write([longer_by(pages[0], 500), *shown, b"garbage\r\n\r\n", pages[1]]))
    assert [page.url[14:] for page in found] == ["shown-0", "shown-1", "shown-2", "1"]
    assert losses == {"wrong_length": 1, "bad_warc_header": 1}
    ends_with_the_file = write(shown[0].removesuffix(b"\r\n\r\n"))
    assert [page.payload for page in read(ends_with_the_file)[0]] == [inner * 50]


def test_a_limit_is_no_wrong_length(write, pages, response):
    shown = response("http://a.test/shown", b"<html>" + b"".join(pages))
    path = write([pages[0], shown, pages[1]])
    found, losses = read(path, head=len(pages[0]) + len(shown) // 2)
    assert ([page.url[14:] for page in found], losses) == (["0"], {})
    path = write([longer_by(pages[0], 10**9), *pages[1:]])
    found, losses = read(path, head=path.stat().st_size - 10)
    assert ([page.url[14:] for page in found], losses) == ([str(n) for n in range(1, 19)], {"wrong_length": 1})


def test_wrong_lengths_are_read_in_time_that_follows_the_file(write, response):
    """Each of the lengths takes in all that follows: reading each to its end would be four and a half thousand million bytes."""
    body = b"<html>" + b"words " * 17_000
    path = write([longer_by(response(f"http://a.test/{n}", body), 10**12) for n in range(300)])
    began = time.process_time()
    found, losses = read(path)
    assert (found, losses) == ([], {"wrong_length": 299, "truncated_record": 1})
    assert time.process_time() - began < 4


@pytest.mark.parametrize("kind", ["response", "conversion"])
def test_a_payload_above_the_limit_that_is_not_there_is_no_page(write, record, kind):
    part = record(kind, "http://a.test/", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>" + b"x" * 5000)
    found, losses = read(write(part[:-100]), limit=1000)
    assert (found, losses) == ([], {"truncated_record": 1})


@pytest.mark.parametrize("head", [None, 100])
def test_a_page_without_its_end_is_a_page_and_a_loss(write, response, record, head):
    html = b"<html>" + random.Random(1).randbytes(99).hex().encode()
    packed = gzip.compress(html)
    cut = response("http://a.test/", packed[:-40], "Content-Type: text/html\r\nContent-Encoding: gzip")
    [page], losses = read(write([cut, cut] if head else [cut]), head=head and len(cut) + head)
    assert html.startswith(page.payload)
    assert losses["truncated_body"] == 1
    chunked = response("http://a.test/", b"fff\r\n<html>", "Content-Type: text/html\r\nTransfer-Encoding: chunked")
    text = record("conversion", "http://a.test/", b"words", "text/plain\r\nWARC-Truncated: length")
    noted = response("http://a.test/", html).replace(b"WARC-Date", b"WARC-Truncated: length\r\nWARC-Date")
    found, losses = read(write([chunked, text, noted]))
    assert [page.payload for page in found] == [b"<html>", b"words", html]
    assert losses == {"truncated_body": 3}


@pytest.mark.parametrize("line", [b"\r\n", b"\n"])
@pytest.mark.parametrize("zipped", [True, False])
def test_damage_to_the_first_bytes_costs_the_first_record(write, record, zipped, line):
    http = line.join([b"HTTP/1.1 200 OK", b"Content-Type: text/html", b"", b"<html>x</html>"])
    parts = [record("response", f"http://a.test/{n}", http, line=line) for n in range(3)]
    path = write(parts, zipped=zipped)
    path.write_bytes(b"XXXX" + path.read_bytes()[4:])
    found, losses = read(path)
    assert [page.url for page in found] == ["http://a.test/1", "http://a.test/2"]
    assert losses == {"not_warc": 1}
    size = path.stat().st_size
    assert read_cut(path, [size // 5, size // 2]) == (found, losses, True)


def test_what_a_page_shows_of_a_crawl_file_is_no_record_behind_damage(write, pages, response):
    shown = response("http://a.test/shown", b"<html>" + response("http://invented.test/", b"<html>")[:-8])
    path = write([*pages[:3], shown, b"garbage garbage\r\nsee WARC/1.0\r\nmore\r\n\r\n", *pages[3:]])
    found, losses = read(path)
    assert [page.url[14:] for page in found] == [*"012", "shown", *map(str, range(3, 20))]
    assert losses == {"bad_warc_header": 1}
