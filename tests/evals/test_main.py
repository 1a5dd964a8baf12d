"""`python -m evals`, from files to what is printed."""

import json
from pathlib import Path

import pytest

from evals.__main__ import EXIT_WORSE, main
from evals.records import read_records
from tests.conftest import DATA

real = pytest.mark.skipif(not DATA.is_dir(), reason="the test data is not here")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    items = [{"question": f"How many? {at}", "answer": f"#### {at}"} for at in range(40)]
    (tmp_path / "gsm.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))
    for name, wrong in (("good", 4), ("bad", 20)):
        outputs = [{"id": f"gsm/{at}", "text": "no idea" if at < wrong else f"The answer is {at}."} for at in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in outputs))
    return tmp_path


def graded(files: Path, name: str, *more: str) -> int:
    given = ["grade", "gsm8k", "--items", files / "gsm.jsonl", "--outputs", files / f"{name}.jsonl", *more]
    return main(list(map(str, given)))


def test_outputs_are_graded(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graded(files, "good", "--out", str(files / "good.parquet")) == 0
    said = capsys.readouterr()
    assert said.out == (
        "gsm8k (maths): 0.9000 [0.7695, 0.9604], n = 40 of 40 sources\n  extraction rate 90.0% of 40 outputs\n"
    )
    assert said.err == ""
    rows = read_records(files / "good.parquet")
    assert (len(rows), rows[7].prompt, rows[7].score, rows[0].extracted) == (
        40,
        "Question: How many? 7\nAnswer:",
        1,
        None,
    )


def test_the_number_of_examples_is_told_only_where_they_are_given(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert graded(files, "good", "--shots", str(files / "gsm.jsonl"), "--k", "3") == 0
    assert capsys.readouterr().out.endswith("of 40 outputs, 3-shot\n")
    assert graded(files, "good", "--json") == 0
    assert json.loads(capsys.readouterr().out)["shots"] is None


def test_a_low_extraction_rate_is_a_warning(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert graded(files, "bad", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["score"]["mean"] == 0.5
    assert said.err.startswith("warning: gsm8k: an answer was found in only 50.0% of the outputs")


def test_several_outputs_are_told_by_pass_at_k_votes_and_rewards(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["#### 0", "#### 1", "#### 0"]
    (files / "gsm.jsonl").write_text('{"question": "q", "answer": "#### 0"}\n{"question": "r", "answer": "#### 1"}\n')
    rows = [{"id": f"gsm/{at}", "texts": texts, "rewards": [0, at, 0]} for at in range(2)]
    (files / "many.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert graded(files, "many") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" [")[0] for line in lines] == [
        "gsm8k (maths): 0.5000",
        "  pass@1: 0.5000",
        "  majority of 3 outputs: 0.5000",
        "  best of 3 outputs by reward: 1.0000",
        "  extraction rate 100.0% of 6 outputs",
    ]


def test_two_result_sets_are_compared(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, suffix in (("good", "parquet"), ("bad", "jsonl")):
        graded(files, name, "--out", str(files / f"{name}-rows.{suffix}"))
    capsys.readouterr()
    both = [str(files / "good-rows.parquet"), str(files / "bad-rows.jsonl")]
    assert main(["compare", *both]) == EXIT_WORSE
    header, ability, task = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["ability,", "task", "first", "second"]
    assert ability.startswith("maths")
    assert ability.endswith("3.1e-05 (McNemar, exact) WORSE")
    assert task.split()[0] == "gsm8k"
    assert main(["compare", both[1], both[0]]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("better")
    assert main(["compare", "--json", *both]) == EXIT_WORSE
    assert [one["worse"] for one in json.loads(capsys.readouterr().out)] == [True, True]


@pytest.mark.parametrize("said", ["95", "1", "0.49", "nan", "-0.95", "high"])
def test_a_confidence_at_which_nothing_is_ever_worse_is_refused(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", "a.jsonl", "b.jsonl", "--confidence", said])
    assert ended.value.code == 2
    assert f"argument --confidence: {said}: give a share from 0.5 to below 1, such as 0.95" in capsys.readouterr().err


def test_mistakes_are_one_line(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grade", "gsm9k", "--items", "x", "--outputs", "y"]) == 65
    assert capsys.readouterr().err.startswith("error: there is no task 'gsm9k'; there are arc,")
    assert graded(files, "good", "--style", "cloze") == 65
    assert capsys.readouterr().err == "error: task gsm8k has no style 'cloze'; it has steps\n"
    assert graded(files, "good", "--limit", "3") == 65
    assert "37 outputs have ids that no item has" in capsys.readouterr().err


def test_the_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 27
    assert lines[0].split() == ["arc", "knowledge", "en", "cloze,", "letter"]


@real
def test_prompts_of_the_published_exams_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exam = DATA / "evals" / "ceval"
    given = [
        "prompts",
        "ceval",
        "--items",
        exam / "ceval_dev_val_only.zip",
        "--split",
        "val",
        "--limit",
        "2",
        "--k",
        "1",
    ]
    given += ["--shots", exam / "ceval_dev_val_only.zip", "--shots-split", "dev", "--names", exam / "mapping.json"]
    assert main(list(map(str, [*given, "--out", tmp_path / "text.jsonl"]))) == 0
    assert main(list(map(str, [*given, "--dialogue", "--out", tmp_path / "turns.jsonl"]))) == 0
    text = [json.loads(line) for line in (tmp_path / "text.jsonl").read_text().splitlines()]
    turns = [json.loads(line) for line in (tmp_path / "turns.jsonl").read_text().splitlines()]
    assert [one["id"] for one in text] == ["accountant/0", "high_school_politics/0"], "of 52 subjects"
    assert text[0]["prompt"].startswith("以下是中国关于注册会计师的单项选择题，请选出其中的正确答案。\n\n")
    assert text[0]["pairs"][3][1] == " D"
    assert [one["role"] for one in turns[1]["turns"]] == ["user", "assistant", "user"]
    assert turns[1]["turns"][1]["text"] in "ABCD"
