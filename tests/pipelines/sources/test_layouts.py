"""Rows in the shapes in which corpora are published: which layout each is taken for, and what it says of its document."""

import datetime
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.examples import MAX_LINE_BYTES, Unusable
from contract.schema import Drop
from contract.settings.corpus import Layout
from pipelines.sources.layouts import LAYOUTS, Found, detect, read_row


def at(*moment: int) -> datetime.datetime:
    return datetime.datetime(*moment, tzinfo=datetime.UTC)  # type: ignore[arg-type,misc]


PILE = {"text": "A paper.", "meta": {"pile_set_name": "ArXiv"}}
OSCAR_23 = {
    "content": "Il était\nune fois.",
    "warc_headers": {
        "warc-record-id": "<urn:uuid:6b1d>", "warc-date": "2022-11-26T09:45:47Z", "content-type": "text/plain",
        "warc-target-uri": "https://exemple.fr/conte", "warc-identified-content-language": "fra,eng",
    },
    "metadata": {
        "identification": {"label": "fr", "prob": 0.89}, "harmful_pp": 4063.1, "quality_warnings": ["short_sentences"],
        "sentence_identifications": [{"label": "fr", "prob": 0.99}, None],
    },
}  # fmt: skip
OSCAR_HUB = {
    "id": 0, "text": "Es war einmal.",
    "meta": {
        "warc_headers": {"warc-record-id": "<urn:uuid:77aa>", "warc-target-uri": "https://beispiel.de/"},
        "identification": {"label": "de", "prob": 1}, "annotations": None, "line_identifications": [],
    },
}  # fmt: skip
WUDAO = {
    "id": 7,
    "uniqueKey": "f0e1",
    "titleUkey": "aa",
    "dataType": "百科",
    "title": "长江",
    "content": "长江是一条河。",
}
DOLMA = {
    "id": "http://example.org/a", "text": "A page.", "source": "common-crawl", "added": "2023-04-07T15:24:38.743534+00:00",
    "created": "2020-03-29T09:04:10Z",
    "metadata": {"url": "http://example.org/a", "language": "en", "title": "Its title", "length": 7},
}  # fmt: skip
REDPAJAMA = {
    "text": "An article.",
    "meta": {
        "title": "Rivers",
        "url": "https://en.wikipedia.org/wiki/Rivers",
        "language": "en",
        "timestamp": "20230320",
    },
}
REDPAJAMA_CODE = {
    "text": "int x;",
    "meta": {
        "repo_name": "ann/tools", "path": "src/x.c", "license": "mit", "language": [{"name": "C", "bytes": "6"}],
        "content_hash": "0f", "timestamp": "",
    },
}  # fmt: skip
STACK = {
    "content": "print(1)\n", "max_stars_repo_name": "ann/tools", "max_stars_repo_path": "a.py", "lang": "Python",
    "max_stars_repo_licenses": ["MIT", "Apache-2.0"], "ext": "py",
}  # fmt: skip
GITHUB = {"code": "x = 1", "repo_name": "ann/tools", "path": "b.py", "language": "Python", "license": "gpl-3.0"}
PLAIN = {"text": "A text.", "url": "https://example.org/", "timestamp": datetime.datetime(2024, 3, 4, 5, 6, 7, 8)}

SAID = [
    (PILE, "pile", Found("A paper.")),
    (
        OSCAR_23, "oscar",
        Found("Il était\nune fois.", "<urn:uuid:6b1d>", "https://exemple.fr/conte", at(2022, 11, 26, 9, 45, 47), None, "fr", 0.89),
    ),
    (OSCAR_HUB, "oscar", Found("Es war einmal.", "<urn:uuid:77aa>", "https://beispiel.de/", language="de", probability=1.0)),
    (WUDAO, "wudao", Found("长江是一条河。", "f0e1", title="长江")),
    (
        DOLMA, "dolma",
        Found("A page.", "common-crawl http://example.org/a", "http://example.org/a", at(2020, 3, 29, 9, 4, 10), "Its title", "en"),
    ),
    (
        REDPAJAMA, "redpajama",
        Found("An article.", "", "https://en.wikipedia.org/wiki/Rivers", at(2023, 3, 20), "Rivers", "en"),
    ),
    (REDPAJAMA_CODE, "redpajama", Found("int x;", title="ann/tools", license="mit")),
    (
        STACK, "code",
        Found("print(1)", "ann/tools\na.py", title="ann/tools/a.py", license="Apache-2.0, MIT", repo="ann/tools", path="a.py"),
    ),
    (GITHUB, "code", Found("x = 1", "ann/tools\nb.py", title="ann/tools/b.py", license="gpl-3.0", repo="ann/tools", path="b.py")),
    (PLAIN, "plain", Found("A text.", url="https://example.org/", date=at(2024, 3, 4, 5, 6, 7))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "layout", "found"), SAID, ids=[f"{layout}{at}" for at, (_, layout, _) in enumerate(SAID)]
)
def test_a_row_is_known_by_its_shape_and_read(row: dict[str, Any], layout: str, found: Found) -> None:
    assert detect([row]) == layout
    assert read_row(layout, row) == found


