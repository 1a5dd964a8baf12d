"""The command that runs one stage: what it says became of each task, and that it plans a run once."""

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from contract import plan
from contract.errors import StoreError
from contract.manifest import Attempt, need
from pipelines import decontaminate
from pipelines.__main__ import main
from pipelines.spark.job import Job


@pytest.fixture
def run(make_document: Any, make_corpus: Any, commit_documents: Any) -> Any:
    rows = [make_document(f"text {number}") for number in range(3)]
    made = make_corpus([[rows[:2]], [rows[2:]]])
    commit_documents(made, "dedup_substring", "all", [rows])
    return made


def test_committed_then_done(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert [main(["decontaminate", "--recipe", run.uri]) for _ in range(2)] == [0, 0]
    path = run.store.full(need(run.store, run.task("decontaminate")).path)
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("progress")]
    assert said == [
        f"committed decontaminate all: 3 of 3 documents kept; {path}",
        f"done decontaminate all: 3 of 3 documents kept; {path} exists, skipped",
    ]


def test_another_attempt_was_faster(
    run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = decontaminate.run
    rival = Attempt(run, run.task("decontaminate"))

    def slow(job: Job) -> None:
        rival.commit([])
        real(job)

    monkeypatch.setattr(decontaminate, "run", slow)
    assert main(["decontaminate", "--recipe", run.uri]) == 0
    out = capsys.readouterr().out
    assert "committed" not in out
    assert f"done decontaminate all: {rival.id} was faster" in out


def test_a_missing_library_is_one_line_that_names_its_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = ModuleNotFoundError("No module named 'brotli'", name="brotli")
    monkeypatch.setattr("pipelines.__main__.open_run", Mock())
    monkeypatch.setattr("pipelines.__main__.importlib.import_module", Mock(side_effect=missing))
    assert main(["check", "--recipe", "x"]) == 78
    said = 'error: the library brotli is not installed; in Gristmill\'s checkout: pip install ".[spark]"\n'
    assert capsys.readouterr().err == said


def test_a_run_is_planned_once(run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    real = plan.plan
    monkeypatch.setattr(plan, "plan", lambda *given: calls.append(given) or real(*given))
    assert main(["filter", "--recipe", run.uri]) == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()] == [
        ["done", "filter", f"{segment.partition}:"] for segment in run.segments
    ]
    assert len(calls) == 1


def test_only_the_partition_that_is_named_is_run(
    run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = run.segments[1].partition
    assert main(["filter", "--recipe", run.uri, "--partition", partition]) == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()] == [["done", "filter", f"{partition}:"]]
    assert main(["filter", "--recipe", run.uri, "--partition", "absent"]) != 0
    said = capsys.readouterr()
    assert (said.out, said.err.startswith("error: "), said.err.count("\n")) == ("", True, 1)


def test_inputs_are_asked_for_before_anything_starts(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mix", "--recipe", run.uri]) == 65
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")


def test_what_ends_it_ends_its_workers_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up: dict[int, Any] = {}
    monkeypatch.setattr("signal.signal", lambda number, handler: set_up.update({number: handler}))
    main(["filter", "--recipe", run.uri])
    with pytest.raises(SystemExit) as ended:
        set_up[signal.SIGTERM](signal.SIGTERM, None)
    assert ended.value.code == 143


def test_a_run_of_no_segments_is_refused(run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("pipelines.__main__.open_run", lambda _: dataclasses.replace(run, segments=()))
    assert main(["filter", "--recipe", run.uri]) == 78
    assert capsys.readouterr().err == f"error: {run.uri} has no segments\n"


@pytest.mark.parametrize("stage", ["sft", "no_stage"])
def test_only_stages_of_this_plane_are_run(stage: str, run: Any) -> None:
    with pytest.raises(SystemExit):
        main([stage, "--recipe", run.uri])


def test_a_stage_that_fails_leaves_no_file(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {entry.path for entry in run.store.files()}

    def failing(job: Job) -> Any:
        run.store.write_bytes(f"{job.prefix}/documents-0.parquet", b"half")
        raise StoreError("the disk is full")

    monkeypatch.setattr(decontaminate, "run", failing)
    assert main(["decontaminate", "--recipe", run.uri]) == StoreError.exit_code
    assert {entry.path for entry in run.store.files()} == before


def test_the_process_ends_with_the_code_of_its_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "filter", "--recipe", str(tmp_path / "none.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
