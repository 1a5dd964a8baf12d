"""Reading a crawl file over HTTP: heads, broken downloads, servers that know no ranges."""

import http.server
import io
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError, StoreError
from pipelines.warc import rangefile
from pipelines.warc.rangefile import RangeFile

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT. `/broken` breaks off after 100,000 bytes of every answer, `/whole` knows no ranges, `/busy` refuses twice."""

    seen: list[str | None]
    refusals: int

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        type(self).seen.append(asked)
        if self.path == "/down" or (self.path == "/busy" and type(self).refusals < 2):
            type(self).refusals += 1
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.end_headers()
            return
        first, last = 0, len(CONTENT) - 1
        if asked and self.path != "/whole":
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), int(end or last)
        if first >= len(CONTENT):
            self.send_error(416)
            return
        data = CONTENT[first : last + 1]
        self.send_response(206 if asked and self.path != "/whole" else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:100_000] if self.path == "/broken" else data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(serve):
    Handler.seen, Handler.refusals = [], 0
    return serve(Handler)


@pytest.mark.parametrize("path", ["/plain", "/whole", "/busy"])
def test_a_whole_file(server, path):
    with RangeFile(server + path) as file:
        assert file.read_full(2 << 20) == CONTENT
        assert not file.cut


def test_only_the_head_is_asked_for(server):
    with RangeFile(f"{server}/plain", limit=5000) as file:
        assert file.read_full(1 << 20) == CONTENT[:5000]
        assert file.cut
    assert Handler.seen == ["bytes=0-4999"]


@pytest.mark.parametrize("path", ["/plain", "/whole"])
def test_seeking_reopens_there(server, path):
    with RangeFile(server + path) as file:
        file.seek(700_001)
        assert file.read_full(10) == CONTENT[700_001:700_011]
        file.seek(len(CONTENT) + 5)
        assert file.read_full(10) == b""


def test_a_broken_download_goes_on_where_it_broke(server, monkeypatch):
    monkeypatch.setattr(rangefile.time, "sleep", lambda _: None)
    with RangeFile(f"{server}/broken") as file:
        assert file.read_full(2 << 20) == CONTENT
    starts = [int((asked or "bytes=0-").removeprefix("bytes=").partition("-")[0]) for asked in Handler.seen]
    assert starts == sorted(starts)
    assert len(starts) >= 11


def test_what_is_not_there(server, tmp_path, monkeypatch):
    monkeypatch.setattr(rangefile.time, "sleep", lambda _: None)
    with pytest.raises(InputError, match="answers 404"):
        RangeFile(f"{server}/missing").read(10)
    with pytest.raises(InputError, match="no such file"):
        RangeFile(str(tmp_path / "gone.warc")).read(10)
    with pytest.raises(StoreError, match="/x: cannot be reached after 1 retries"):
        RangeFile("http://127.0.0.1:9/x", retries=1).read(10)


def test_a_server_that_stays_down_is_asked_as_often_as_the_recipe_says(server):
    with pytest.raises(StoreError, match="/down: cannot be reached after 2 retries"):
        RangeFile(f"{server}/down", retries=2).read(10)
    assert len(Handler.seen) == 3


@pytest.mark.parametrize("path", ["/plain", "/whole"])
def test_a_stretch_is_asked_for_in_steps_that_double_up_to_the_longest(server, monkeypatch, path):
    monkeypatch.setattr(rangefile, "FIRST_STEP", 100)
    monkeypatch.setattr(rangefile, "LONGEST_STEP", 300)
    with RangeFile(server + path, stepwise=True) as file:
        assert file.read_full(1000) == CONTENT[:1000]
        if path == "/plain":
            assert Handler.seen == ["bytes=0-99", "bytes=100-299", "bytes=300-599", "bytes=600-899", "bytes=900-1199"]
        file.seek(5000)
        assert file.read_full(50) == CONTENT[5000:5050]
        assert Handler.seen[-1] == "bytes=5000-5099"
    Handler.seen.clear()
    with RangeFile(server + path, limit=250, stepwise=True) as file:
        assert file.read_full(1000) == CONTENT[:250]
    assert Handler.seen[:2] == (["bytes=0-99", "bytes=100-249"] if path == "/plain" else ["bytes=0-99"])
    with RangeFile(server + path, stepwise=True) as file:
        file.seek(len(CONTENT) - 150)
        assert file.read_full(1000) == CONTENT[-150:]


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges of its own choice: from 100 bytes earlier, from a byte later, or at most 1,000 bytes, of a known or unknown whole."""

    def do_GET(self) -> None:
        start, _, end = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        first, last = int(start), int(end or len(CONTENT) - 1)
        if first >= len(CONTENT):
            self.send_error(416)
            return
        if self.path == "/early":
            first = max(0, first - 100)
        if self.path == "/late":
            first += 1
        if self.path == "/short":
            last = min(last, first + 999)
        data = CONTENT[first : last + 1]
        self.send_response(206)
        whole = "*" if self.path == "/star" else len(CONTENT)
        self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{whole}")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("path", ["/early", "/short", "/star"])
@pytest.mark.parametrize("stepwise", [True, False])
def test_an_answer_with_another_range_than_was_asked_for(serve, path, stepwise):
    with RangeFile(serve(Ranges) + path, stepwise=stepwise) as file:
        file.seek(len(CONTENT) - 5500)
        assert file.read_full(10_000) == CONTENT[-5500:]


