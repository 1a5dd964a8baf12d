"""Fifty users at once: each asks for one page after the other, over connections of their own, until all is asked.

Users read a page for a few seconds before they ask for the next; users who do not read have fifty requests under way at every
moment. The cores of the machine serve the driver, Airflow's scheduler and the API server.
"""

import asyncio
import random
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

USERS = 50
LIMIT_S = 60.0


@dataclass(frozen=True)
class Answer:
    """One answer. first_byte_s: until the head of the answer was there, bytes: of its body."""

    page: str
    address: str
    status: int
    first_byte_s: float
    bytes: int


@dataclass(frozen=True)
class Loaded:
    """All answers, how long they took together, and which part of one core the driver itself used meanwhile."""

    answers: tuple[Answer, ...]
    seconds: float
    driver_cores: float

    def p95_s(self, page: str) -> float:
        """The time to the first byte that 95 of 100 requests for a page keep."""
        return percentile([one.first_byte_s for one in self.answers if one.page == page], 0.95)

    def failures(self) -> list[Answer]:
        return [one for one in self.answers if one.status != 200]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed; infinity if there is none."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1)] if ordered else float("inf")


def press(
    url: str,
    tokens: Sequence[str],
    choose: Callable[[random.Random], tuple[str, str]],
    requests: int,
    think_s: float = 0.0,
) -> Loaded:
    """Send so many requests, with as many users as there are tokens.

    choose: draws (page, address below `url`). think_s: the mean time for which a user reads a page; 0 for users who do
    not read.
    """
    began, used = time.monotonic(), _cpu_s()
    answers = asyncio.run(_press(url, tokens, choose, requests, think_s))
    took = time.monotonic() - began
    return Loaded(tuple(answers), took, (_cpu_s() - used) / took)


async def _press(
    url: str, tokens: Sequence[str], choose: Callable[[random.Random], tuple[str, str]], requests: int, think_s: float
) -> list[Answer]:
    left = iter(range(requests))
    answers: list[Answer] = []

    async def user(number: int, token: str) -> None:
        drawn = random.Random(number)
        headers = {"accept": "text/html", "cookie": f"_token={token}"}
        async with httpx.AsyncClient(base_url=url, timeout=LIMIT_S, headers=headers) as client:
            for _ in left:
                page, address = choose(drawn)
                if think_s:
                    await asyncio.sleep(drawn.expovariate(1 / think_s))
                answers.append(await _ask(client, page, address))

    await asyncio.gather(*(user(number, token) for number, token in enumerate(tokens)))
    return answers


async def _ask(client: httpx.AsyncClient, page: str, address: str) -> Answer:
    began = time.monotonic()
    try:
        async with client.stream("GET", address) as answer:
            first = time.monotonic() - began
            size = len(await answer.aread())
            return Answer(page, address, answer.status_code, first, size)
    except httpx.HTTPError:
        return Answer(page, address, 0, LIMIT_S, 0)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
