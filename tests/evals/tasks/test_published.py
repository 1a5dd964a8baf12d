"""Published files are read as they are, and what is none of them is refused with its place."""

import io
import json
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError
from contract.evalset import read_members
from evals.tasks.published import evenly, read_items, read_names, with_names
from evals.tasks.table import TASKS
from tests.conftest import DATA

EVALS = DATA / "evals"
GSM = {"question": "How many?", "answer": "2+2=4\n#### 4"}
real = pytest.mark.skipif(not EVALS.is_dir(), reason="the test data is not here")


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_same_rows_in_every_format_are_the_same_items(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{**GSM, "question": f"question {at}"} for at in range(3)]
    lines = write(tmp_path / "a.jsonl", rows)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.json").write_text(json.dumps({"examples": rows}))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(lines, "data/a.jsonl")
    (tmp_path / "a.zip").write_bytes(packed.getvalue())
    read = [read_items(TASKS["gsm8k"], tmp_path / name) for name in ("a.jsonl", "b", "a.parquet", "a.zip")]
    assert [one.question for one in read[0]] == ["question 0", "question 1", "question 2"]
    assert [one.id for one in read[0]] == ["a/0", "a/1", "a/2"]
    assert [[one.where for one in items] for items in read] == [
        ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"],
        ["a.json#0", "a.json#1", "a.json#2"],
        ["a.parquet#0", "a.parquet#1", "a.parquet#2"],
        ["a.zip/data/a.jsonl:1", "a.zip/data/a.jsonl:2", "a.zip/data/a.jsonl:3"],
    ]
    alike = [[replace(one, where="") for one in items] for items in read]
    assert alike[0] == alike[1] == alike[2] == alike[3]
    assert read_items(TASKS["gsm8k"], lines, most=2) == read[0][:2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", json.dumps(GSM) + "\n\n" + json.dumps(GSM)),
        ("a.json", json.dumps([GSM, GSM])),
        ("a.json", json.dumps({"notes": ["x", "y"], "canary": "z", "examples": [GSM, GSM]})),
        ("a.json", json.dumps(GSM)),
        ("a.csv", f'question,answer\n"{GSM["question"]}\nand more",{GSM["answer"]!r}\n\nq,{GSM["answer"]!r}\n'),
    ],
    ids=["lines", "list", "a list behind another", "one item", "table"],
)
def test_an_item_stands_where_decontamination_finds_it(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    ours = read_items(TASKS["gsm8k"], tmp_path / name)
    ((_, theirs),) = read_members(name, content.encode())
    texts = {one.where: one.fields for one in theirs}
    assert len({one.where for one in ours}) == len(ours)
    for one in ours:
        assert one.question in texts[one.where]


def test_lines_may_be_named_json_and_tables_of_tabs_have_no_quotation_marks(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.json", [GSM, {**GSM, "question": "second"}])
    assert [one.question for one in read_items(TASKS["gsm8k"], lines)] == ["How many?", "second"]
    (tmp_path / "mgsm_de.tsv").write_text('"Wie viele" Äpfel?\t1,250\n')
    (item,) = read_items(TASKS["mgsm"], tmp_path / "mgsm_de.tsv")
    assert (item.question, item.answers, item.subject) == ('"Wie viele" Äpfel?', ("1250",), "mgsm_de")
    (tmp_path / "arts.csv").write_text('"one, two",1,2,3,4,B\n')
    assert read_items(TASKS["mmlu"], tmp_path / "arts.csv")[0].question == "one, two"


def test_a_split_is_a_word_in_a_files_name_below_the_archive(tmp_path: Path) -> None:
    for split in ("dev", "val"):
        (tmp_path / "set_val" / split).mkdir(parents=True)
        (tmp_path / "set_val" / split / f"arts_{split}.csv").write_text(f"question {split},1,2,3,4,B\n")
    (item,) = read_items(TASKS["mmlu"], tmp_path / "set_val", "dev")
    assert (item.id, item.question, item.subject, item.answers) == ("arts/0", "question dev", "arts", ("B",))
    with pytest.raises(InputError, match="the id 'arts/0' occurs twice"):
        read_items(TASKS["mmlu"], tmp_path / "set_val")
    with pytest.raises(InputError, match="no items of split 'test'"):
        read_items(TASKS["mmlu"], tmp_path / "set_val", "test")


def test_a_limit_takes_evenly_of_all_subjects(tmp_path: Path) -> None:
    for subject, count in (("arts", 9), ("biology", 9), ("chess", 2), ("drama", 9)):
        (tmp_path / f"{subject}_val.csv").write_text("".join(f"{subject} {at},1,2,3,4,B\n" for at in range(count)))
    taken = [one.id for one in read_items(TASKS["mmlu"], tmp_path, "val", 14)]
    of_each = {
        subject: sum(one.startswith(subject) for one in taken) for subject in ("arts", "biology", "chess", "drama")
    }
    assert of_each == {"arts": 4, "biology": 4, "chess": 2, "drama": 4}
    assert taken[:4] == ["arts/0", "arts/1", "arts/2", "arts/3"], "in the order of the files"
    assert len(read_items(TASKS["mmlu"], tmp_path, "val", 99)) == 29
    one_file = write(tmp_path / "all.jsonl", [
        {"question": f"{at}", "choices": ["a", "b"], "answer": 0, "subject": "ab"[at > 5]} for at in range(12)
    ])  # fmt: skip
    assert [item.id for item in read_items(TASKS["mmlu"], one_file, most=4)] == ["a/0", "a/1", "b/6", "b/7"]


@given(st.lists(st.sampled_from("abcdef"), max_size=60), st.integers(0, 70))
def test_no_subject_has_two_items_more_than_another_that_has_some_left(subjects: list[str], most: int) -> None:
    taken = evenly(subjects, most)
    assert taken == sorted(set(taken))
    assert len(taken) == min(most, len(subjects))
    counts, all_of = Counter(subjects[at] for at in taken), Counter(subjects)
    fewest = min((counts[one] for one in all_of if counts[one] < all_of[one]), default=60)
    assert all(count <= fewest + 1 for count in counts.values())


def test_few_items_of_many_subjects_are_spread_over_them() -> None:
    assert evenly([*"abcdefgh"], 4) == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"question": 1}\n', "a.jsonl:1: is no item of gsm8k: it lacks 'answer'"),
        ("a.jsonl", '{"question": "x", "answer": "5"}\n', "a.jsonl:1: is no item of gsm8k: its answer has no ####"),
        ("a.jsonl", "\n{\n", "a.jsonl:2: is not JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: is no JSON object"),
        ("a.json", "[1]", "a.json#0: is no JSON object"),
        ("a.json", "{", "a.json:1: is not JSON"),
        ("a.parquet", "PAR1", "a.parquet: is no Parquet file"),
        ("a.csv", "question,answer\nx\n", "a.csv:2: has 1 cells, 2 are expected"),
        ("a.jsonl", "", "holds no items"),
    ],
)
def test_what_is_no_item_is_refused_with_its_place(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        read_items(TASKS["gsm8k"], tmp_path / name)
    assert said in str(caught.value)


def test_bytes_that_are_no_text_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not UTF-8"):
        read_items(TASKS["gsm8k"], tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="no such file"):
        read_items(TASKS["gsm8k"], tmp_path / "b.jsonl")


def test_names_of_subjects_come_from_either_shape_of_mapping(tmp_path: Path) -> None:
    (tmp_path / "arts_val.csv").write_text("question,A,B,C,D,answer\nx,1,2,3,4,B\n")
    items = read_items(TASKS["ceval"], tmp_path / "arts_val.csv")
    for content in ({"arts": {"name": "艺术学"}}, {"arts": ["Arts", "艺术学", "Humanities"]}):
        (tmp_path / "mapping.json").write_text(json.dumps(content))
        assert [one.fields["name"] for one in with_names(items, read_names(tmp_path / "mapping.json"))] == ["艺术学"]
    assert with_names(items, {"other": "x"}) == items
    (tmp_path / "mapping.json").write_text('{"arts": 5}')
    with pytest.raises(InputError, match=r"mapping.json: is no mapping"):
        read_names(tmp_path / "mapping.json")


@real
@pytest.mark.parametrize(
    ("task", "file", "split", "count"),
    [
        ("mmlu", "mmlu/mmlu_dev_val_only.zip", "val", 1531),
        ("mmlu", "mmlu/mmlu_dev_val_only.zip", "dev", 285),
        ("ceval", "ceval/ceval_dev_val_only.zip", "val", 1346),
        ("cmmlu", "cmmlu/cmmlu_dev_val_only.zip", "dev", 335),
        ("gsm8k", "gsm8k/train.jsonl", None, 7473),
        ("bbh", "bbh/bbh_tasks_and_cot_prompts.tar.xz", None, 6511),
        ("humaneval", "humaneval/example_problem.jsonl", None, 1),
    ],
)
def test_the_published_files_have_their_known_numbers_of_items(
    task: str, file: str, split: str | None, count: int
) -> None:
    items = read_items(TASKS[task], EVALS / file, split)
    assert len(items) == count
    assert len({one.id for one in items}) == count
    assert all(one.question.strip() for one in items)
