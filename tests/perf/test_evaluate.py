"""The benches of evaluation: they are found, and a bar that is not reached is told."""

from pathlib import Path

import pytest

from perf.bars import Bars
from perf.evaluate import extraction, judging, passk, regression
from perf.evaluate.__main__ import names


def test_every_bench_is_found() -> None:
    assert names() == ["beside_harness", "escapes", "extraction", "judging", "passk", "regression"]


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


def test_one_ability_is_spoilt_and_the_others_are_asked_as_they_are_learned(tmp_path: Path) -> None:
    right = regression.answers(0)
    maths = regression.SETS[0]
    wrong = regression.spoilt(right, maths)
    changed = [at for at, (one, other) in enumerate(zip(right["gsm8k"], wrong["gsm8k"], strict=True)) if one != other]
    assert changed == [*range(0, regression.FACTS, 5)]
    assert {name: wrong[name] for name in ("piqa", "mmlu", "ceval")} == {
        name: right[name] for name in ("piqa", "mmlu", "ceval")
    }
    learned = regression.texts(regression.write(tmp_path / "items", right))
    assert len(learned) == 4 * regression.FACTS
    assert learned[0] == (
        "Question: How many lamps stand in house 0?\nAnswer:", f" #### {right['gsm8k'][0] + 1}",
    )  # fmt: skip
    assert learned[2 * regression.FACTS] == ("The colour of boat 0 is", f" {regression.COLOURS[right['mmlu'][0]]}")
    assert {one.ability for one in regression.SETS} == {"maths", "reasoning", "knowledge en", "knowledge zh"}
