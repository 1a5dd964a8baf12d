"""A server that answers 503, stalls the connection or has no such file: retried, or said in one line."""

import logging
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest

from contract import fetch
from contract.errors import InputError, SetupError, StoreError


class Flaky(BaseHTTPRequestHandler):
    """Fails the first `failures` requests of each path in the way the path names."""

    seen: ClassVar[dict[str, int]] = {}
    failures = 2

    def do_GET(self) -> None:
        count = self.seen[self.path] = self.seen.get(self.path, 0) + 1
        if self.path == "/busy" and count <= self.failures:
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.end_headers()
        elif self.path == "/reset" and count <= self.failures:
            self.connection.close()
        elif self.path == "/later" and count == 1:
            self.send_response(429)
            self.send_header("Retry-After", "1")
            self.end_headers()
        elif self.path == "/hour":
            self.send_response(503)
            self.send_header("Retry-After", "3600")
            self.end_headers()
        elif self.path.startswith("/gone"):
            self.send_error(int(self.path.removeprefix("/gone")))
        elif self.path.startswith("/down"):
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.end_headers()
        else:
            body = b"0123456789"
            self.send_response(200)
            told = self.path.partition("tells=")[2]
            self.send_header(
                "Content-Length", {"foreign": "\xb2", "long": "9" * 5000}.get(told, told) or str(len(body))
            )
            self.end_headers()
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(serve: Callable[..., str]) -> str:
    Flaky.seen = {}
    return serve(Flaky)


@pytest.mark.parametrize("path", ["/busy", "/reset"])
def test_a_busy_server_is_asked_again(server: str, path: str) -> None:
    assert fetch.get(server + path) == b"0123456789"
    assert Flaky.seen[path] == 3


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_missing_is_not_asked_twice(server: str, status: int) -> None:
    with pytest.raises(InputError, match=rf"the server answers {status}; check crawl\.source"):
        fetch.get(f"{server}/gone{status}")
    assert Flaky.seen[f"/gone{status}"] == 1


def test_what_is_no_address_is_not_asked_at_all() -> None:
    with pytest.raises(
        InputError, match=r"^http://\[bad/x: is not an address that can be requested; check crawl\.source"
    ):
        fetch.get("http://[bad/x")


def test_a_server_that_stays_down_is_given_up_with_advice(server: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "contract")
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"/down: cannot be reached for 4 s; check the network or name a folder"):
        fetch.get(server + "/down", patience_s=4)
    assert time.monotonic() - began < 5
    assert Flaky.seen["/down"] == 3
    told = [("WARNING", f"warning: {server}/down: the server answers 503; asked again in {wait} s") for wait in (1, 2)]
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == told


def test_a_server_that_accepts_and_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(StoreError, match="cannot be reached for 3 s"):
            fetch.get(f"http://127.0.0.1:{silent.getsockname()[1]}/x", patience_s=3)
        assert 1 < time.monotonic() - began < 6


def test_the_servers_own_waiting_time_is_kept(server: str) -> None:
    began = time.monotonic()
    assert fetch.session(retries=2).get(server + "/later").content == b"0123456789"
    assert time.monotonic() - began >= 1.0
    began = time.monotonic()
    with pytest.raises(StoreError, match="the server answers 503"):
        fetch.get(server + "/hour")
    assert time.monotonic() - began < 1, "nobody waits an hour for a listing"


@pytest.mark.parametrize(("path", "size"), [
    ("/x", 10), ("/gone404", 0), ("/busy", 10), ("/?tells=1099511627776", 1 << 40), ("/?tells=1099511627777", 0),
    ("/?tells=1000000000000000000", 0), ("/?tells=foreign", 0), ("/?tells=long", 0), ("/?tells=-1", 0),
])  # fmt: skip
def test_the_size_of_a_file(server: str, path: str, size: int) -> None:
    assert fetch.size(server + path, retries=4) == size
    assert fetch.size("http://127.0.0.1:9/x", retries=1) == 0


def test_no_more_downloads_from_a_host_than_its_places(tmp_path: Path) -> None:
    open_now, most = [], []

    def download(url: str) -> None:
        with fetch.connection(url, 2, tmp_path):
            open_now.append(url)
            most.append(len(open_now))
            time.sleep(0.05)
            open_now.remove(url)

    threads = [threading.Thread(target=download, args=(f"http://a.test:80/{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(most), max(most)) == (8, 2)


def test_places_lie_where_all_processes_of_a_user_look_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch.tempfile, "gettempdir", lambda: str(tmp_path))
    named = tmp_path / "named"
    with fetch.connection("http://a.test/", 1, named):
        assert [place.name for place in tmp_path.iterdir()] == ["named"]
    with fetch.connection("http://a.test/", 1):
        shared = tmp_path / f"gristmill-connections-{os.getuid()}"
        assert [place.name for place in shared.iterdir()] == [place.name for place in named.iterdir()]
    assert stat.S_IMODE(shared.stat().st_mode) == 0o700


def test_a_place_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    with fetch.connection("http://a.test/", 1, tmp_path / "places"):
        (place,) = (tmp_path / "places").iterdir()
    place.unlink()
    place.symlink_to(tmp_path / "made-by-following")
    with pytest.raises(OSError, match="symbolic links"), fetch.connection("http://a.test/", 1, tmp_path / "places"):
        pass
    assert not (tmp_path / "made-by-following").exists()
    (tmp_path / "link").symlink_to(tmp_path / "places")
    with (
        pytest.raises(SetupError, match="link: is no folder of its own"),
        fetch.connection("http://a.test/", 1, tmp_path / "link"),
    ):
        pass


def test_another_process_takes_places_too_and_gives_them_back_when_it_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib; from contract import fetch\n"
        "with fetch.connection('s3://bucket/x', 1, pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    killer = threading.Timer(0.5, other.kill)
    with fetch.connection("http://elsewhere.test/", 1, tmp_path):
        assert other.poll() is None, "hosts do not share places"
    began = time.monotonic()
    killer.start()
    with fetch.connection("s3://bucket/y", 1, tmp_path):
        assert time.monotonic() - began >= 0.5
    other.wait()
    other.stdout.close()


def test_snapshots_says_what_it_asks_and_gives_up_soon(server: str) -> None:
    command = [sys.executable, "-m", "contract", "snapshots", "--source", f"{server}/down"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    path = "/down/collinfo.json"
    said = [f"warning: {server}{path}: the server answers 503; asked again in {wait} s" for wait in (1, 2)]
    assert done.stderr.splitlines()[:-1] == [f"asking {server}{path}", *said]
    assert done.stderr.splitlines()[-1].startswith(f"error: {server}{path}: cannot be reached for 5 s; check the net")
    assert Flaky.seen[path] == 3


def test_a_servers_password_comes_from_netrc(
    serve: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Private(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = self.headers.get("Authorization", "nobody").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    url = serve(Private)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login bob password it's-me\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert fetch.get(f"{url}/x") == b"nobody"
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert fetch.get(f"{url}/x") == b"Basic Ym9iOml0J3MtbWU="