def test_metadata_may_be_written_in_json() -> None:
    packed = REDPAJAMA | {"meta": json.dumps(REDPAJAMA["meta"])}
    assert detect([packed]) == "redpajama"
    assert read_row("redpajama", packed) == read_row("redpajama", REDPAJAMA)
    assert detect([PILE | {"meta": json.dumps(PILE["meta"])}]) == "pile"
    assert read_row("redpajama", {"text": "a", "meta": "[broken"}) == Found("a")


def test_code_in_redpajamas_layout_is_read_as_code_where_the_recipe_says_so() -> None:
    found = read_row("code", REDPAJAMA_CODE)
    assert (found.repo, found.path, found.license, found.language) == ("ann/tools", "src/x.c", "mit", None)


def test_a_wudao_text_begins_with_its_title_once() -> None:
    row = {"title": "标题", "content": "正文"}
    assert detect([row]) == "wudao"
    assert read_row("wudao", row) == Found("标题\n\n正文", title="标题")
    assert read_row("wudao", row | {"title": ""}).text == "正文"


def test_the_layout_of_most_rows_counts() -> None:
    assert detect([PILE, PLAIN, PILE, Unusable(Drop.NOT_JSON), None, "x"]) == "pile"
    assert detect([{"words": 3}]) is None
    assert detect([]) is None


def test_the_recipe_names_all_layouts() -> None:
    assert set(get_args(Layout)) == set(LAYOUTS)


@pytest.mark.parametrize(
    ("layout", "row", "reason"),
    [
        ("plain", None, Drop.NOT_AN_OBJECT), ("plain", [], Drop.NOT_AN_OBJECT), ("plain", {"body": "x"}, Drop.MISSING_TEXT),
        ("plain", {"text": 5}, Drop.NOT_A_TEXT), ("plain", {"text": " \n"}, Drop.EMPTY_TEXT),
        ("plain", {"text": "\ud800"}, Drop.BROKEN_TEXT), ("plain", {"text": "é" * (MAX_LINE_BYTES // 2 + 1)}, Drop.ROW_TOO_LONG),
        ("code", {"text": "x", "path": "a"}, Drop.MISSING_TEXT), ("wudao", {"title": "x"}, Drop.MISSING_TEXT),
        ("pile", Unusable(Drop.NOT_JSON), Drop.NOT_JSON),
    ],
)  # fmt: skip
def test_what_is_no_document_has_a_reason(layout: str, row: Any, reason: Drop) -> None:
    with pytest.raises(Unusable) as refused:
        read_row(layout, row)
    assert refused.value.reason == reason


def test_a_text_is_in_the_form_of_the_crawls() -> None:
    assert read_row("plain", {"text": " Cafe\u0301\r\n\u212b "}).text == "Caf\u00e9\n\u00c5"


def test_an_id_is_the_publishers_own_or_else_the_texts() -> None:
    book, other = Found("a book"), Found("another book")
    assert book.id("books") != other.id("books")
    assert book.id("books") != book.id("library"), "each source has its own"
    assert Found("a", key="1").id("x") == Found("b", key="1").id("x") != Found("a", key="2").id("x")
    assert len(bytes.fromhex(book.id("books"))) == 16
    assert book.id("books") == "ca195c59df05e92b5c786e465c639628"


@pytest.mark.parametrize(
    ("said", "code"),
    [("en", "en"), ("EN-us", "en"), ("zh_Hans", "zh"), ("fra", "fra"), ("Python", None), ("multi", None), (7, None), ("", None)],
)  # fmt: skip
def test_a_language_is_a_code(said: Any, code: str | None) -> None:
    assert read_row("plain", {"text": "x", "language": said}).language == code


@pytest.mark.parametrize("date", ["yesterday", "0001-01-01T00:00:00+14:00", 5, None, ["2024"]])
def test_a_date_that_is_none_is_left_out(date: Any) -> None:
    assert read_row("plain", {"text": "x", "date": date}).date is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["text", "content", "meta", "metadata", "id", "source", "url", "title", "date", "license", "language", "repo", "path",
         "identification", "warc_headers", "label", "prob", "pile_set_name", "warc-record-id", "added", "uniqueKey"]
    ), inner, max_size=6),
    max_leaves=12,
)  # fmt: skip


@given(row=JSON, layout=st.sampled_from(sorted(LAYOUTS)))
def test_no_row_ends_the_reading(row: Any, layout: str) -> None:
    """Whatever a row holds: it is a document whose fields can be stored, or it has a reason."""
    detect([row])
    try:
        found = read_row(layout, row)
    except Unusable:
        return
    for name in ("text", "key", "url", "title", "license", "repo", "path"):
        value = getattr(found, name)
        assert value is None or value.encode().decode() == value
    assert found.text.strip()
    assert found.date is None or found.date.tzinfo is datetime.UTC
    assert len(found.id("s")) == 32
