"""A server laid out as Common Crawl that fails, stalls and truncates on purpose, read as a real crawl is."""

import gzip
import http.server
import json
import subprocess
import sys
import time

import pytest

from contract import fetch
from contract.errors import InputError, StoreError
from contract.manifest import need
from contract.plan import open_run
from contract.settings.corpus import Crawl
from contract.sources import Source, list_snapshots
from contract.store import Store
from pipelines import crawl
from pipelines.__main__ import execute
from pipelines.spark.documents import Counts
from pipelines.urls import filter as url
from pipelines.warc import rangefile
from pipelines.warc.rangefile import RangeFile

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
        queue = type(self).trouble.get(path if self.command == "GET" else f"{self.command} {path}", [])
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
        if path not in FILES or what == "404":
            self.send_error(404)
            return
        data, status, start, size = FILES[path], 200, 0, len(FILES[path])
        if (asked := self.headers.get("Range")) and what != "whole":
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else size
            if start >= size:
                self.send_error(416)
                return
            if what == "early":
                start = max(0, start - 1000)
            elif what == "late":
                start += 10
            elif what == "less":
                end = start + (min(end, size) - start + 1) // 2
            data, status = data[start:end], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
        if what == "unmeasured":
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if what in ("truncate", "unmeasured"):
            self.wfile.write(data[: len(data) // 3])
        elif what == "stall":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            time.sleep(2)
        else:
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(serve):
    Mirror.trouble, Mirror.served = {}, []
    return serve(Mirror)


@pytest.fixture
def impatient(monkeypatch):
    """Waits a tenth of what a real run waits."""
    monkeypatch.setattr(fetch, "TIMEOUT_S", (1, 0.5))
    monkeypatch.setattr(rangefile, "LONGEST_WAIT_S", 0.05)


def read(mirror, tmp_path, number, **settings):
    """Counts of one crawl file, read in this process part by part."""
    chosen = Crawl(**settings)
    place = crawl.Place(Store(str(tmp_path)), f"out{number}", SNAPSHOT)
    parts = crawl.split_source(Source(f"{mirror}/{PATHS[number]}", PATHS[number], 0, ""), chosen)
    made = [crawl.read_part(part, place, chosen, url.load_url_filter(chosen), str(part.start)) for part in parts]
    assert crawl.meet(made)
    return sum((one.counts for one in made), Counts())


def test_the_newest_snapshot_that_is_no_arc(mirror):
    assert list_snapshots(mirror) == [SNAPSHOT, "CC-MAIN-2023-50"]


SIZE = len(FILES[PATHS[0]])


@pytest.mark.parametrize(
    "what", ["whole", "early", "late", "less", "truncate", "unmeasured", "reset", "stall", "503", "429"]
)
def test_every_page_comes_once_through_trouble_in_parts(mirror, tmp_path, impatient, what):
    """Every second answer is wrong; one stall is enough."""
    Mirror.trouble = {PATHS[0]: [what, "well"] * (1 if what == "stall" else 40), f"HEAD {PATHS[0]}": ["503", "reset"]}
    counts = read(mirror, tmp_path, 0, split_bytes=SIZE // 3)
    assert (counts.kept, counts.losses.total()) == (PAGES, 0)
    starts = {int(asked.removeprefix("bytes=").partition("-")[0]) for path, asked in Mirror.served if asked}
    assert len(starts) >= 4
    assert min(starts - {0}) >= SIZE // 3 or what in ("less", "truncate", "unmeasured", "stall")


def test_parts_ask_for_stretches_and_not_for_the_rest_of_the_file(mirror, monkeypatch):
    monkeypatch.setattr(rangefile, "FIRST_STEP", 1000)
    monkeypatch.setattr(rangefile, "LONGEST_STEP", 4000)
    with RangeFile(f"{mirror}/{PATHS[0]}", stepwise=True) as file:
        file.seek(500)
        assert file.read_full(1 << 30) == FILES[PATHS[0]][500:]
    asked = [asked for path, asked in Mirror.served]
    assert asked[:4] == ["bytes=500-1499", "bytes=1500-3499", "bytes=3500-7499", "bytes=7500-11499"]


def test_a_server_that_does_not_tell_sizes_is_read_in_one_piece(mirror):
    source = Source(f"{mirror}/{PATHS[0]}", PATHS[0], 0, "")
    assert len(crawl.split_source(source, Crawl(split_bytes=SIZE // 3 + 1))) == 3
    Mirror.trouble = {f"HEAD {PATHS[0]}": ["unmeasured"]}
    assert crawl.split_source(source, Crawl(split_bytes=SIZE // 3)) == [crawl.FileRange(source)]


def test_a_file_that_is_gone_ends_in_one_line(mirror):
    with pytest.raises(InputError, match="the server answers 404"):
        RangeFile(f"{mirror}/crawl-data/none.warc.gz").read(10)


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


def halves(path):
    """Parts of at most half of the first file's size."""
    return -(-len(FILES[path]) // (SIZE // 2))


def test_a_crawl_over_spark_from_a_mirror_in_trouble(mirror, tmp_path, resolve_run, run_stage):
    Mirror.trouble = {
        "collinfo.json": ["503"],
        f"crawl-data/{SNAPSHOT}/warc.paths.gz": ["reset", "503"],
        PATHS[0]: ["503", "truncate"],
        PATHS[2]: ["reset"],
    }
    run = resolve_run(mirror, {"crawl.files_per_segment": 2, "crawl.split_bytes": SIZE // 2})
    assert [segment.partition for segment in run.segments] == [f"{SNAPSHOT}.00000", f"{SNAPSHOT}.00001"]
    done = run_stage(run, "crawl")
    assert [manifest.rows.kept for manifest in done] == [2 * PAGES, PAGES]
    assert all(not manifest.rows.losses for manifest in done)
    assert [manifest.metrics["parts"] for manifest in done] == [sum(map(halves, PATHS[:2])), halves(PATHS[2])]
    assert not any(Mirror.trouble.values())


def test_a_crawl_that_broke_off_goes_on_with_the_segment_that_failed(mirror, resolve_run, spark_stops):
    Mirror.trouble = {PATHS[1]: ["404"]}
    run = resolve_run(mirror, {"crawl.files_per_segment": 1})
    tasks = [run.task("crawl", segment.partition) for segment in run.segments]
    assert execute(run, tasks[0]).startswith("committed")
    with pytest.raises(InputError, match="answers 404"):
        execute(run, tasks[1])
    Mirror.served.clear()
    assert [execute(run, task).split()[0] for task in tasks] == ["done", "committed", "committed"]
    assert PATHS[0] not in {path for path, _ in Mirror.served}
    assert [need(run.store, task).rows.kept for task in tasks] == [PAGES] * 3


def test_a_crawl_from_a_mirror_in_s3(s3_store, tmp_path):
    """In processes of its own: Spark's workers have the environment that Spark was started with."""
    for path, data in FILES.items():
        s3_store.write_bytes(path, data)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: test\nstore: {tmp_path}/store\nspark: {{master: 'local[2]', driver_memory: 1g}}\n"
        f"crawl: {{source: '{s3_store.uri}', split_bytes: {SIZE // 2}}}\n"
    )
    resolved = python("contract", "resolve", "--recipe", str(recipe)).splitlines()[-1]
    python("pipelines", "crawl", "--recipe", resolved)
    run = open_run(resolved)
    manifest = need(run.store, run.task("crawl", f"{SNAPSHOT}.00000"))
    assert (manifest.rows.kept, manifest.rows.losses, manifest.metrics["parts"]) == (
        3 * PAGES,
        {},
        sum(map(halves, PATHS)),
    )
    assert manifest.sources[0] == f"{s3_store.uri}/{PATHS[0]}"


def python(*arguments):
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Bucket(http.server.BaseHTTPRequestHandler):
    """An S3 server with one object, that misbehaves as `trouble` says."""

    trouble: list[str]

    def do_GET(self):
        data = FILES[PATHS[0]]
        what = type(self).trouble.pop(0) if type(self).trouble and self.command == "GET" else "well"
        if what == "503":
            self.send_response(503, "Slow Down")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if what == "reset":
            self.connection.close()
            return
        first, _, last = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        self.send_response(206 if self.headers.get("Range") else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Last-Modified", "Mon, 04 Mar 2024 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part[: len(part) // 2] if what == "truncate" else part)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_an_s3_server_in_trouble(serve, monkeypatch, tmp_path):
    Bucket.trouble = ["503", "reset", "truncate"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", serve(Bucket))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    counts = read("s3://bucket", tmp_path, 0, split_bytes=SIZE // 2)
    assert (counts.kept, counts.losses.total()) == (PAGES, 0)
    assert Bucket.trouble == []
