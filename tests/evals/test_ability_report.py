"""The report on abilities: what it says, that it is read back, and that names cannot become Markdown."""

import json
from dataclasses import replace

import pytest

from contract.contamination import Searched
from contract.errors import DamagedError
from evals.ability_report import Report, cell, dumped, markdown, parsed, put_together
from evals.records import Record


def rows(scores: list[float], task: str = "gsm8k", ability: str = "maths", found: bool = True) -> list[Record]:
    return [
        Record(task, ability, str(at), f"s{at}", 0, "", "", "", "x" if found or at else None, float(score))
        for at, score in enumerate(scores)
    ]


def made(**more: object) -> Report:
    good, worse = [1.0] * 100, [0.0] * 20 + [1.0] * 80
    results = {
        "sft": {"gsm8k": rows(good), "mbpp": rows(good, "mbpp", "code")},
        "aligned": {"gsm8k": rows(good), "mbpp": rows(worse, "mbpp", "code")},
        "theirs": {"gsm8k": rows([0.0, 1.0] * 50, found=False), "mbpp": rows(worse, "mbpp", "code")},
    }
    searched = {"mbpp": {str(at): Searched("leaked" if at < 40 else "clean", at < 3) for at in range(100)}}
    return put_together(results, ["sft", "aligned"], searched, **{"max_drop": 0.1, **more})  # type: ignore[arg-type]


def test_the_report_says_what_was_lost_and_what_was_leaked() -> None:
    lines = markdown(made(judged=["Win rate 60.0 %."]), "the run").split("\n")
    assert "| ability | sft | aligned | theirs | n | sources |" in lines
    assert "| **code** | 100.0 (96.3 to 100.0) | 80.0 (71.1 to 86.7) | 80.0 (71.1 to 86.7) | 100 | 100 |" in lines
    drop = next(line for line in lines if line.startswith("| aligned | sft | code |"))
    assert drop.startswith("| aligned | sft | code | 100.0 | 80.0 | -20.0 (-28.0 to -13.0) | 100 | ")
    assert drop.endswith("| WORSE |")
    assert sum("WORSE" in line for line in lines) == 1
    assert any(line.startswith("Alignment tax, sft to aligned: code 80.0 % after 100.0 %") for line in lines)
    assert any(line.startswith("The aligned model is kept back: code 80.0 % after 100.0 %") for line in lines)
    assert "Win rate 60.0 %." in lines
    assert "| **mbpp** | 60 items | 0 items | 40 items | 0 items | 3 | | |" in lines
    leaked = next(line for line in lines if line.startswith("| aligned | 100.0 ("))
    assert leaked.split(" | ")[3].startswith("50.0 (")
    assert " | | -50.0 (" in leaked
    assert lines[-2].startswith("Not searched for: gsm8k.")


def test_what_is_written_is_read() -> None:
    report = made(at_least={"maths": 0.99})
    assert parsed(dumped(report).encode(), "there") == report
    assert json.loads(dumped(report))["rows"][0]["scores"]["aligned"]["mean"] == 0.8


@pytest.mark.parametrize("content", [b"", b"{}", b"[1", b'{"models": 3}'])
def test_another_file_is_damaged(content: bytes) -> None:
    with pytest.raises(DamagedError, match="there: is no report on abilities"):
        parsed(content, "there")


def test_bounds_are_told_only_where_there_are_any() -> None:
    assert "kept back" not in markdown(made(max_drop=None), "x")
    assert "within the bounds" in markdown(made(max_drop=0.5), "x")
    floor = made(max_drop=None, at_least={"code": 0.9})
    assert floor.closing == ("code: mbpp 80.0 % is under 90 %",)
    assert "kept back: code: mbpp" in markdown(floor, "x")


def test_what_a_bound_cannot_hold_is_named() -> None:
    four = {model: {"gsm8k": [replace(one, source=str(at // 25)) for at, one in enumerate(rows([score] * 100))]}
            for model, score in (("sft", 1.0), ("aligned", 0.0))}  # fmt: skip
    report = put_together(four, ["sft", "aligned"], {}, max_drop=0.1)
    said = "Too few sources to tell a drop from noise: maths (100 items of 4 sources)."
    assert f"The aligned model is within the bounds of the recipe. {said}" in markdown(report, "x")
    assert parsed(dumped(report).encode(), "there") == report
    free = put_together(four, ["sft", "aligned"], {}, at_least={"maths": 0.0})
    assert "Too few sources to tell a drop" not in markdown(free, "x")
    assert "cannot be told |" in markdown(free, "x")


def test_the_number_of_examples_stands_beside_a_benchmark() -> None:
    report = put_together({"sft": {"gsm8k": rows([1.0])}}, ["sft"], {}, shots={"gsm8k": 5})
    assert "| gsm8k, 5-shot | " in markdown(report, "x")
    assert parsed(dumped(report).encode(), "there").shots == {"gsm8k": 5}


def test_scores_of_several_outputs_stand_below_the_benchmark() -> None:
    def sampled(rewards: bool) -> list[Record]:
        """Three outputs to each of two items: a wrong one that the reward model likes most, and two right ones."""
        return [
            replace(one, id=str(item), sample=at, extracted=str(score), reward=float(-at) if rewards else None)
            for item in range(2)
            for at, score in enumerate((0.0, 1.0, 1.0))
            for one in rows([score])
        ]

    results = {"sft": {"gsm8k": sampled(rewards=False)}, "aligned": {"gsm8k": sampled(rewards=True)}}
    report = put_together(results, ["sft", "aligned"], {})
    means = {what: {model: one.mean for model, one in some.items()} for what, some in report.several["gsm8k"].items()}
    assert means == {
        "pass@1": {"sft": pytest.approx(2 / 3), "aligned": pytest.approx(2 / 3)},
        "majority": {"sft": 1.0, "aligned": 1.0},
        "best by reward": {"aligned": 0.0},
    }
    lines = markdown(report, "x").split("\n")
    at = next(at for at, line in enumerate(lines) if line.startswith("| gsm8k |"))
    assert lines[at + 1].startswith("| gsm8k, pass@1 | 66.7 (")
    assert lines[at + 3].startswith("| gsm8k, best by reward | - | 0.0 (")
    assert parsed(dumped(report).encode(), "there") == report
    assert put_together({"sft": {"gsm8k": rows([1.0])}}, ["sft"], {}).several == {}


def test_a_low_share_of_answers_found_is_told() -> None:
    results = {"sft": {"gsm8k": rows([0.0] * 5, found=False)}}
    assert "- gsm8k, sft: an answer was found in only 80.0 % of the outputs." in markdown(
        put_together(results, ["sft"], {}), "x"
    )


def test_names_are_no_markdown() -> None:
    assert cell("a|b\n<i>`c`[d](e)*") == "a\\|b \\<i\\>\\`c\\`\\[d\\](e)\\*"
    results = {"a|b": {"x\n# y": rows([1.0])}}
    lines = markdown(put_together(results, ["a|b"], {}), "\x1b[31m").split("\n")
    assert "\x1b" not in lines[0]
    assert not any(line.startswith("# y") for line in lines)
