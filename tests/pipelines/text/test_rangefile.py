"""Reading a crawl file over HTTP: heads, broken downloads, servers that know no ranges."""

import http.server
import threading

import pytest

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
        if self.path == "/busy" and type(self).refusals < 2:
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
def server():
    Handler.seen, Handler.refusals = [], 0
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()
    thread.join()


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
    with pytest.raises(StoreError, match="broke off at byte 0"):
        RangeFile("http://127.0.0.1:9/x", retries=1).read(10)
