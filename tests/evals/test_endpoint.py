"""A question to a model over HTTP: what is sent, when it is asked again, and that no key and no flood gets through."""

import contextlib
import json
import logging
import socket
import threading
import time
from typing import Any

import pytest

from contract.conversation import Turn
from contract.errors import InputError, SetupError
from evals import endpoint
from evals.endpoint import KEY, URL, Endpoint, from_environment
from evals.judge import CutOff, JudgeDown, Pair, Refused, Unanswered, judge_pairs
from tests.evals.conftest import Answer, Served

TURNS = (Turn("system", "Judge."), Turn("user", "A or B?"))
SECRET = "sk-never-shown-1234567890"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setenv(KEY, f" {SECRET}\n")
    return []


@pytest.fixture
def model(served: Served, waits: list[float]) -> Endpoint:
    return Endpoint(served.url, "judge-1", sleep=waits.append)


def test_a_conversation_is_sent_and_the_answer_returned(served: Served, model: Endpoint, waits: list[float]) -> None:
    served.answer = lambda body, number: "[[A]] 好"
    assert model.ask(TURNS) == "[[A]] 好"
    [(path, headers, body)] = served.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert body == {
        "model": "judge-1", "temperature": 0, "max_tokens": 1024,
        "messages": [{"role": "system", "content": "Judge."}, {"role": "user", "content": "A or B?"}],
    }  # fmt: skip
    assert waits == []


def test_without_a_key_none_is_sent(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    Endpoint(served.url, "m").ask(TURNS)
    assert "Authorization" not in served.asked[0][1]


def test_what_may_pass_is_tried_again_after_longer_and_longer_waits(
    served: Served, model: Endpoint, waits: list[float]
) -> None:
    answers: list[Answer | str] = [
        (503, {}, b"busy"),
        (200, {}, b"<html>"),
        (200, {}, b"{}"),
        (429, {"Retry-After": "30"}, b""),
        "[[B]]",
    ]
    served.answer = lambda body, number: answers[number - 1]
    assert model.ask(TURNS) == "[[B]]"
    assert len(served.asked) == 5
    assert [0.75 <= wait / usual <= 1.25 for wait, usual in zip(waits, (1, 2, 4), strict=False)] == [True] * 3
    assert waits[3] == 30, "the server's own wait, where it is longer"


def test_a_server_cannot_ask_for_a_wait_without_end(served: Served, model: Endpoint, waits: list[float]) -> None:
    served.answer = lambda body, number: "x" if number == 2 else (429, {"Retry-After": "99999"}, b"")
    model.ask(TURNS)
    assert waits == [60]


def test_a_judge_that_is_down_is_reported_and_not_counted(
    served: Served, model: Endpoint, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    served.answer = lambda body, number: (500, {}, SECRET.encode())
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(JudgeDown, match="after 5 tries, the last: status 500") as raised,
    ):
        model.ask(TURNS)
    assert (len(served.asked), len(waits)) == (5, 4)
    assert "status 500; try 2 of 5 follows" in caplog.text
    assert SECRET not in caplog.text + str(raised.value) + repr(model)
    made = judge_pairs([Pair("a", "p", "x", "y")], model.ask)
    assert made.ballots == ()
    assert made.unjudged["a"].endswith("no answer after 5 tries, the last: status 500")


def test_many_are_asked_at_once_and_each_answer_has_its_number(served: Served, model: Endpoint) -> None:
    served.slow_s = 0.1
    served.answer = lambda body, number: body["messages"][0]["content"].upper()
    began = time.monotonic()
    found = dict(model.ask_all([(Turn("user", f"q{number}"),) for number in range(16)]))
    assert found == {number: f"Q{number}" for number in range(16)}
    assert time.monotonic() - began < 1.2, "eight at a time"
    assert dict(model.ask_all([])) == {}


def test_after_an_error_what_was_answered_still_comes_and_nothing_more_is_asked(
    served: Served, model: Endpoint
) -> None:
    served.slow_s = 0.02
    served.answer = lambda body, number: (402, {}, b"no credit") if number == 3 else f"{number}"
    found = []
    with pytest.raises(InputError, match="no credit"):
        found.extend(text for _, text in model.ask_all([TURNS] * 200))
    assert {"1", "2"} <= {*found}
    assert len(found) == len(served.asked) - 1 < 150


def test_a_question_that_is_refused_costs_no_other_its_answer(served: Served, model: Endpoint) -> None:
    asked = [(Turn("user", f"q{number}"),) for number in range(40)]

    def some(body: dict[str, Any], number: int) -> str | Answer:
        return (413, {}, b"too long") if body["messages"][0]["content"] in ("q0", "q7") else "fine"

    served.answer = some
    found = dict(model.ask_all(asked))
    assert [number for number, answer in found.items() if isinstance(answer, Unanswered)] == [0, 7]
    assert found[7].endswith("refuses the request (status 413): too long")
    assert {found[number] for number in range(40) if number not in (0, 7)} == {"fine"}
    served.answer = lambda body, number: (400, {}, b"no credit")
    with pytest.raises(Refused, match="no credit"):
        dict(model.ask_all(asked[:2]))
    served.asked.clear()
    served.answer = lambda body, number: "fine" if number <= 5 else (400, {}, b"no credit")
    found = {}
    with pytest.raises(Refused, match="no credit"):
        found.update(model.ask_all(asked * 5))
    assert {*found.values()} == {"fine"}, "many in a row are no matter of the questions"
    assert len(served.asked) < 60


def test_an_answer_says_whether_it_is_whole(served: Served, model: Endpoint) -> None:
    def ended(content: object, why: str) -> Answer:
        return 200, {}, json.dumps({"choices": [{"message": {"content": content}, "finish_reason": why}]}).encode()

    served.answer = lambda body, number: ended("a whole text", "stop")
    assert not isinstance(model.ask(TURNS), CutOff)
    served.answer = lambda body, number: ended("a text that br", "length")
    assert isinstance(model.ask(TURNS), CutOff)
    served.answer = lambda body, number: ended("bad \ud800 text", "stop")
    assert model.ask(TURNS) == "bad ? text"
    served.asked.clear()
    served.answer = lambda body, number: ended(None, "content_filter")
    with pytest.raises(Refused, match="its answer has no text: content_filter"):
        model.ask(TURNS)
    assert len(served.asked) == 1


def test_a_port_where_nobody_listens_is_a_judge_that_is_down(waits: list[float]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(JudgeDown, match="ConnectionError"):
        Endpoint(f"http://127.0.0.1:{port}", "m", tries=2, sleep=waits.append).ask(TURNS)
    assert len(waits) == 1


def test_a_server_that_hangs_is_not_waited_for(
    served: Served, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "TIMEOUT_S", (1.0, 0.05))
    served.slow_s = 0.3
    with pytest.raises(JudgeDown, match="no answer after 2 tries"):
        Endpoint(served.url, "m", tries=2, sleep=waits.append).ask(TURNS)


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["headers", "body"])
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(
    first: bytes, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "ANSWER_S", 0.4)
    over = threading.Event()

    def drip(server: socket.socket) -> None:
        with contextlib.suppress(OSError), server.accept()[0] as caller:
            caller.recv(1 << 16)
            caller.sendall(first)
            while not over.wait(0.02):
                caller.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip, args=(server,), daemon=True)
        dripping.start()
        threading.Timer(4, over.set).start()
        began = time.monotonic()
        with pytest.raises(JudgeDown, match="its answer took more than 0 s"):
            Endpoint(f"http://127.0.0.1:{server.getsockname()[1]}", "m", tries=1).ask(TURNS)
        assert time.monotonic() - began < 2
        over.set()
        dripping.join()


