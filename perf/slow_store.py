"""An S3 service over a folder, read-only, that answers after a delay and can fail: what an object store is to a reader."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Asked:
    """What readers asked for: the number of requests, and the bytes that they got, by the file's ending."""

    requests: int = 0
    sent: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    """How many of the next requests are answered 503."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, suffix: str, size: int) -> bool:
        """Count a request; return whether it is answered."""
        with self._lock:
            self.requests += 1
            if self.failures:
                self.failures -= 1
                return False
            self.sent[suffix] = self.sent.get(suffix, 0) + size
            return True


class Service(ThreadingHTTPServer):
    """Serves the folder's subfolders as buckets."""

    daemon_threads = True

    def __init__(self, folder: Path, delay_s: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.delay_s, self.asked = folder, delay_s, Asked()


class Handler(BaseHTTPRequestHandler):
    """One reader's connection."""

    protocol_version = "HTTP/1.1"
    server: Service

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        time.sleep(self.server.delay_s)
        path = self.server.folder / self.path.partition("?")[0].lstrip("/")
        if not path.is_file():
            return self._send(404, b"", 0)
        size = path.stat().st_size
        start, stop = 0, size
        if wanted := self.headers.get("Range"):
            low, _, high = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(low), min(int(high) + 1, size)
        if not self.server.asked.answer(path.suffix, stop - start if body else 0):
            return self._send(503, b"", 0)
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(stop - start) if body else b""
        place = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if wanted else {}
        return self._send(206 if wanted else 200, data, stop - start, place)

    def _send(self, status: int, data: bytes, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), "ETag": '"0"', **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def slow_store(folder: Path, delay_s: float = 0.0) -> Iterator[tuple[str, Asked]]:
    """Run a service over a folder; yields (its endpoint, what is asked of it)."""
    server = Service(folder, delay_s)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
