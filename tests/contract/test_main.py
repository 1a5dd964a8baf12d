"""The commands that need neither Spark nor a GPU, as a person types them."""

import datetime
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from contract import __main__ as command
from contract.plan import Run, open_run


def test_two_runs_of_one_second_have_names_of_their_own(
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run()
    now = datetime.datetime(2026, 11, 20, 21, 30, tzinfo=datetime.UTC)
    clock = SimpleNamespace(UTC=datetime.UTC, datetime=SimpleNamespace(now=lambda _: now))
    monkeypatch.setattr(command, "datetime", clock)
    for words in ("30", "31"):
        given = ["resolve", "--recipe", str(tmp_path / "recipe.yaml"), "--set", f"filter.min_words={words}"]
        assert command.main(given) == 0
    one, other = capsys.readouterr().out.split()
    assert "/runs/test-20261120T213000-" in one
    assert [open_run(uri).recipe.filter.min_words for uri in (one, other)] == [30, 31]


def test_a_name_that_is_given_stays(
    make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run()
    given = ["resolve", "--recipe", str(tmp_path / "recipe.yaml"), "--run", "mine"]
    assert command.main(given) == 0
    assert capsys.readouterr().out == f"file://{tmp_path}/store/runs/mine/recipe.yaml\n"
    assert command.main([*given, "--set", "filter.min_words=31"]) == 78
    assert "exists with other content" in capsys.readouterr().err


def test_a_bad_run_name_is_a_bad_recipe(
    make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run()
    assert command.main(["resolve", "--recipe", str(tmp_path / "recipe.yaml"), "--run", "a b"]) == 78
    assert capsys.readouterr().err == "error: run name 'a b': use letters, digits and . _ + : -\n"


@pytest.mark.parametrize("arguments", [["gc"], ["lineage", "x"]])
def test_a_store_that_is_not_there_is_no_empty_one(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([arguments[0], "--store", str(tmp_path / "none"), *arguments[1:]]) == 65
    assert capsys.readouterr().err == f"error: file://{tmp_path}/none: there is no store; check --store\n"


def test_gc_of_a_store_that_is_there(
    make_run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run()
    assert command.main(["gc", "--store", str(tmp_path / "store")]) == 0
    assert capsys.readouterr().out == "0 unlisted attempts, 0 younger than 24 hours left alone\n"
