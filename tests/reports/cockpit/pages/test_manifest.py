"""The page "Manifest": tables with the manifest's numbers, escaped, and a sentence where there is none."""

import pytest

from contract.manifest import Attempt
from contract.results import result_of


def test_the_tables_have_the_manifests_numbers(visit, judged):
    page = visit.get("/manifest/runs/one/crawl/0")
    assert page.status_code == 200
    for text in ('<th scope="row">read</th><td>10</td>', '<th scope="row">url_filter</th><td>3</td>', "<h1>crawl "):
        assert text in page.text
    assert visit.get("/manifest/runs/one/segment.extract/0").text.count("/manifest/runs/one/crawl/0") == 1


def test_what_a_manifest_says_is_escaped(visit, judged):
    verdict = "<script>alert(1)</script>\x1b"
    rates = {"<i>": {"mean": 1.23456789}}
    result = result_of("ablate").model_construct(verdict=verdict, best="<b>", models=1, tokens=2, bits_per_byte=rates)
    Attempt(judged, judged.task("ablate")).commit([], result=result)
    page = visit.get("/manifest/runs/one/ablate").text
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<b>" not in page
    assert '<th scope="row">&lt;i&gt;</th><td>1.23457</td>' in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    ("address", "status", "sentence"),
    [
        ("/manifest/runs/one/pack", 404, "run pack first"),
        ("/manifest/runs/one/resolve", 404, "The task resolve is no stage, so it leaves no manifest."),
        ("/manifest/runs/one/crawl/9", 404, "crawl runs once for each segment of the crawl."),
        ("/manifest/runs/one/pack/3", 404, "there is no pack 3"),
        ("/manifest/runs/two/pack", 404, "two"),
        ("/manifest/runs/one/pack/-1", 422, "map_index"),
        ("/manifest/ablate/one/crawl/0", 404, "The store has no run one."),
    ],
)
def test_what_is_not_there_is_said(visit, judged, address, status, sentence):
    answer = visit.get(address)
    assert answer.status_code == status
    assert sentence in answer.text


def test_a_variants_tasks_are_told_apart(visit, judged, monkeypatch):
    monkeypatch.setattr(type(visit.visitor), "may_read", lambda self, dag_id: True)
    monkeypatch.setattr(type(visit.visitor), "run", lambda self, dag_id, run_id: judged)
    said = visit.get("/manifest/ablate/one/crawl/0")
    assert said.status_code == 404
    assert "crawl 0 belongs to a variant of this run." in said.text
    assert visit.get("/manifest/corpus/one/crawl/0").status_code == 200
