"""Result sets and outputs, written and read again."""

from dataclasses import replace
from pathlib import Path

import pytest

from contract.errors import InputError
from evals.records import Output, Record, read_outputs, read_records, write_records

ROW = Record("gsm8k", "maths", "a/0", "a/0", 0, "问：\n5?", "六 \u2028 6", "5", "6", 0.0)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    rows = [ROW, replace(ROW, sample=1, extracted=None, score=0.25, reward=-1.5)]
    write_records(tmp_path / name, rows)
    assert read_records(tmp_path / name) == rows
    write_records(tmp_path / name, [])
    assert read_records(tmp_path / name) == []


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_half_characters_of_a_hostile_output_do_not_stop_the_writing(tmp_path: Path, name: str) -> None:
    write_records(tmp_path / name, [replace(ROW, output="x\ud800")])
    assert read_records(tmp_path / name)[0].output == "x?"


def test_outputs_are_texts_or_likelihoods_one_or_several_an_id(tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_text(
        '{"id": 1, "text": "a"}\n\n{"id": "1", "text": "b"}\n{"id": "2", "texts": ["c", "d"], "rewards": [0.5, -1]}\n{"id": "3", "logprobs": [-1, -2.5]}\n'
    )
    assert read_outputs(path) == {
        "1": [Output("a"), Output("b")],
        "2": [Output("c", reward=0.5), Output("d", reward=-1.0)],
        "3": [Output(logprobs=(-1.0, -2.5))],
    }


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"id": 1}',
        '{"text": "x"}',
        '{"id": 1, "text": 5}',
        '{"id": 1, "texts": "ab"}',
        '{"id": 1, "logprobs": ["x"]}',
        '{"id": 1, "texts": ["a"], "rewards": []}',
    ],
)
def test_a_line_that_is_no_output_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "outputs.jsonl").write_text(f'{{"id": 1, "text": "a"}}\n{line}\n')
    with pytest.raises(InputError, match=r"outputs\.jsonl:2: is no output"):
        read_outputs(tmp_path / "outputs.jsonl")


@pytest.mark.parametrize(
    ("content", "said"),
    [('{"task": "x"}', "1: is no row of a result set"), ("{", "1: is not JSON"), ("[1]", "1: is no row")],
)
def test_what_is_no_result_set_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(InputError, match=said):
        read_records(tmp_path / "rows.jsonl")


def test_a_score_above_one_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    write_records(tmp_path / "rows.jsonl", [replace(ROW, score=1.5)])
    with pytest.raises(InputError, match=r"score 1\.5 is not from 0 to 1"):
        read_records(tmp_path / "rows.jsonl")
    for name in ("gone.jsonl", "gone.parquet"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            read_records(tmp_path / name)
    with pytest.raises(InputError, match="cannot be written"):
        write_records(tmp_path / "no" / "rows.jsonl", [ROW])
