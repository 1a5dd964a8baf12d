"""Reading a crawl file over HTTP: heads, broken downloads, servers that know no ranges."""

import http.server

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError, StoreError
from pipelines.text import rangefile
from pipelines.text.rangefile import RangeFile

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
