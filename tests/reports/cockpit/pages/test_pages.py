"""The page "Pages" shows what the data says, escapes all of it, and takes notes only from those who may edit."""

import re
from dataclasses import replace

import pytest

from reports import page as document_page
from reports import search, verdicts
from tests.reports.conftest import SCRIPT

BASE = "/pages/runs/one"


def clean(page):
    """The text of a page, which holds no script of ours."""
    assert page.status_code == 200, page.text
    assert "<script>alert" not in page.text
    assert not re.search(r"<script(?! src=)", page.text)
    return page.text


def test_a_search_lists_documents_with_a_link_to_each(visit, searched):
    text = clean(visit.get(BASE))
    for name in ("short", "brief", "tiny", "copy"):
        assert f"{BASE}/document/{searched.ids[name]}" in text
    assert searched.ids["plain"] not in clean(visit.get(BASE, reason="too_few_words"))
    assert f"{BASE}/document/{searched.ids['plain']}" in clean(visit.get(BASE, address="www.example.org"))
    assert f"{BASE}/document/{searched.ids['plain']}" in clean(visit.get(BASE, address=searched.ids["plain"]))
    assert "No document of this run is found." in clean(visit.get(BASE, address="nowhere.test"))
    assert "is not where a page ends" in clean(visit.get(BASE, after="x"))
    assert visit.get(BASE, file="/etc/passwd").status_code == 422


def test_the_next_page_goes_on(visit, searched, monkeypatch):
    monkeypatch.setattr(search, "PAGE", 2)
    monkeypatch.setattr(search.search, "__defaults__", (2,))
    first = clean(visit.get(BASE, reason="too_few_words"))
    [following] = re.findall(r'href="([^"]+)" rel="next"', first)
    second = clean(visit.get(following.replace("&amp;", "&")))
    found = [re.findall(r"/document/([0-9a-f]{32})", text) for text in (first, second)]
    assert [len(one) for one in found] == [2, 1]
    assert sorted([*found[0], *found[1]]) == sorted(searched.ids[name] for name in ("short", "brief", "tiny"))


@pytest.mark.parametrize("name", ["hostile", "tiny", "short", "copy", "plain"])
def test_a_document_is_told_with_everything_escaped(visit, searched, name):
    text = clean(visit.get(f"{BASE}/document/{searched.ids[name]}"))
    assert name in text or name == "tiny"
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_page_that_never_became_a_document_has_its_address_as_its_title(visit, searched, monkeypatch):
    whole = document_page.document
    monkeypatch.setattr(document_page, "document", lambda run, key: replace(whole(run, key), facts={}))
    found = whole(searched.run, searched.ids["short"])
    assert f"<h1>{found.url}</h1>" in clean(visit.get(f"{BASE}/document/{searched.ids['short']}"))


def test_why_a_page_was_dropped_is_two_clicks_from_its_reason(visit, searched):
    listing = clean(visit.get(BASE, stage="filter", reason="too_few_words"))
    assert searched.ids["short"] in listing
    text = clean(visit.get(f"{BASE}/document/{searched.ids['short']}"))
    assert "<strong>filter</strong> dropped it because of <strong>too_few_words</strong> (2)" in text
    assert "&lt; 5 ✗ crossed" in text
    duplicate = clean(visit.get(f"{BASE}/document/{searched.ids['copy']}"))
    assert '<mark class="shared">' in duplicate
    assert f"{BASE}/document/{searched.ids['plain']}" in duplicate
    assert visit.get(f"{BASE}/document/{'f' * 32}").status_code == 404
    assert visit.get(f"{BASE}/document/zz").status_code == 422


def test_a_threshold_is_tried(visit, searched):
    text = clean(visit.get(f"{BASE}/thresholds", setting="min_words", limit="3"))
    assert "5 documents are kept instead of 4 (+1, +25.0%; +3 words)." in text
    assert 'value="filter.min_words=3"' in text
    assert f"{BASE}/document/{searched.ids['brief']}" in text
    answer = visit.json(f"{BASE}/thresholds/try", setting="min_words", limit="3")
    assert answer["override"] == "filter.min_words=3"
    assert answer["limit"] == 3
    assert [one["link"] for one in answer["changed"]] == [f"{BASE}/document/{searched.ids['brief']}"]
    assert "no threshold that this recipe uses" in clean(visit.get(f"{BASE}/thresholds", setting=SCRIPT))
    assert visit.client.get(f"{BASE}/thresholds/try", params={"setting": "no"}).status_code == 422


def test_a_note_needs_the_right_to_edit_and_is_listed(visit, searched):
    key, comment = searched.ids["short"], f"It is fine. {SCRIPT}"
    visit.visitor.edits = False
    assert visit.post(f"{BASE}/verdicts", document=key, comment=comment).status_code == 403
    assert "<textarea" not in clean(visit.get(f"{BASE}/document/{key}"))
    visit.visitor.edits = True
    answer = visit.post(f"{BASE}/verdicts", document=key, comment=comment)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{BASE}/document/{key}")
    [note] = verdicts.listed(searched.run)[0]
    assert (note.document, note.stage, note.reason, note.comment) == (key, "filter", "too_few_words", comment)
    assert visit.visitor.recorded[0][3] == {"document": key, "comment": comment}
    for page in (f"{BASE}/verdicts", f"{BASE}/document/{key}"):
        assert "It is fine. &lt;script&gt;" in clean(visit.get(page))
    assert visit.post(f"{BASE}/verdicts", document=searched.ids["plain"]).status_code == 409
    assert visit.post(f"{BASE}/verdicts", document=key, comment="x" * 1001).status_code == 422
    assert visit.client.post(f"{BASE}/verdicts", data={"document": key}).status_code == 403
    assert len(verdicts.listed(searched.run)[0]) == 1


def test_a_run_without_results_says_so(visit, judged):
    assert "without an index" in clean(visit.get(BASE))
    assert clean(visit.get(f"{BASE}/thresholds"))
    assert "There are no notes." in clean(visit.get(f"{BASE}/verdicts"))


def test_a_threshold_that_is_rounded_says_so(visit, searched):
    found = visit.json(f"{BASE}/thresholds/try", setting="min_words", limit=5.04)
    assert found["limit"] == 5.0
    assert found["said"].startswith("5.04 is rounded to 5: only thresholds of two significant digits are counted. ")
    assert "rounded" not in visit.json(f"{BASE}/thresholds/try", setting="min_words", limit=5)["said"]
    page = clean(visit.get(f"{BASE}/thresholds", setting="min_words", limit=5.04))
    assert "5.04 is rounded to 5" in page
    assert "is rounded to" not in clean(visit.get(f"{BASE}/thresholds", setting="min_words"))


def test_the_search_says_what_is_searched(visit, searched):
    page = " ".join(clean(visit.get(BASE)).split())
    assert "Words are searched in the first 200 characters of the texts of dropped documents only." in page
    assert "They are not searched inside addresses or titles, nor in kept documents." in page