def test_what_cannot_pass_is_not_tried_again_and_shows_no_key(
    served: Served, model: Endpoint, waits: list[float]
) -> None:
    served.answer = lambda body, number: (
        (401, {}, b"") if number == 1 else (400, {}, f"bad key {SECRET}\x1b[3m".encode())
    )
    with pytest.raises(SetupError, match=f"refuses the key .*set {KEY}"):
        model.ask(TURNS)
    with pytest.raises(InputError, match=r"refuses the request \(status 400\): bad key \*\*\*") as caught:
        model.ask(TURNS)
    assert SECRET not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert (len(served.asked), waits) == (2, [])


def test_a_redirect_gets_no_key(served: Served, model: Endpoint) -> None:
    served.answer = lambda body, number: (307, {"Location": f"{served.url}/elsewhere"}, b"")
    with pytest.raises(InputError, match="status 307"):
        model.ask(TURNS)
    assert len(served.asked) == 1


@pytest.mark.parametrize(
    "data", [b"no json", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": 7}}]}', b"[" * 100_000]
)
def test_what_is_no_answer_is_none(served: Served, waits: list[float], data: bytes) -> None:
    served.answer = lambda body, number: (200, {}, data)
    with pytest.raises(JudgeDown, match="its answer is no chat completion"):
        Endpoint(served.url, "m", tries=1).ask(TURNS)


def test_an_answer_without_end_is_cut(served: Served, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MOST_BYTES", 1000)
    served.answer = lambda body, number: "x" * 2000
    with pytest.raises(JudgeDown, match="more than 1,000 bytes"):
        Endpoint(served.url, "m", tries=1).ask(TURNS)


@pytest.mark.parametrize("base", ["ftp://a/v1", "api.example.com", "https://key@a/v1", "https://a/v1?key=x", ""])
def test_what_is_no_endpoint_is_refused(base: str) -> None:
    with pytest.raises(InputError, match="is no endpoint"):
        Endpoint(base, "m")


def test_the_address_and_the_key_come_from_the_environment(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL, raising=False)
    with pytest.raises(SetupError, match="the judge m: GRISTMILL_JUDGE_URL names no address"):
        from_environment("m")
    monkeypatch.setenv(URL, " https://host/v1\n")
    found = from_environment("m")
    assert (found.base, found.model, found.key, found.max_tokens) == ("https://host/v1", "m", SECRET, 1024)
    assert from_environment("m", 4096).max_tokens == 4096
