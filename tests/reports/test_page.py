"""One document of a run: its text, its scores, its way and its twin are those of the committed files."""

from reports.page import UNTOLD, document
from reports.spans import Span
from tests.reports.conftest import TEXTS


def test_a_kept_document_has_its_text_its_scores_and_the_copies_that_went(searched):
    found = document(searched.run, searched.ids["plain"])
    assert (found.url, found.stage, found.reason, found.written) == (TEXTS["plain"][0], "score", None, "score")
    assert "".join(span.text for span in found.text if span.kind != "removed") == TEXTS["plain"][1]
    assert [(step.stage, step.what) for step in found.way] == [
        *((stage, "kept") for stage in ("crawl", "extract", "langid", "score", "filter", "dedup_url", "dedup_fuzzy")),
        ("dedup_substring", "waits"),
    ]
    assert [(hit.id, hit.reason) for hit in found.copies] == [(searched.ids["copy"], "near_duplicate")]
    assert found.facts["title"].startswith("plain")
    assert found.twin is None


def test_what_score_removed_is_told(searched):
    found = document(searched.run, searched.ids["plain"])
    assert [span for span in found.text if span.kind == "removed"] == [Span("Sign in here", "removed", "score")]


def test_what_a_mask_hides_is_marked_and_not_shown(searched):
    found = document(searched.run, searched.ids["hostile"])
    [masked] = [span for span in found.text if span.kind == "masked"]
    assert "@" in masked.text
    assert "who@host.example" not in str(found)


def test_a_dropped_document_crosses_the_limit_that_dropped_it(searched):
    found = document(searched.run, searched.ids["short"])
    assert (found.stage, found.reason, found.value) == ("filter", "too_few_words", "2")
    crossed = [
        (one.name, one.value, limit.rule.setting) for one in found.scores for limit in one.limits if limit.crosses
    ]
    assert ("words", 2, "min_words") in crossed
    assert [limit.crosses for one in found.scores if one.name == "words" for limit in one.limits] == [True, False]
    assert found.way[-1].what == "dropped"
    assert [step.stage for step in found.way] == ["crawl", "extract", "langid", "score", "filter"]


def test_a_duplicate_stands_beside_the_page_that_stays(searched):
    twin = document(searched.run, searched.ids["copy"]).twin
    assert (twin.id, twin.url, twin.ngram) == (searched.ids["plain"], TEXTS["plain"][0], 5)
    shared = ["".join(span.text for span in side if span.kind == "shared") for side in (twin.own, twin.other)]
    assert all("wordb tells wordc" in text for text in shared)
    assert "plain end" not in shared[1]
    assert 0.5 < twin.similarity < 1


def test_the_similarity_of_long_texts_is_not_computed(searched, monkeypatch):
    monkeypatch.setattr("reports.page.ALIKE_CHARS", 100)
    twin = document(searched.run, searched.ids["copy"]).twin
    assert twin.similarity is None
    assert any(span.kind == "shared" for span in twin.own)


def test_an_unknown_document_is_none(searched):
    assert document(searched.run, "f" * 32) is None


def test_a_text_that_cannot_be_compared_says_so(searched, monkeypatch):
    monkeypatch.setattr("reports.edits.CHARS", 100)
    found = document(searched.run, searched.ids["hostile"])
    assert found.notes == (UNTOLD,)
    assert [span.kind for span in found.text] == [""]
    assert document(searched.run, searched.ids["tiny"]).notes == ()
