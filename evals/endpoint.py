"""A judge behind an OpenAI-compatible endpoint.

Its key comes from the environment and is in no message, file or log.
"""

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests

from contract.conversation import Turn
from contract.errors import InputError, SetupError
from contract.masking import masked
from evals.judge import JudgeDown

KEY = "GRISTMILL_JUDGE_KEY"
TRIES = 5
FIRST_WAIT_S, MOST_WAIT_S = 1.0, 60.0
TIMEOUT_S = (10.0, 120.0)  # to connect, and between two pieces of an answer
ANSWER_S = 300.0  # for a whole answer
MOST_BYTES = 4 << 20
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True)
class Endpoint:
    """Where a judge is asked. base: for example https://api.example.com/v1; model: the judge's name there.

    sleep: what waits between tries.
    """

    base: str
    model: str
    max_tokens: int = 1024
    tries: int = TRIES
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        parts = urlsplit(self.base)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise InputError(f"{masked(self.base)}: is no endpoint; give a URL such as https://api.example.com/v1")

    def ask(self, turns: Sequence[Turn]) -> str:
        """The judge's answer to a conversation.

        What may pass is tried again, after a wait that doubles or that the server names. Raises JudgeDown if that does
        not help, SetupError if the key is refused, InputError if the request is.
        """
        body = {
            "model": self.model, "temperature": 0, "max_tokens": self.max_tokens,
            "messages": [{"role": turn.role, "content": turn.text} for turn in turns],
        }  # fmt: skip
        failed = _Failed("")
        for attempt in range(self.tries):
            if attempt:
                doubled = FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311 (spreads load)
                self.sleep(min(MOST_WAIT_S, max(doubled, failed.wait)))
            try:
                return self._answer(body)
            except _Failed as error:
                failed = error
        raise JudgeDown(f"{self.base}: no answer after {self.tries} tries, the last: {failed}")

    def _answer(self, body: object) -> str:
        """One try. Raises _Failed for what may pass."""
        key = os.environ.get(KEY, "")
        try:
            status, wait, content = self._post(body, key)
        except (requests.RequestException, OSError) as error:
            raise _Failed(masked(f"{type(error).__name__}: {error}")) from None
        if status == 200:
            try:
                return _text(content)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise _Failed(f"its answer is no chat completion ({error})") from None
        if status in (401, 403):
            raise SetupError(f"{self.base} refuses the key (status {status}); set {KEY} in the environment")
        if status in TRANSIENT:
            raise _Failed(f"status {status}", wait)
        said = content[:200].decode("utf-8", "replace")
        raise InputError(
            f"{self.base} refuses the request (status {status}): {said.replace(key, '***') if key else said}"
        )

    def _post(self, body: object, key: str) -> tuple[int, float, bytes]:
        """(status, seconds that the server asks to wait, content).

        Redirects are not followed, since they would get the key, and no other secret is taken from a .netrc file.
        """
        end = time.monotonic() + ANSWER_S
        with requests.post(
            f"{self.base.rstrip('/')}/chat/completions", json=body, auth=_Bearer(key), timeout=TIMEOUT_S,
            allow_redirects=False, stream=True,
        ) as answer:  # fmt: skip
            content = b""
            for piece in answer.iter_content(1 << 16):
                content += piece
                if len(content) > MOST_BYTES:
                    raise OSError(f"its answer has more than {MOST_BYTES:,} bytes")
                if time.monotonic() > end:
                    raise OSError(f"its answer took more than {ANSWER_S:.0f} s")
            named = answer.headers.get("Retry-After", "")
            return answer.status_code, float(named) if named.isdigit() and len(named) < 6 else 0.0, content


class _Failed(Exception):
    """A try that failed, and may not fail again. wait: seconds that the server names."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class _Bearer(requests.auth.AuthBase):
    """Sends the key, or nothing without one."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _text(content: bytes) -> str:
    text = json.loads(content)["choices"][0]["message"]["content"]
    if not isinstance(text, str):
        raise TypeError("its content is no text")
    return text
