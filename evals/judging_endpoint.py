"""A model behind an OpenAI-compatible endpoint: one question, one answer, with limits on time, tries and size.

The address and the key come from the environment, never from a recipe. The key goes into one header, is sent to no
other address, and stands in no message.
"""

import json
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

from contract.errors import InputError, RecipeError, StoreError
from contract.masking import masked
from contract.printable import printable

log = logging.getLogger(__name__)

URL, KEY = "GRISTMILL_JUDGE_URL", "GRISTMILL_JUDGE_KEY"
TIMEOUT_S = (10.0, 120.0)  # to connect, and between two pieces of an answer
WHOLE_S = 300.0  # for one answer
TRIES = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
AGAIN = (408, 409, 429, 500, 502, 503, 504)
MOST_BYTES = 1 << 20  # of one answer
MOST_TOKENS = 1024
TOLD_CHARS = 200

Message = Mapping[str, str]


class Failed(Exception):
    """A try that is worth another one. after: the seconds that the server asks to wait, or 0."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


@dataclass(frozen=True)
class Endpoint:
    """A model at an address such as `https://host/v1`."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def ask(self, messages: Sequence[Message], max_tokens: int = MOST_TOKENS) -> str:
        """The model's answer, decoded greedily.

        A busy or broken server is asked again up to TRIES times, with waits that double. Raises StoreError if it never
        answers, which a later try may cure, and InputError if it refuses the question or answers something else.
        """
        body = {"model": self.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
        for number in range(1, TRIES + 1):
            try:
                return self._post(body)
            except Failed as error:
                if number == TRIES:
                    raise StoreError(f"{masked(self.url)}: {error}; gave up after {TRIES} tries") from None
                wait = min(max(FIRST_WAIT_S * 2 ** (number - 1), error.after), LONGEST_WAIT_S)
                log.warning("%s: %s; try %d of %d follows", masked(self.url), error, number + 1, TRIES)
                self.sleep(wait * random.uniform(1.0, 1.25))  # noqa: S311 (clients shall not come back together)
        raise AssertionError("the last try returns or raises")

    def _post(self, body: Mapping[str, Any]) -> str:
        began = time.monotonic()
        try:
            with requests.post(
                f"{self.url.rstrip('/')}/chat/completions",
                json=body,
                auth=self._authorise,  # also keeps a .netrc from giving another name
                timeout=TIMEOUT_S,
                stream=True,
                allow_redirects=False,  # another address shall not get the key
            ) as answer:
                data = self._read(answer, began)
                status, after = answer.status_code, answer.headers.get("Retry-After", "")
        except requests.RequestException as error:
            raise Failed(f"no answer ({type(error).__name__})") from None
        if status in AGAIN:
            raise Failed(f"the server answers {status}", float(after) if after.isdecimal() else 0.0)
        if status != 200:
            raise InputError(f"{masked(self.url)}: the server answers {status}: {self._told(data)}")
        return self._text(data)

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request

    def _read(self, answer: requests.Response, began: float) -> bytes:
        data = b""
        for piece in answer.iter_content(1 << 14):
            data += piece
            if len(data) > MOST_BYTES:
                raise InputError(f"{masked(self.url)}: the answer is longer than {MOST_BYTES:,} bytes")
            if time.monotonic() - began > WHOLE_S:
                raise Failed(f"the answer took more than {WHOLE_S:g} s")
        return data

    def _text(self, data: bytes) -> str:
        try:
            found = json.loads(data)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            found = None
        if not isinstance(found, str):
            raise InputError(f"{masked(self.url)}: the answer is no chat completion: {self._told(data)}")
        return found

    def _told(self, data: bytes) -> str:
        """The first characters of an answer, without the key if the server repeats it."""
        said = data.decode(errors="replace")
        return printable((said.replace(self.key, "***") if self.key else said)[:TOLD_CHARS])


def from_environment(model: str) -> Endpoint:
    """The endpoint of the environment. Raises RecipeError if it names none."""
    url = os.environ.get(URL, "").strip()
    if not url.startswith(("http://", "https://")):
        raise RecipeError(f"feedback.judge.model is {model}, but {URL} names no address, such as https://host/v1")
    return Endpoint(url, model, os.environ.get(KEY, "").strip())
