"""A model behind an OpenAI-compatible endpoint: one question, one answer, with limits on time, tries and size.

The key comes from the environment, goes into one header to one address, and is in no message, file or log.
"""

import contextlib
import json
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests

from contract.conversation import Turn
from contract.errors import InputError, SetupError
from contract.masking import masked
from contract.printable import printable
from evals.judge import CutOff, JudgeDown, Refused, Unanswered

log = logging.getLogger(__name__)

URL, KEY = "GRISTMILL_JUDGE_URL", "GRISTMILL_JUDGE_KEY"
TRIES = 5
MAX_TOKENS = 1024  # of an answer
AT_ONCE = 8  # questions of `ask_all`
REFUSED_IN_A_ROW = 3 * AT_ONCE  # so many are no matter of the questions: the account has no credit, for example
FIRST_WAIT_S, MOST_WAIT_S = 1.0, 60.0
TIMEOUT_S = (10.0, 120.0)  # to connect, and between two pieces of an answer
ANSWER_S = 300.0  # for a whole answer
MOST_BYTES = 4 << 20
TOLD_CHARS = 200  # of an answer that refuses
REFUSING = frozenset({400, 413, 422})  # this question: too long, for example, or about what the model may not answer
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


def _key() -> str:
    return os.environ.get(KEY, "").strip()


