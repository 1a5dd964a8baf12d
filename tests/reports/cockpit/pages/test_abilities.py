"""The page of abilities shows what was committed, leads to every item, and nothing that a model wrote becomes HTML."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.plan import Run
from tests.reports.answered import HOSTILE, answer, complete, records, tasks, tell


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    folder = tmp_path / "crawl"
    folder.mkdir()
    (folder / "a.warc.gz").write_bytes(b"WARC")
    return folder


@pytest.fixture
def run(resolve_run: Callable[..., Run], crawl: Path, tmp_path: Path) -> Run:
    return resolve_run(crawl, tasks("gsm8k", "mbpp", folder=tmp_path), "one")


def text_of(answer: Any) -> str:
    """What a page says, without its tags, on one line."""
    assert answer.status_code == 200, answer.text
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def test_the_table_has_every_score_and_what_was_lost(visit: Any, run: Run) -> None:
    complete(run)
    page = text_of(visit.get("/abilities/runs/one"))

    assert "code 100.0 (86.7 to 100.0) 100.0 (86.7 to 100.0) 70.0 (50.4 to 84.3) 100" in page
    assert "gsm8k , 5-shot 98.5 (" in page
    assert "aligned sft code 100.0 % 70.0 % -30.0 (-48.0 to -12.0) 100 0.016 worse" in " ".join(page.split())
    assert "The aligned model is kept back: code 70.0 % after 100.0 %" in page
    assert "Alignment tax, sft to aligned: code 70.0 % after 100.0 %" in page
    assert "mbpp not searched for" in page
    assert "An answer was found in less than 90 % of the outputs of aligned on mbpp (70.0%)." in page
    assert "gsm8k 90 items 0 items 10 items 0 items 2" in page
    assert visit.get("/abilities").text == visit.get("/abilities/runs/one").text
    assert 'href="/abilities/runs/one/mbpp"' in visit.get("/abilities/runs/one").text


def test_scores_of_several_outputs_stand_below_the_benchmark(visit: Any, run: Run) -> None:
    tell(run, {"sft": {"mbpp": records("mbpp", "code", [1.0] * 20, samples=2)}})
    page = text_of(visit.get("/abilities/runs/one"))
    assert "mbpp , 5-shot" not in page
    assert "mbpp, pass@1 100.0 (56.6 to 100.0) 20" in page


def test_a_run_that_asks_nothing_says_so(visit: Any, resolve_run: Callable[..., Run], crawl: Path) -> None:
    assert visit.get("/abilities").status_code == 404
    resolve_run(crawl, {}, "none")
    visit.visitor._listed = (-1e9, [])
    page = text_of(visit.get("/abilities/runs/none"))
    assert "The recipe of this run names no benchmarks" in page
    assert visit.get("/abilities/runs/none/gsm8k").status_code == 404


def test_before_the_report_the_page_says_what_is_done(visit: Any, run: Run) -> None:
    answer(run, "sft", "gsm8k", records("gsm8k", "maths", [1.0, 0.0]))
    answer(run, "aligned", "gsm8k", [], left_out="the gate is closed")
    page = text_of(visit.get("/abilities/runs/one"))
    assert "2 of 6 answers are there; the report comes when all are." in page
    assert "abilities all is not done" not in page
    assert "sft gsm8k 50.0" in page
    assert "aligned gsm8k - 0 the gate is closed" in page
    assert "pretrain mbpp - - not done yet" in page
    assert "not done yet" in text_of_error(visit.get("/abilities/runs/one/mbpp"), 404)
    for model, benchmark in (("sft", "mbpp"), ("aligned", "mbpp"), ("pretrain", "gsm8k"), ("pretrain", "mbpp")):
        answer(run, model, benchmark, records(benchmark, "code", [1.0]))
    assert "abilities all is not done" in text_of(visit.get("/abilities/runs/one")), "every answer is there"


def text_of_error(answer: Any, status: int) -> str:
    assert answer.status_code == status
    return html.unescape(re.sub(r"<[^>]+>", " ", answer.text))


def test_items_are_walked_through_and_hostile_texts_are_text(visit: Any, run: Run) -> None:
    complete(run)
    first = visit.get("/abilities/runs/one/gsm8k")
    page = text_of(first)
    assert "100 of 100 items, here 1 to 10." in page
    assert "Right: right 0" in page
    assert "wrong, no answer found" in page
    assert "score 0.50, found found 1" in page
    assert "<script>window" not in first.text
    assert "<img" not in first.text
    assert "{{7*7}}" in html.unescape(first.text)
    assert HOSTILE not in html.unescape(first.text), "control characters are visible"
    following = re.search(r'href="([^"]+)" rel="next"', first.text)
    assert following
    assert "here 11 to 20" in text_of(visit.get(html.unescape(following[1])))


def test_what_a_model_lost_is_shown_beside_the_other(visit: Any, run: Run) -> None:
    complete(run)
    page = text_of(visit.get("/abilities/runs/one/mbpp", model="aligned", against="sft", verdict="lost"))
    assert "30 of 100 items, here 1 to 10." in page
    assert "aligned wrong, no answer found" in page
    assert "sft right, found found 0" in page
    source = text_of(visit.get("/abilities/runs/one/mbpp", model="aligned", verdict="wrong", source="subject 7"))
    assert "2 of 100 items" in source


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({"model": "other"}, 404, "The model other has no answers here; there are those of pretrain, sft, aligned."),
        ({"verdict": "lost"}, 422, "choose one"),
        ({"verdict": "<b>"}, 422, "not allowed"),
        ({"first": "-1"}, 422, "not allowed"),
        ({"more": "1"}, 422, "not allowed"),
    ],
)
def test_what_cannot_be_shown_is_refused(visit: Any, run: Run, query: dict[str, str], status: int, said: str) -> None:
    complete(run)
    assert said in text_of_error(visit.get("/abilities/runs/one/mbpp", **query), status)


def test_the_report_can_be_saved_and_the_answers_cannot(visit: Any, run: Run) -> None:
    complete(run)
    got = visit.get("/abilities/runs/one/report/report.md")
    assert got.text.startswith("# What the models of the run can do")
    assert got.headers["content-disposition"] == 'attachment; filename="report.md"'
    assert visit.get("/abilities/runs/one/report/records.parquet").status_code == 404


def test_who_may_not_read_the_runs_sees_nothing(visit: Any, run: Run) -> None:
    complete(run)
    visit.visitor.reads = False
    for address in ("/abilities/runs/one", "/abilities/runs/one/gsm8k", "/abilities/runs/one/report/report.json"):
        assert visit.get(address).status_code == 403
