"""The sandbox, which machines may lack: there its tests are skipped, but not where GRISTMILL_REQUIRE_SANDBOX says that they must run.

And a real HTTP server that speaks as an OpenAI-compatible endpoint does.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from contract.errors import SetupError
from evals import sandbox


def _why_not() -> str:
    try:
        sandbox.require()
    except SetupError as error:
        return str(error)
    return ""


WHY_NOT = _why_not()
needs_sandbox = pytest.mark.skipif(
    bool(WHY_NOT) and not os.environ.get("GRISTMILL_REQUIRE_SANDBOX"), reason=WHY_NOT or "the sandbox is here"
)

Answer = tuple[int, dict[str, str], bytes]


class Served:
    """`answer(body, number)` gives (status, headers, bytes) or a text; `asked` holds (path, headers, body)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.answer: Callable[[dict[str, Any], int], str | Answer] = lambda body, number: "B > A"
        self.url = ""
        self.slow_s = 0.0


def completion(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def served() -> Iterator[Served]:
    found, lock = Served(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                found.asked.append((self.path, dict(self.headers), body))
                number = len(found.asked)
            time.sleep(found.slow_s)
            made = found.answer(body, number)
            status, headers, data = (200, {}, completion(made)) if isinstance(made, str) else made
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()
