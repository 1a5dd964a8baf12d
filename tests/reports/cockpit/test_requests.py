"""What a page costs on an object store, which answers each request after tens of milliseconds: the requests are counted."""

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from contract.store import Store
from perf.slow_store import Asked, slow_store
from reports.cockpit.app import create
from reports.cockpit.local import Local
from tests.reports.cockpit.conftest import HERE
from tests.reports.trained import train


@dataclass
class Remote:
    """The cockpit over a store behind a service that counts."""

    client: TestClient
    asked: Asked
    ids: dict[str, str]

    def requests(self, path: str, **query: Any) -> Counter[tuple[str, str]]:
        """How often which file or folder is asked for to show a page."""
        self.asked.log.clear()
        page = self.client.get(path, params=query or None, headers={"accept": "text/html"})
        assert page.status_code == 200, page.text
        return Counter(self.asked.log)


@pytest.fixture
def remote(searched: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    train(searched.run)
    bucket = uuid.uuid4().hex  # what is remembered of a store goes by its name
    (tmp_path / "served").mkdir()
    (tmp_path / "store").rename(tmp_path / "served" / bucket)
    for clock in (
        "reports.cockpit.local.LISTING_S",
        "reports.models.FRESH_S",
        "reports.indexes.FRESH_S",
        "reports.older.FRESH_S",
    ):
        monkeypatch.setattr(clock, 1e6)  # what is asked again after some seconds would depend on the machine
    with slow_store(tmp_path / "served") as (endpoint, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        visitor = Local(Store(f"s3://{bucket}"))

        async def admit(request: Request) -> Local:
            return visitor

        yield Remote(TestClient(create(admit), base_url=HERE), asked, searched.ids)


PAGES = {
    "/run/runs/one": (47, 4),  # the folders of the 32 stages are listed once a minute
    "/pages/runs/one?address={short}": (33, 11),
    "/pages/runs/one?reason=kept": (9, 9),
    "/pages/runs/one/document/{plain}": (18, 16),
    "/pages/runs/one/document/{copy}": (20, 20),
    "/pages/runs/one/thresholds?setting=min_words&limit=3": (7, 4),
    "/training/runs/one": (11, 11),
    "/training/runs/one/pretrain": (11, 11),
    "/training/runs/one/pretrain/points": (2, 2),
    "/models": (14, 0),
    "/models/runs/one": (6, 6),
    "/models/runs/one/ppo": (50, 24),
}
"""Most requests for a page after those above it have been seen, and for the same page once more."""


def test_pages_ask_the_store_for_little(remote: Remote) -> None:
    """Nothing is listed to learn that a task is not done, no page reads a manifest twice, and what never changes is remembered."""
    for path, bounds in PAGES.items():
        for most in bounds:
            found = remote.requests(path.format(**remote.ids))
            assert found.total() <= most, (path, found)
            assert not [name for kind, name in found if kind == "LIST" and name.endswith(".json/")]
            read = {name: count for (kind, name), count in found.items() if kind == "GET" and name.endswith(".json")}
            assert {*read.values()} <= {1} or path.endswith("/ppo"), (path, read)
