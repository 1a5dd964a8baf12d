"""The bench of ways out of a deployment: all are refused today, and it tells where one is not."""

from pathlib import Path

import pytest

from contract import manifest
from contract.deployment import VARIABLE, Deployment
from perf import boundary


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that what the bench sets there is taken back


def test_every_way_out_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert boundary.measure(tmp_path).short == []
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("trigger ") for line in lines) >= 20
    assert sum(line.startswith("store ") for line in lines) >= 15


def test_a_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Deployment, "refuses", lambda *_: None)
    monkeypatch.setattr(manifest, "foreign", lambda *_: None)
    assert boundary.measure(tmp_path).short == ["trigger_escapes", "store_tampering_refused"]
    said = capsys.readouterr().out
    assert "file above the store                           TAKEN" in said
    assert "WENT THROUGH" in said
    assert "LEFT ITS BOUNDS" in said
