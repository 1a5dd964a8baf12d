"""The benches of evaluation: they are found, and a bar that is not reached is told."""

from pathlib import Path

import pytest

from perf.bars import Bars
from perf.evaluate import beside_harness, extraction, judging, passk, regression
from perf.evaluate.__main__ import names
from perf.evaluate.golden import cases


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


def test_items_that_differ_from_the_harness_are_counted_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Four items: alike, of another prompt, of another verdict, and one whose text ends elsewhere and says the same."""
    scored, written = (next(one for one in cases() if one.name == name) for name in ("arc", "gsm8k"))
    acc, strict = ({"none": {"acc": 1.0}}, {"strict-match": {"exact_match": 0.0}})
    ours = {
        "arc": [{"prompts": [["a", " b"]], "stop": [], "answers": [-1.0], "score": score} for score in (1.0, 1.0, 0.0)],
        "gsm8k": [{"prompts": [["q"]], "stop": ["\nQ:"], "answers": [" 7"], "score": 0.0}],
    }
    theirs = {
        "arc": [
            {"prompts": [[asked, " b"]], "until": [], "answers": [[-1.25, True]], "metrics": acc} for asked in "aba"
        ],
        "gsm8k": [{"prompts": [["q"]], "until": ["Q"], "answers": [" 7\n"], "metrics": strict}],
    }
    assert beside_harness.compared([scored, written], ours, theirs) == (2, 4)
    said = capsys.readouterr().out
    assert "prompt of arc/1" in said
    assert "verdict of arc/2" in said
    assert "log-likelihoods are 0.25 off at most; 1 of 1 texts are the same" in said


def test_speed_is_over_both_kinds_at_the_batch_size_that_is_best_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = {"loglikelihood": {"1": 9.0, "8": 4.0}, "generate_until": {"1": 6.0, "8": 7.0}}
    assert beside_harness.faster(cases(), {"loglikelihood": 1.0, "generate_until": 4.0}, theirs) == 2
    said = capsys.readouterr().out
    assert "loglikelihood: ours 1.00 s, harness 4.00 s at batch size 8" in said
    assert "generate_until: ours 4.00 s, harness 6.00 s at batch size 1" in said
