"""An S3 service over a folder, read-only, that answers after a delay and can fail: what an object store is to a reader."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass
class Asked:
    """What readers asked for: the number of requests, and the bytes that they got, by the file's ending.

    log: of each request `HEAD`, `GET` or `LIST` and the path, which for a list is the prefix.
    """

    requests: int = 0
    log: list[tuple[str, str]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    """How many of the next requests are answered 503."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, method: str, path: str) -> None:
        """Put a request into the log."""
        with self._lock:
            self.log.append((method, path))

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
        asked = urlsplit(self.path)
        query = dict(parse_qsl(asked.query))
        path = self.server.folder / unquote(asked.path).strip("/")
        if "list-type" in query:
            self.server.asked.write("LIST", f"{path.name}/{query.get('prefix', '')}")
            return self._list(path, query.get("prefix", ""), query.get("delimiter", ""))
        self.server.asked.write(self.command, path.relative_to(self.server.folder).as_posix())
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
        place["Last-Modified"] = formatdate(path.stat().st_mtime, usegmt=True)
        return self._send(206 if wanted else 200, data, stop - start, place)

    def _list(self, bucket: Path, prefix: str, delimiter: str) -> None:
        """All files whose path begins with a prefix, in one answer; with a delimiter those of folders as the folder."""
        files: list[str] = []
        folders: dict[str, None] = {}
        for file in sorted(bucket.rglob("*")):
            path = file.relative_to(bucket).as_posix()
            if file.is_file() and path.startswith(prefix):
                head, below, _ = path.removeprefix(prefix).partition(delimiter or "\0")
                if below:
                    folders[f"{prefix}{head}{delimiter}"] = None
                else:
                    files.append(_listed(file, path))
        shared = (f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in folders)
        count = f"<KeyCount>{len(files) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>"
        text = f"<ListBucketResult>{count}{''.join(files)}{''.join(shared)}</ListBucketResult>"
        self._send(200, text.encode(), len(text.encode()))

    def _send(self, status: int, data: bytes, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), "ETag": '"0"', **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _listed(file: Path, path: str) -> str:
    made = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(file.stat().st_mtime))
    size = file.stat().st_size
    return f"<Contents><Key>{escape(path)}</Key><LastModified>{made}</LastModified><Size>{size}</Size></Contents>"


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
