"""Airflow's tables without Airflow's migrations, which take seconds."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`tables(DagRun, DagRunNote)`: Airflow's database, empty, with these tables alone. Returns its `create_session`."""
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import StaticPool

    def create(*models: Any) -> Any:
        # One connection, because a database in memory is that of its connection, and the cockpit has threads.
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        for model in models:
            model.__table__.create(engine)

        @contextmanager
        def session(scoped: bool = True) -> Any:
            with Session(engine, expire_on_commit=False) as opened, opened.begin():
                yield opened

        monkeypatch.setattr("airflow.utils.session.create_session", session)
        return session

    return create
