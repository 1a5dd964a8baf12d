"""The client of an endpoint, against a real server on this machine."""

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from contract.conversation import Turn
from contract.errors import InputError, SetupError
from evals import endpoint
from evals.endpoint import KEY, Endpoint
from evals.judge import JudgeDown, Pair, judge_pairs

TURNS = (Turn("system", "Judge."), Turn("user", "A or B?"))
SECRET = "sk-never-shown"


class Server(ThreadingHTTPServer):
    """Answers with what it is told, in order, the last of it again and again; keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), json.loads(body)))
        answers = self.server.answers
        status, headers, content = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def said(text: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv(KEY, SECRET)
    made = Server()
    Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


def judge(server: Server, waits: list[float], **more: Any) -> Endpoint:
    return Endpoint(server.base, "judge-1", sleep=waits.append, **more)


def test_a_conversation_is_sent_and_the_answer_returned(server: Server, waits: list[float]) -> None:
    server.answers = [said("[[A]] 好")]
    assert judge(server, waits).ask(TURNS) == "[[A]] 好"
    ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert body == {
        "model": "judge-1", "temperature": 0, "max_tokens": 1024,
        "messages": [{"role": "system", "content": "Judge."}, {"role": "user", "content": "A or B?"}],
    }  # fmt: skip
    assert waits == []


def test_without_a_key_none_is_sent(server: Server, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY)
    server.answers = [said("ok")]
    judge(server, waits).ask(TURNS)
    assert "Authorization" not in server.asked[0][1]


def test_what_may_pass_is_tried_again_after_longer_and_longer_waits(server: Server, waits: list[float]) -> None:
    server.answers = [
        (503, {}, b"busy"),
        (200, {}, b"<html>"),
        said(None),
        (429, {"Retry-After": "30"}, b""),
        said("[[B]]"),
    ]
    assert judge(server, waits).ask(TURNS) == "[[B]]"
    assert len(server.asked) == 5
    for wait, wanted in zip(waits[:3], (1, 2, 4), strict=True):
        assert 0.75 * wanted <= wait <= 1.25 * wanted
    assert waits[3] == 30, "the server's own wait, where it is longer"


def test_a_judge_that_is_down_is_reported_and_not_counted(server: Server, waits: list[float]) -> None:
    server.answers = [(500, {}, b"")]
    with pytest.raises(JudgeDown, match="no answer after 3 tries, the last: status 500"):
        judge(server, waits, tries=3).ask(TURNS)
    assert (len(server.asked), len(waits)) == (3, 2)
    made = judge_pairs([Pair("a", "p", "x", "y")], judge(server, waits, tries=2).ask)
    assert made.ballots == ()
    assert made.unjudged["a"].endswith("no answer after 2 tries, the last: status 500")


def test_a_port_where_nobody_listens_is_a_judge_that_is_down(waits: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(JudgeDown, match="ConnectionError"):
        Endpoint(f"http://127.0.0.1:{port}", "m", tries=2, sleep=waits.append).ask(TURNS)
    assert len(waits) == 1


def test_what_cannot_pass_is_not_tried_again_and_shows_no_key(server: Server, waits: list[float]) -> None:
    server.answers = [(401, {}, b"")]
    with pytest.raises(SetupError, match=f"refuses the key .*set {KEY}"):
        judge(server, waits).ask(TURNS)
    server.answers = [(400, {}, f"bad key {SECRET}".encode())]
    with pytest.raises(InputError, match=r"refuses the request \(status 400\): bad key \*\*\*") as caught:
        judge(server, waits).ask(TURNS)
    assert SECRET not in str(caught.value)
    assert (len(server.asked), waits) == (2, [])


def test_a_redirect_gets_no_key(server: Server, waits: list[float]) -> None:
    server.answers = [(302, {"Location": f"{server.base}/elsewhere"}, b"")]
    with pytest.raises(InputError, match="status 302"):
        judge(server, waits).ask(TURNS)
    assert len(server.asked) == 1


def test_an_answer_without_end_is_cut(server: Server, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MOST_BYTES", 1000)
    server.answers = [said("x" * 2000)]
    with pytest.raises(JudgeDown, match="more than 1,000 bytes"):
        judge(server, waits, tries=1).ask(TURNS)


@pytest.mark.parametrize("base", ["ftp://a/v1", "api.example.com", "https://key@a/v1", "https://a/v1?key=x", ""])
def test_what_is_no_endpoint_is_refused(base: str) -> None:
    with pytest.raises(InputError, match="is no endpoint"):
        Endpoint(base, "m")
