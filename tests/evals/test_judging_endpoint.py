"""A question to a model over HTTP: what is sent, when it is asked again, and that no key and no flood gets through."""

import logging

import pytest

from contract.errors import InputError, RecipeError, StoreError
from evals import judging_endpoint as endpoint
from evals.judging_endpoint import Endpoint, from_environment
from tests.evals.conftest import Served

KEY = "sk-geheim-1234567890"
ASKED = [{"role": "user", "content": "Which?"}]


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def model(served: Served, waits: list[float]) -> Endpoint:
    return Endpoint(served.url, "m-1", KEY, waits.append)


def test_a_question_is_asked_as_the_interface_says(served: Served, model: Endpoint, waits: list[float]) -> None:
    assert model.ask(ASKED, 77) == "B > A"
    [(path, headers, body)] = served.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {"model": "m-1", "messages": ASKED, "max_tokens": 77, "temperature": 0}
    assert waits == []


def test_without_a_key_no_header_is_sent(served: Served) -> None:
    Endpoint(served.url, "m").ask(ASKED)
    assert "Authorization" not in served.asked[0][1]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_with_longer_waits(
    served: Served, model: Endpoint, waits: list[float], status: int
) -> None:
    served.answer = lambda body, number: "fine" if number == 4 else (status, {}, b"busy")
    assert model.ask(ASKED) == "fine"
    assert [1 <= wait / usual <= 1.25 for wait, usual in zip(waits, (1, 2, 4), strict=True)] == [True] * 3


def test_a_server_says_how_long_to_wait_within_bounds(served: Served, model: Endpoint, waits: list[float]) -> None:
    served.answer = lambda body, number: "x" if number == 3 else (429, {"Retry-After": "7" if number == 1 else "99999"}, b"")  # fmt: skip
    model.ask(ASKED)
    assert [7 <= waits[0] <= 8.75, 60 <= waits[1] <= 75] == [True, True]


def test_a_server_that_never_answers_is_given_up(
    served: Served, model: Endpoint, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    served.answer = lambda body, number: (503, {}, KEY.encode())
    with caplog.at_level(logging.DEBUG), pytest.raises(StoreError, match="503; gave up after 6 tries") as raised:
        model.ask(ASKED)
    assert (len(served.asked), len(waits)) == (6, 5)
    assert KEY not in caplog.text + str(raised.value) + repr(model)


def test_nobody_listens(waits: list[float]) -> None:
    with pytest.raises(StoreError, match=r"no answer .*gave up after 6 tries"):
        Endpoint("http://127.0.0.1:9/v1", "m", sleep=waits.append).ask(ASKED)


def test_a_server_that_hangs_is_not_waited_for(
    served: Served, model: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "TIMEOUT_S", (1.0, 0.05))
    monkeypatch.setattr(endpoint, "TRIES", 2)
    served.slow_s = 0.3
    with pytest.raises(StoreError, match="gave up after 2 tries"):
        model.ask(ASKED)


def test_a_refusal_is_told_without_the_key(served: Served, model: Endpoint, waits: list[float]) -> None:
    served.answer = lambda body, number: (401, {}, f"wrong key {KEY}\x1b[31m".encode())
    with pytest.raises(InputError, match=r"answers 401: wrong key \*\*\*") as raised:
        model.ask(ASKED)
    assert "\x1b" not in str(raised.value)
    assert (len(served.asked), waits) == (1, [])


def test_the_key_goes_to_no_other_address(served: Served, model: Endpoint) -> None:
    served.answer = lambda body, number: (307, {"Location": f"{served.url}/elsewhere"}, b"")
    with pytest.raises(InputError, match="answers 307"):
        model.ask(ASKED)
    assert len(served.asked) == 1


@pytest.mark.parametrize("data", [b"no json", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b"[" * 100_000])  # fmt: skip
def test_what_is_no_answer_is_refused(served: Served, model: Endpoint, data: bytes) -> None:
    served.answer = lambda body, number: (200, {}, data)
    with pytest.raises(InputError, match="is no chat completion"):
        model.ask(ASKED)


def test_an_endless_answer_is_cut_off(served: Served, model: Endpoint) -> None:
    served.answer = lambda body, number: (200, {}, b"x" * (endpoint.MOST_BYTES + 1))
    with pytest.raises(InputError, match="longer than 1,048,576 bytes"):
        model.ask(ASKED)


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(endpoint.URL, raising=False)
    with pytest.raises(RecipeError, match=r"feedback\.judge\.model is m, but GRISTMILL_JUDGE_URL names no address"):
        from_environment("m")
    monkeypatch.setenv(endpoint.URL, "https://host/v1")
    monkeypatch.setenv(endpoint.KEY, f" {KEY}\n")
    found = from_environment("m")
    assert (found.url, found.model, found.key) == ("https://host/v1", "m", KEY)
