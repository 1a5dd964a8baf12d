"""A server that answers 503, stalls the connection or has no such file: retried, or said in one line."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from contract import fetch
from contract.errors import InputError, StoreError


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
        elif self.path == "/gone":
            self.send_error(404)
        elif self.path == "/down":
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.end_headers()
        else:
            body = b"0123456789"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Flaky.seen = {}
    made = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()


@pytest.mark.parametrize("path", ["/busy", "/reset"])
def test_a_busy_server_is_asked_again(server: str, path: str) -> None:
    assert fetch.get(server + path, retries=4) == b"0123456789"
    assert Flaky.seen[path] == 3


def test_what_is_missing_is_not_asked_twice(server: str) -> None:
    with pytest.raises(InputError, match=r"the server answers 404; check crawl\.source"):
        fetch.get(server + "/gone", retries=4)
    assert Flaky.seen["/gone"] == 1


def test_a_server_that_stays_down_is_given_up_with_advice(server: str) -> None:
    with pytest.raises(
        StoreError, match=r"/down: cannot be reached after 2 retries; check the network or name a folder"
    ):
        fetch.get(server + "/down", retries=2)
    assert Flaky.seen["/down"] == 3
