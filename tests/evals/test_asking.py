"""A benchmark's items and examples from its files, by arguments and by the options of a command."""

import argparse
import json
from pathlib import Path

import pytest

from contract.errors import InputError
from evals.asking import Files, add_asking, asking_of, read_asking
from evals.tasks.table import TASKS


@pytest.fixture
def files(tmp_path: Path) -> Files:
    for name in ("test", "dev"):
        rows = [{"question": f"{name} {at}", "choices": ["a", "b"], "answer": at % 2} for at in range(3)]
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"law_{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "mapping.json").write_text(json.dumps({"law": {"name": "the law"}}))
    return Files(tmp_path, "test", tmp_path, "dev", tmp_path / "mapping.json")


def test_items_stand_behind_as_many_examples_as_are_asked_for(files: Files) -> None:
    asking = read_asking("mmlu", files, limit=2, k=1)
    assert [one.question for one in asking.items] == ["test 0", "test 1"]
    asked = asking.prompt(asking.items[0]).text
    assert asked.count("dev 0") == 1
    assert "dev 1" not in asked
    assert "the law" in asked
    assert asked.index("dev 0") < asked.index("test 0")
    assert read_asking("mmlu", files).count == TASKS["mmlu"].shots == 5


def test_the_examples_that_really_stand_before_an_item_are_counted(files: Files) -> None:
    assert read_asking("mmlu", files).shots == 3, "the usual number is 5"
    assert read_asking("mmlu", files, k=2).shots == 2
    assert read_asking("mmlu", Files(files.items, "test")).shots == 0
    assert read_asking("mmlu", Files(files.items, "test"), k=0).shots == 0


def test_a_number_of_examples_that_there_are_not_is_refused(files: Files) -> None:
    with pytest.raises(InputError, match="mmlu: k is 5, and there are no examples; name their file as shots"):
        read_asking("mmlu", Files(files.items, "test"), k=5)
    with pytest.raises(InputError, match="mmlu: k is 5, and item law/0 has only 3 examples"):
        read_asking("mmlu", files, k=5)


def test_a_dialogue_and_a_style_are_those_that_are_named(files: Files) -> None:
    asking = read_asking("mmlu", files, k=1, dialogue=True)
    assert [turn.role for turn in asking.prompt(asking.items[0]).turns] == ["user", "assistant", "user"]
    cloze = read_asking("mmlu", files, k=0, style="cloze")
    assert [scored for _, scored in cloze.prompt(cloze.items[0]).pairs] == [" a", " b"]


def test_a_misspelt_name_is_refused_before_a_file_is_read(tmp_path: Path) -> None:
    nowhere = Files(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there is no task 'mmul'"):
        read_asking("mmul", nowhere)
    with pytest.raises(InputError, match="has no style 'blank'"):
        read_asking("mmlu", nowhere, style="blank")
    with pytest.raises(InputError, match="no such file or folder"):
        read_asking("mmlu", nowhere)


def test_the_options_of_a_command_name_the_same(files: Files) -> None:
    parser = argparse.ArgumentParser()
    add_asking(parser)
    of_items = ["--items", str(files.items), "--split", "test", "--limit", "2", "--names", str(files.names)]
    of_shots = ["--k", "1", "--shots", str(files.shots), "--shots-split", "dev"]
    given = parser.parse_args(["mmlu", *of_items, *of_shots])
    assert asking_of(given) == read_asking("mmlu", files, limit=2, k=1)
