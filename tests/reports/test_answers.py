"""Items of a benchmark with what models answered: the right ones are found, and long or hostile texts are cut and visible."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from contract.errors import NotReadyError, StoreError
from contract.plan import Run
from evals.records import Record
from reports import answers
from reports.answers import Verdict
from reports.benchmarks import Part, parts
from tests.reports.answered import answer, records, tasks


@pytest.fixture
def run(resolve_run: Callable[..., Run], tmp_path: Path) -> Run:
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    (crawl / "a.warc.gz").write_bytes(b"WARC")
    return resolve_run(crawl, tasks("gsm8k", folder=tmp_path), "one")


def chosen(run: Run, *models: str) -> list[Part]:
    by_name = {one.model: one for one in parts(run)}
    return [by_name[model] for model in models]


@pytest.mark.parametrize(
    ("verdict", "source", "found"),
    [
        ("any", "", [0, 1, 2, 3, 4, 5]),
        ("right", "", [2, 3, 4, 5]),
        ("partly", "", [1]),
        ("wrong", "", [0]),
        ("no answer", "", [0]),
        ("lost", "", [0]),
        ("won", "", [1, 3]),
        ("any", "subject 1", [4, 5]),
        ("wrong", "subject 1", []),
        ("any", "subject", []),
    ],
)
def test_items_are_found_by_their_verdict(run: Run, verdict: Verdict, source: str, found: list[int]) -> None:
    answer(run, "sft", "gsm8k", records("gsm8k", "maths", [0, 0.5, 1, 1, 1, 1]))
    answer(run, "pretrain", "gsm8k", records("gsm8k", "maths", [1, 0, 1, 0, 1, 1]))
    page = answers.find(run.store, chosen(run, "sft", "pretrain"), verdict, source, 0, 10)
    assert [one.id for one in page.items] == [f"gsm8k/{at}" for at in found]
    assert (page.of, page.all) == (len(found), 6)


def test_an_item_has_its_texts_of_both_models(run: Run) -> None:
    answer(run, "sft", "gsm8k", records("gsm8k", "maths", [1, 0], samples=6))
    answer(run, "pretrain", "gsm8k", records("gsm8k", "maths", [0, 0]))
    page = answers.find(run.store, chosen(run, "sft", "pretrain"), "any", "", 0, 1)
    (item,) = page.items
    assert (item.prompt, item.expected, item.where) == ("Example.\n\nQuestion 0?", "right 0", "gsm8k.jsonl:1")
    assert [len(one) for one in item.outputs] == [4, 1]
    assert item.more == (2, 0)
    assert (item.outputs[0][0].extracted, item.outputs[1][0].extracted) == ("found 0", None)
    assert "\\x1b" in item.outputs[0][0].text, "control characters are visible"
    assert page.of == 2
    second = answers.find(run.store, chosen(run, "sft"), "any", "", 1, 1)
    assert [one.id for one in second.items] == ["gsm8k/1"]


def test_long_texts_are_cut_and_a_prompt_keeps_its_question(run: Run) -> None:
    long = Record("gsm8k", "maths", "i" * 400, "s", 0, "shot " * 5000 + "QUESTION", "o" * 9999, "e", "x" * 999, 1.0)
    answer(run, "sft", "gsm8k", [long])
    (item,) = answers.find(run.store, chosen(run, "sft"), "any", "", 0, 1).items
    assert item.prompt.startswith("[...] ")
    assert item.prompt.endswith("QUESTION")
    assert len(item.prompt) < answers.PROMPT_CHARS + 10
    assert len(item.outputs[0][0].text) < answers.OUTPUT_CHARS + 10
    assert len(item.id) + len(item.outputs[0][0].extracted or "") < 2 * answers.SHORT_CHARS + 20


def test_a_model_without_answers_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotReadyError, match="sft has no answers to gsm8k: not done yet"):
        answers.find(run.store, chosen(run, "sft"), "any", "", 0, 1)
    answer(run, "sft", "gsm8k", [replace(one, output="x") for one in records("gsm8k", "maths", [1])])
    monkeypatch.setattr(answers, "MOST_BYTES", 10)
    with pytest.raises(StoreError, match="too many for a page"):
        answers.find(run.store, chosen(run, "sft"), "any", "", 0, 1)