@dataclass(frozen=True)
class Endpoint:
    """Where a model is asked. base: for example https://api.example.com/v1; model: its name there.

    key: by default that of the environment. sleep: what waits between tries.
    """

    base: str
    model: str
    max_tokens: int = MAX_TOKENS
    tries: int = TRIES
    key: str = field(default_factory=_key, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise InputError(f"{masked(self.base)}: is no endpoint; give a URL such as https://api.example.com/v1")

    def ask(self, turns: Sequence[Turn]) -> str:
        """The model's answer to a conversation, decoded greedily; a CutOff if it ended at the limit of tokens.

        What may pass is tried again, after a wait that doubles or that the server names. Raises JudgeDown if that does
        not help, Refused if this question is refused, InputError if every one is, SetupError if the key is.
        """
        body = {
            "model": self.model, "temperature": 0, "max_tokens": self.max_tokens,
            "messages": [{"role": turn.role, "content": turn.text} for turn in turns],
        }  # fmt: skip
        failed = _Failed("")
        for attempt in range(self.tries):
            if attempt:
                log.warning("%s: %s; try %d of %d follows", self.base, failed, attempt + 1, self.tries)
                doubled = FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311 (spreads load)
                self.sleep(min(MOST_WAIT_S, max(doubled, failed.wait)))
            try:
                return self._answer(body)
            except _Failed as error:
                failed = error
        raise JudgeDown(f"{self.base}: no answer after {self.tries} tries, the last: {failed}")

    def ask_all(self, prompts: Sequence[Sequence[Turn]]) -> Iterator[tuple[int, str]]:
        """The number of each conversation with its answer, as they come; AT_ONCE are asked at a time.

        A question that is refused has an Unanswered, unless all are refused, or REFUSED_IN_A_ROW. This and any other
        error is raised, and nothing more is asked; but first comes what is answered by then.
        """
        failed: BaseException | None = None
        refused: dict[int, Refused] = {}
        answered, in_a_row = 0, 0
        with ThreadPoolExecutor(AT_ONCE) as pool:
            waiting = {pool.submit(self.ask, turns): number for number, turns in enumerate(prompts)}
            try:
                for done in as_completed(waiting):
                    if done.cancelled():
                        continue
                    error = done.exception()
                    if isinstance(error, Refused) and (in_a_row := in_a_row + 1) < REFUSED_IN_A_ROW:
                        refused[waiting[done]] = error
                    elif error:
                        failed = failed or error
                        for one in waiting:
                            one.cancel()
                    else:
                        answered, in_a_row = answered + 1, 0
                        yield waiting[done], done.result()
            finally:
                for one in waiting:
                    one.cancel()
        if refused and not answered:
            failed = failed or next(iter(refused.values()))
        if failed:
            raise failed
        yield from ((number, Unanswered(error)) for number, error in sorted(refused.items()))

    def _answer(self, body: object) -> str:
        """One try. Raises _Failed for what may pass."""
        try:
            status, wait, content = self._post(body)
        except (requests.RequestException, OSError) as error:
            raise _Failed(self._told(masked(f"{type(error).__name__}: {error}"))) from None
        if status == 200:
            try:
                return _text(content)
            except (ValueError, KeyError, IndexError, TypeError, RecursionError):
                raise _Failed("its answer is no chat completion") from None
            except Refused as error:
                raise Refused(f"{self.base}: {self._told(str(error))}") from None
        if status in (401, 403):
            raise SetupError(f"{self.base} refuses the key (status {status}); set {KEY} in the environment")
        if status in TRANSIENT:
            raise _Failed(f"status {status}", wait)
        said = self._told(content.decode("utf-8", "replace"))
        kind = Refused if status in REFUSING else InputError
        raise kind(f"{self.base} refuses the request (status {status}): {said}")

    def _told(self, said: str) -> str:
        """The first characters of what a server says, without the key if it repeats it."""
        return printable((said.replace(self.key, "***") if self.key else said)[:TOLD_CHARS])

    def _post(self, body: object) -> tuple[int, float, bytes]:
        """(status, seconds that the server asks to wait, content).

        Redirects are not followed, since they would get the key, and no other secret is taken from a .netrc file.
        """
        with (
            _limited(ANSWER_S) as session,
            session.post(
                f"{self.base.rstrip('/')}/chat/completions", json=body, auth=_Bearer(self.key), timeout=TIMEOUT_S,
                allow_redirects=False, stream=True,
            ) as answer,
        ):  # fmt: skip
            content = b""
            for piece in answer.iter_content(1 << 16):
                content += piece
                if len(content) > MOST_BYTES:
                    raise OSError(f"its answer has more than {MOST_BYTES:,} bytes")
            named = answer.headers.get("Retry-After", "")
            return answer.status_code, float(named) if named.isdigit() and len(named) < 6 else 0.0, content


def from_environment(model: str, max_tokens: int = MAX_TOKENS) -> Endpoint:
    """The endpoint whose address the environment names. Raises SetupError if it names none."""
    base = os.environ.get(URL, "").strip()
    if not base:
        raise SetupError(f"the judge {model}: {URL} names no address, such as https://host/v1; set it, and its {KEY}")
    return Endpoint(base, model, max_tokens)


class _Failed(Exception):
    """A try that failed, and may not fail again. wait: seconds that the server names."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class _Closable(requests.adapters.HTTPAdapter):
    """Knows its sockets, so that they can be ended while another thread reads from them."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        super().__init__()

    def get_connection_with_tls_context(self, *given: Any, **named: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*given, **named)
        make = pool.ConnectionCls

        def made(*given: Any, **named: Any) -> Any:
            found = make(*given, **named)
            connect = found.connect

            def connected() -> None:
                connect()
                self._sockets.append(found.sock)  # a connection forgets it once the answer's length is not known

            found.connect = connected
            return found

        pool.ConnectionCls = made
        return pool

    def end(self) -> None:
        """End every connection: whoever waits for a byte of it waits no more."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[requests.Session]:
    """A session whose connections end after so many seconds, be it in the middle of a header; then it raises OSError.

    The limit that requests has is one between two bytes: a server that sends one now and then is read for ever.
    """
    late = threading.Event()
    adapter = _Closable()

    def end() -> None:
        late.set()
        adapter.end()

    clock = threading.Timer(seconds, end)
    clock.daemon = True
    clock.start()
    try:
        with requests.Session() as session:
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            yield session
    except Exception:  # TLS that is ended while it is read may raise a ValueError, too
        if not late.is_set():
            raise
    finally:
        clock.cancel()
    if late.is_set():
        raise OSError(f"its answer took more than {seconds:.0f} s")


class _Bearer(requests.auth.AuthBase):
    """Sends the key, or nothing without one."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _text(content: bytes) -> str:
    choice = json.loads(content)["choices"][0]
    text, why = choice["message"]["content"], choice.get("finish_reason")
    if text is None:
        raise Refused(f"its answer has no text: {why}")
    if not isinstance(text, str):
        raise TypeError("its content is no text")
    text = text.encode("utf-8", "replace").decode()  # JSON may name half a character, which no file can hold
    return CutOff(text) if why == "length" else text
