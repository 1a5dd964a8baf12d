"""Scratch folders of tasks that share a machine; who speaks when a rank fails."""

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from contract.errors import GristmillError
from contract.plan import Run
from training import __main__ as main
from training.job import Job


def test_two_attempts_and_two_stores_keep_their_files_apart(make_job: Callable[..., Job]) -> None:
    one, again, elsewhere = make_job("pretrain"), make_job("pretrain"), make_job("pretrain", name="two")
    assert one.task.fingerprint == again.task.fingerprint == elsewhere.task.fingerprint
    with one.scratch():
        (one.fresh("checkpoint-0") / "weights").write_text("mine")
        for other in (again, elsewhere):
            with other.scratch():
                other.fresh("checkpoint-0")
            assert not other.workdir.exists()
        assert (one.workdir / "checkpoint-0" / "weights").read_text() == "mine"


def test_a_failed_attempt_leaves_nothing_and_a_killed_one_is_cleared_by_the_next(make_job: Callable[..., Job]) -> None:
    failed, killed, after = (make_job("pretrain") for _ in range(3))
    (failed.workdir / "result").write_text("a file in a folder's place")
    with pytest.raises(FileExistsError), failed.scratch():
        (failed.workdir / "result").mkdir()
    assert not failed.workdir.exists()
    (killed.fresh("checkpoint-0") / "weights").write_text("nobody's")
    killed.workdir.with_name(killed.workdir.name + ".held").touch()  # whose lock went with its process
    with after.scratch():
        assert not killed.workdir.exists()
    assert not list(after.workdir.parent.iterdir())


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
    figures = {"perplexity_pretrain": 455.0, "perplexity_sft": 514.0, "worse_sft": True, "worse_ppo": False}
    figures |= {"stage": "sft", "parameters": 4000, "dtype": "fp32"}
    measuring = SimpleNamespace(run=lambda job: job.attempt.commit([], metrics=figures))
    monkeypatch.setattr(main.importlib, "import_module", lambda _: measuring)
    main._run(run, run.task("export"), main.StopFlag())
    assert capsys.readouterr().out.splitlines() == [
        "warning: sft is worse than pretrain beyond noise: held-out perplexity 455 -> 514",
        f"committed export all: the sft model, 4,000 parameters in fp32; {run.store.full(run.task('export').prefix)}/manifest.json",
    ]
