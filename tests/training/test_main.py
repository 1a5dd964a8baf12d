"""Who speaks when a rank fails, and what is said at the end or of a machine that lacks the plane's libraries."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import pytest

from contract.errors import GristmillError
from contract.plan import Run
from contract.results import RESULTS, Evaluate, Export
from training import __main__ as main


def test_every_rank_says_why_it_failed(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise GristmillError("the disk of machine b is damaged")

    monkeypatch.setattr(main, "_run", fail)
    monkeypatch.setattr(main.StopFlag, "install", lambda self: self)
    monkeypatch.setitem(os.environ, "RANK", "3")
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "1")
    assert main.main(["pretrain", "--recipe", make_run().uri]) == 1
    assert capsys.readouterr().err == "error: the disk of machine b is damaged (rank 3)\n"


def test_what_got_worse_is_a_warning_before_the_last_line(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()

    class Both(Evaluate, Export):
        """The figures of an evaluation, committed by a stage that needs no GPU."""

    monkeypatch.setitem(RESULTS, "export", Both)
    figures = {"perplexity_pretrain": 455.0, "perplexity_sft": 514.0, "worse_sft": True, "worse_ppo": False}
    figures |= {"stage": "sft", "parameters": 4000, "dtype": "fp32"}
    measuring = SimpleNamespace(run=lambda job: job.attempt.commit([], result=Both.model_construct(**figures)))
    monkeypatch.setattr(main.importlib, "import_module", lambda _: measuring)
    main._run(run, run.task("export"), main.StopFlag())
    assert capsys.readouterr().out.splitlines() == [
        "warning: sft is worse than pretrain beyond noise: held-out perplexity 455 -> 514",
        f"committed export all: the sft model, 4,000 parameters in fp32; {run.store.full(run.task('export').prefix)}/manifest.json",
    ]


def test_a_missing_library_is_one_line_that_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "open_run", MagicMock())
    monkeypatch.setattr(main, "find", Mock(return_value=None))
    monkeypatch.setattr(main, "_run", Mock(side_effect=ModuleNotFoundError("No module named 'torch'", name="torch")))
    monkeypatch.setattr(main.StopFlag, "install", lambda flag: flag)
    assert main.main(["pretrain", "--recipe", "x"]) == 78
    said = 'error: the library torch is not installed; in Gristmill\'s checkout: pip install ".[train]"\n'
    assert capsys.readouterr().err == said
