"""BIG-Bench Hard: every published target is found where a chain of thought announces it."""

import tarfile
from pathlib import Path

import pytest

from contract.errors import InputError
from evals.tasks.bbh import BBH, read_shots
from evals.tasks.prompts import prompt, shots_for
from evals.tasks.published import read_items
from evals.tasks.task import Item
from tests.conftest import DATA

ARCHIVE = DATA / "evals" / "bbh" / "bbh_tasks_and_cot_prompts.tar.xz"
real = pytest.mark.skipif(not ARCHIVE.exists(), reason="the test data is not here")


def item(target: str, question: str = "Q") -> Item:
    return BBH.read({"input": question, "target": target}, "task/0")


OPTIONS = "Which?\nOptions:\n(A) red\n(B) blue"
CASES = [
    (item("(B)", OPTIONS), "So the answer is (B).", "(B)", 1),
    (item("(B)", OPTIONS), "So the answer is blue.", "(B)", 1),
    (item("(A)", OPTIONS), "I have no idea", None, 0),
    (item("Yes"), "So the answer is No.", "no", 0),
    (item("invalid"), "The argument is not valid.", "invalid", 1),
    (item("-24"), "= -24. So the answer is -24.", "-24", 1),
    (item("> ] ]"), "So the answer is > ] ].", "> ] ]", 1),
    (item("oven syndrome"), "So the answer is oven, syndrome.", "oven, syndrome", 1),
    (item("oven syndrome"), "oven\nsyndrome oven", "syndrome oven", 0),
    (item("8"), "So the answer is 8.\n\nQ: next\nA: the answer is 9.", "8", 1),
]


@pytest.mark.parametrize(("asked", "output", "found", "score"), CASES)
def test_an_answer_has_the_form_of_the_target(asked: Item, output: str, found: str | None, score: float) -> None:
    graded = BBH.grade(asked, output)
    assert (graded.extracted, graded.score) == (found, score)


@real
def test_every_published_target_is_right_and_another_tasks_is_not() -> None:
    items = read_items(BBH, ARCHIVE)
    assert [one.id for one in items if BBH.grade(one, f"Hm. So the answer is {one.answers[0]}.").score != 1] == []
    assert sum(BBH.grade(one, "So the answer is unknown.").score for one in items) == 0


@real
def test_examples_are_read_and_stand_before_the_question(tmp_path: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    shots = read_shots(tmp_path / "cot-prompts")
    assert len(shots) == 81, "three of each of the 27 tasks"
    (asked,) = read_items(BBH, tmp_path / "bbh" / "date_understanding.json", most=1)
    chosen = shots_for(asked, shots, 3)
    assert {one.subject for one in chosen} == {"date_understanding"}
    text = prompt(BBH, asked, chosen).text
    published = (tmp_path / "cot-prompts" / "date_understanding.txt").read_text().partition("-----\n")[2].strip()
    assert text == f"{published}\n\nQ: {asked.question}\nA: Let's think step by step.\n"


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "cot-prompts").mkdir()
    (tmp_path / "cot-prompts" / "word_sorting.txt").write_text(
        "Sort.\n-----\nSort.\n\nQ: b a\nA: So the answer is a b."
    )
    archive = tmp_path / "bbh.tar.xz"
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(tmp_path / "cot-prompts", "cot-prompts")
    with pytest.raises(
        InputError, match=r"bbh\.tar\.xz: is not text; unpack the archive and name its folder cot-prompts"
    ):
        read_shots(archive)


def test_a_folder_without_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no examples"):
        read_shots(tmp_path)