def test_an_answer_that_begins_too_late_is_no_answer(serve, monkeypatch):
    monkeypatch.setattr(rangefile.time, "sleep", lambda _: None)
    with RangeFile(f"{serve(Ranges)}/late", retries=1) as file:
        file.seek(7)
        with pytest.raises(
            StoreError, match="broke off at byte 7: the server was asked for byte 7 and sends from byte 8"
        ):
            file.read(10)


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        self.send_error(int(self.path[1:]))

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "error"), [(403, InputError), (404, InputError), (410, InputError), (401, StoreError), (400, StoreError)]
)
def test_a_refusal_is_said_with_its_status(serve, status, error):
    with pytest.raises(error, match=f"/{status}: the server answers {status}"):
        RangeFile(f"{serve(Refusing)}/{status}", retries=0).read(10)


def test_a_retry_is_one_warning_with_its_place(server, monkeypatch, caplog):
    monkeypatch.setattr(rangefile.time, "sleep", lambda _: None)

    def broken(*_: object) -> None:
        raise OSError("reset")

    monkeypatch.setattr(rangefile, "_open_url", broken)
    with pytest.raises(StoreError):
        RangeFile(f"{server}/x", retries=2).read(10)
    assert [(one.levelname, one.message) for one in caplog.records] == [
        ("WARNING", f"warning: {server}/x: broke off at byte 0: reset; retry {number} of 2") for number in (1, 2)
    ]


def test_how_many_bytes_an_answer_lacks(serve, monkeypatch):
    class Short(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(206)
            self.send_header(
                "Content-Range", "bytes 0-4999/5000"
            )  # and no Content-Length, which urllib3 would hold it to
            self.end_headers()
            self.wfile.write(b"x" * 1800)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(rangefile.time, "sleep", lambda _: None)
    with RangeFile(f"{serve(Short)}/x", retries=0) as file:
        assert file.read(1800) == b"x" * 1800
        with pytest.raises(StoreError, match="ended 3,200 bytes early"):
            file.read(1800)


def test_waits_double_up_to_a_minute(server, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(rangefile.time, "sleep", waits.append)
    monkeypatch.setattr(rangefile.random, "uniform", lambda low, high: high - low)

    def broken(*_: object) -> None:
        raise OSError("reset")

    monkeypatch.setattr(rangefile, "_open_url", broken)
    with pytest.raises(StoreError, match="/x: broke off at byte 0: reset"):
        RangeFile(f"{server}/x", retries=9).read(10)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_connection_is_given_back_with_its_file(server):
    for _ in range(3):
        with RangeFile(f"{server}/plain", connections=1) as file:
            assert file.read(10) == CONTENT[:10]
            file.seek(100)
            assert file.read(10) == CONTENT[100:110]


def test_a_connection_counts_while_its_file_is_open_and_a_file_here_needs_none(server, tmp_path, monkeypatch):
    held = []

    @contextmanager
    def connection(url, limit):
        held.append((url, limit))
        yield
        held.clear()

    monkeypatch.setattr(rangefile.fetch, "connection", connection)
    with RangeFile(f"{server}/plain", connections=3) as file:
        file.read(10)
        assert held == [(f"{server}/plain", 3)]
    assert held == []
    path = tmp_path / "x"
    path.write_bytes(CONTENT[:100])
    with RangeFile(str(path)) as file:
        file.read(10)
        assert held == []


def test_looking_elsewhere_changes_nothing(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(CONTENT[:1000])
    with RangeFile(str(path), limit=10) as file:
        assert file.read_full(4) == CONTENT[:4]
        assert file.peek(20, 5) == CONTENT[20:25]
        assert file.peek(998, 5) == CONTENT[998:1000]
        assert (file.tell(), file.cut) == (4, False)
        assert file.read_full(100) == CONTENT[4:10]
        assert file.cut
        file.peek(0, 1)
        assert file.cut


def test_seeking_in_a_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(CONTENT[:1000])
    with RangeFile(str(path), limit=2000) as file:
        assert file.readable()
        assert file.seekable()
        assert file.seek(100) == 100
        assert file.seek(20, io.SEEK_CUR) == 120
        assert file.read_full(2) == CONTENT[120:122]
        with pytest.raises(io.UnsupportedOperation):
            file.seek(0, io.SEEK_END)
        assert file.read_full(5000) == CONTENT[122:1000]
        assert not file.cut  # the file ended before the limit


@given(
    st.lists(st.tuples(st.integers(0, 1200), st.integers(1, 400)), max_size=8),
    st.none() | st.integers(1, 1200),
)
def test_any_seeks_and_reads_are_slices_of_the_file(tmp_path_factory, steps, limit):
    path = tmp_path_factory.mktemp("file") / "x"
    path.write_bytes(CONTENT[:1000])
    readable = CONTENT[:1000][:limit]
    with RangeFile(str(path), limit) as file:
        for start, size in steps:
            file.seek(start)
            assert file.read_full(size) == readable[start : start + size]
            assert file.tell() == max(start, min(start + size, len(readable)))


@pytest.mark.parametrize("told", ["1000000000000000000", "\xb2", "9" * 5000, "-1", ""])
def test_a_length_that_no_file_has_ends_no_worker(told):
    class Answer:
        status_code, headers = 200, {"Content-Length": told, "Content-Range": f"bytes 0-9/{'9' * 5000}"}

    body = rangefile._UrlBody(Answer(), 0, None)
    assert body.more is False
