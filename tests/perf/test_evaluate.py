"""The benches of evaluation: they are found, and a bar that is not reached is told."""

from pathlib import Path

import pytest

from perf.bars import Bars
from perf.evaluate import extraction, judging, passk
from perf.evaluate.__main__ import names


def test_every_bench_is_found() -> None:
    assert names() == ["beside_harness", "escapes", "extraction", "judging", "passk"]


def test_pass_at_k_is_exact_and_a_wrong_one_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = Bars()
    passk.run(bars, Path())
    assert bars.code == 0
    monkeypatch.setattr(passk, "pass_at_k", lambda n, c, k: 1 - (1 - c / n) ** k)  # drawn with replacement: biased
    passk.run(bars, Path())
    assert bars.short == ["pass_at_k_off"]
    assert "BAR pass_at_k_off 0 0 ok" in capsys.readouterr().out


def test_cases_that_are_missed_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    bars = Bars()
    monkeypatch.setattr(extraction, "number", lambda text: None)
    extraction.run(bars, Path())
    said = capsys.readouterr().out
    assert bars.short == ["extraction_hard_cases"]
    assert 'missed: {"kind": "number", "text": "#### 72", "want": "72"} was read as None' in said


def test_the_judges_replies_are_found_behind_their_marks() -> None:
    seen: list[tuple[str, str]] = []

    def ask(turns: object) -> str:
        seen.append(judging.replies(turns))  # type: ignore[arg-type]
        return "[[C]]"

    (pair,) = judging.pairs(0)[:1]
    judging.judge_pairs([pair], ask, workers=1)
    assert seen == [(pair.ours, pair.theirs), (pair.theirs, pair.ours)]
