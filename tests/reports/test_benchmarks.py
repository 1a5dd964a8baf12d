"""What the models of a run can do: read from what was committed, shown with pictures, and what is missing is said."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.errors import DamagedError, NotReadyError
from contract.kinds import Kind
from contract.manifest import Attempt, File
from contract.plan import Run
from contract.results import Abilities
from reports import benchmarks
from tests.reports.answered import answer, complete, tasks


@pytest.fixture
def run(resolve_run: Callable[..., Run], tmp_path: Path) -> Run:
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    (crawl / "a.warc.gz").write_bytes(b"WARC")
    return resolve_run(crawl, tasks("gsm8k", "mbpp", folder=tmp_path), "one")


def test_the_report_has_its_pictures_beside_it(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    complete(run)
    assert benchmarks.main(["--recipe", run.uri]) == 0
    page = capsys.readouterr().out
    assert page.startswith(f"# What the models of {run.recipe.name} can do")
    assert "![" not in page
    assert "| aligned | sft | code | 100.0 | 70.0 | -30.0 (" in page
    assert benchmarks.main(["--recipe", run.uri, "--output", str(tmp_path / "out" / "a.md")]) == 0
    assert "![scores with their intervals](a-abilities.svg)" in (tmp_path / "out" / "a.md").read_text()
    drawn = ElementTree.parse(tmp_path / "out" / "a-abilities.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    said = [one.text for one in drawn.iter(f"{space}text")]
    assert [one for one in said if one in ("code", "maths")] == ["code", "maths"]
    assert said.count("aligned") == 2
    assert "70.0%" in said
    assert len([*drawn.iter(f"{space}circle")]) == 6


def test_what_was_asked_is_known_before_the_report(run: Run) -> None:
    answer(run, "aligned", "mbpp", [], left_out="the gate is closed")
    found = {(one.model, one.benchmark): one.problem for one in benchmarks.parts(run)}
    assert [*found] == [(model, name) for model in ("pretrain", "sft", "aligned") for name in ("gsm8k", "mbpp")]
    assert found["aligned", "mbpp"] == "the gate is closed"
    assert found["sft", "gsm8k"] == "not done yet"
    run.store.write_bytes(f"{run.task('benchmark', 'sft.gsm8k').prefix}/manifest.json", b"{")
    damaged = next(one for one in benchmarks.parts(run) if (one.model, one.benchmark) == ("sft", "gsm8k"))
    assert "is not a manifest" in damaged.problem
    with pytest.raises(NotReadyError, match="abilities all is not done"):
        benchmarks.report(run)


def test_a_run_without_answers_has_no_report(run: Run) -> None:
    Attempt(run, run.task("abilities")).commit([], result=Abilities())
    with pytest.raises(NotReadyError, match=r"name some in benchmark\.tasks"):
        benchmarks.report(run)


@pytest.mark.parametrize(("content", "claimed", "why"), [(b"[]", 2, "is no report"), (b"[]", 1 << 30, "no report has")])
def test_a_damaged_report_is_told(
    run: Run, content: bytes, claimed: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = Attempt(run, run.task("abilities"))
    run.store.write_bytes(attempt.path("report.json"), content)
    file = File(path=attempt.path("report.json"), kind=Kind.REPORT, bytes=len(content))
    attempt.commit([file], result=Abilities())
    if claimed > benchmarks.MOST_BYTES:
        monkeypatch.setattr(benchmarks, "MOST_BYTES", 1)
    with pytest.raises(DamagedError, match=why):
        benchmarks.report(run)
