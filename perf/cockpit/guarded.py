"""Asks every route of the cockpit without a session, with the wrong one, and with rights that do not suffice."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests

from perf.cockpit import rights
from perf.cockpit.served import LARGE, Served

FILLED = {
    "dag_id": "corpus", "task_id": "pretrain", "stage": "pretrain", "map_index": "0",
    "name": "config.json", "key": "0" * 32,
}  # fmt: skip
"""What stands in an address for each of its parts."""
TELLING = re.compile(r"tiny-\d{4}|file:///|uses recipe|corpus/large|pretrain/large")
"""What only those may read who may read a run. A refusal may repeat the run of the address that was asked for."""


@dataclass(frozen=True)
class Route:
    """A method and an address of the cockpit. of_dag: whether the address names a DAG."""

    method: str
    path: str
    of_dag: bool

    @property
    def writes(self) -> bool:
        return self.method == "POST"


def routes(run_id: str = LARGE) -> list[Route]:
    """Every route of the application, as it is now, with the addresses of one run."""
    from reports.cockpit.app import create

    async def nobody(request: Any) -> Any:
        raise NotImplementedError

    filled = {**FILLED, "run_id": run_id}
    found = []
    for route in create(nobody).routes:
        path, methods = getattr(route, "path", ""), getattr(route, "methods", None) or {"GET"}
        of_dag = "{dag_id}" in path
        address = re.sub(r"{(\w+)(:\w+)?}", lambda part: filled.get(part[1], "x"), path)
        found += [Route(method, address, of_dag) for method in sorted(methods)]
    return found


def unauthorised(
    up: Served, forms: Mapping[str, Mapping[str, str]] | None = None, run_id: str = LARGE
) -> tuple[int, list[str]]:
    """(number of requests, the answers that nobody should have got) of every route for everybody who may not have it.

    forms: address -> fields of a form that the page accepts, so that only rights can refuse it.
    """
    asked, wrong = 0, []
    for route, who, answer in _answers(up, forms or {}, run_id):
        asked += 1
        if why := complaint(route, who, answer.status_code, answer.text):
            wrong.append(f"{who} {route.method} {route.path}: {answer.status_code}, {why}")
    return asked, wrong


def complaint(route: Route, who: str, status: int, text: str) -> str:
    """What is wrong with an answer, or nothing."""
    if who in ("nobody", "forged"):
        return "" if status in (401, 403) else "answered without a session"
    if who == rights.STRANGER:
        if route.of_dag and status < 400:
            return "answered although the DAG may not be seen"
        own = text.replace(f"corpus/{LARGE}", "") if route.of_dag else text
        return "names what may not be seen" if TELLING.search(own) else ""
    return "written without the right to edit or from another site" if route.writes and status < 400 else ""


def _answers(
    up: Served, forms: Mapping[str, Mapping[str, str]], run_id: str
) -> Iterator[tuple[Route, str, requests.Response]]:
    tokens = {who: up.token(who) for who in (rights.STRANGER, rights.VIEWER, rights.ADMIN)}
    for route in routes(run_id):
        for who in ("nobody", "forged", rights.STRANGER, rights.VIEWER, "another site"):
            if who in (rights.VIEWER, "another site") and not route.writes:
                continue
            session = tokens.get(rights.ADMIN if who == "another site" else who, "forged.token.x")
            headers = {"accept": "text/html", "cookie": "" if who == "nobody" else f"_token={session}"}
            headers["origin"] = "https://elsewhere.example" if who == "another site" else up.url
            data = forms.get(route.path, {}) if route.writes else None
            yield (
                route,
                who,
                requests.request(
                    route.method, up.cockpit + route.path, headers=headers, data=data, timeout=60, allow_redirects=False
                ),
            )
