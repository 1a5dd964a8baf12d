"""A server laid out as Common Crawl that fails, stalls and truncates on purpose, read as a real crawl is."""

import gzip
import http.server
import json
import threading
import time

import pytest

from contract import fetch
from contract.errors import StoreError
from contract.settings import Crawl
from contract.sources import list_snapshots
from contract.store import Store
from pipelines import crawl
from pipelines.text import rangefile, url
from pipelines.text.rangefile import RangeFile

PAGES = 12
SNAPSHOT = "CC-MAIN-2024-10"


def warc(number):
    """A crawl file of PAGES pages, one gzip member each, each of some kilobytes that do not compress away."""
    members = []
    for index in range(PAGES):
        words = " ".join(f"w{(index * 7919 + n * 104729 + number) % 99991}" for n in range(2000))
        http_block = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body><p>{words}</p></body></html>".encode()
        )
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://site.test/{number}/{index}\r\n"
            f"WARC-Date: 2024-03-04T00:00:00Z\r\nContent-Type: application/http\r\nContent-Length: {len(http_block)}\r\n\r\n"
        )
        members.append(gzip.compress(head.encode() + http_block + b"\r\n\r\n"))
    return b"".join(members)


PATHS = [f"crawl-data/{SNAPSHOT}/segments/1/warc/{n}.warc.gz" for n in range(3)]
FILES = {
    "collinfo.json": json.dumps([{"id": "CC-MAIN-2008-2009"}, {"id": "CC-MAIN-2023-50"}, {"id": SNAPSHOT}]).encode(),
    f"crawl-data/{SNAPSHOT}/warc.paths.gz": gzip.compress("".join(f"{path}\n" for path in PATHS).encode()),
    **{path: warc(number) for number, path in enumerate(PATHS)},
}


class Mirror(http.server.BaseHTTPRequestHandler):
    """Every path has a list of misbehaviours that its next requests meet, in order; after them it behaves."""

    trouble: dict[str, list[str]]
    served: list[tuple[str, str | None]]

    def do_GET(self):
        path = self.path.lstrip("/")
        queue = type(self).trouble.get(path, [])
        what = queue.pop(0) if queue else "well"
        type(self).served.append((path, self.headers.get("Range")))
        if what in ("503", "429"):
            self.send_response(int(what))
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if what == "reset":
            self.connection.close()
            return
        if path not in FILES:
            self.send_error(404)
            return
        data, status = FILES[path], 200
        if asked := self.headers.get("Range"):
            start, _, end = asked.removeprefix("bytes=").partition("-")
            data, status = data[int(start) : int(end) + 1 if end else None], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if what == "truncate":
            self.wfile.write(data[: len(data) // 3])
        elif what == "stall":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            time.sleep(2)
        else:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror():
    Mirror.trouble, Mirror.served = {}, []
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def impatient(monkeypatch):
    """Waits a tenth of what a real run waits."""
    monkeypatch.setattr(fetch, "TIMEOUT_S", (1, 0.5))
    monkeypatch.setattr(rangefile, "LONGEST_WAIT_S", 0.05)


def read(mirror, tmp_path, number, **settings):
    """Counts of one crawl file, read in this process."""
    chosen = Crawl(**settings)
    place = crawl.Place(Store(str(tmp_path)), f"out{number}", SNAPSHOT)
    source = type("Source", (), {"uri": f"{mirror}/{PATHS[number]}", "name": PATHS[number]})
    return crawl.read_part(crawl.Part(source), place, chosen, url.load(chosen), "x").counts


def test_the_newest_snapshot_that_is_no_arc(mirror):
    assert list_snapshots(mirror) == [SNAPSHOT, "CC-MAIN-2023-50"]


@pytest.mark.parametrize(
    "trouble",
    [
        ["503", "429", "503"],
        ["reset", "reset"],
        ["truncate", "truncate", "truncate"],
        ["stall"],
        ["503", "truncate", "reset", "stall"],
    ],
    ids="-".join,
)
def test_every_page_comes_through_trouble(mirror, tmp_path, impatient, trouble):
    Mirror.trouble = {PATHS[0]: list(trouble)}
    counts = read(mirror, tmp_path, 0)
    assert (counts.kept, counts.losses.total()) == (PAGES, 0)
    assert Mirror.trouble[PATHS[0]] == []
    starts = [
        int(asked.removeprefix("bytes=").partition("-")[0])
        for path, asked in Mirror.served
        if path == PATHS[0] and asked
    ]
    assert starts == sorted(starts), "a broken download goes on where it broke, it does not begin again"


def test_a_server_that_never_recovers_ends_the_file_in_one_line(mirror, impatient):
    Mirror.trouble = {PATHS[1]: ["truncate"] + ["reset"] * 200}
    with pytest.raises(StoreError, match=r"1\.warc\.gz"), RangeFile(f"{mirror}/{PATHS[1]}", retries=2) as file:
        file.read_full(1 << 30)


def test_only_the_head_of_each_file_and_its_cut_record_is_no_damage(mirror, tmp_path):
    limit = len(FILES[PATHS[0]]) // 2
    counts = read(mirror, tmp_path, 0, max_bytes_per_file=limit)
    assert 0 < counts.kept < PAGES
    assert counts.losses.total() == 0
    asked = {asked for path, asked in Mirror.served if path == PATHS[0]}
    assert asked == {f"bytes=0-{limit - 1}"}, "nothing behind the limit is ever asked for"


def test_a_crawl_over_spark_from_a_mirror_in_trouble(mirror, tmp_path, resolve_run, run_stage):
    Mirror.trouble = {
        "collinfo.json": ["503"],
        f"crawl-data/{SNAPSHOT}/warc.paths.gz": ["reset", "503"],
        PATHS[0]: ["503", "truncate"],
        PATHS[2]: ["reset"],
    }
    run = resolve_run(mirror, {"crawl.files_per_segment": 2})
    assert [segment.partition for segment in run.segments] == [f"{SNAPSHOT}.00000", f"{SNAPSHOT}.00001"]
    done = run_stage(run, "crawl")
    assert [manifest.rows.kept for manifest in done] == [2 * PAGES, PAGES]
    assert all(not manifest.rows.losses for manifest in done)
