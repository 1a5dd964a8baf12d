"""The crawl of Python's documentation server, read back by an independent WARC reader."""

import base64
import hashlib

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from demo import crawl_pydoc

PAGE = b'<html><a href="os.html">os</a> <a href="topic?key=a&amp;b">t</a> <a href="http://elsewhere/x">x</a> <a href="#here">h</a></html>'


@pytest.fixture(scope="module")
def crawled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crawl") / "PYDOC"
    assert crawl_pydoc.crawl(folder, 30) == 30
    return folder


def test_every_page_has_request_response_and_metadata(crawled):
    pages: dict[str, list[WarcRecordType]] = {}
    for file in crawled.iterdir():
        with file.open("rb") as stream:
            for record in ArchiveIterator(stream):
                pages.setdefault(record.headers.get("WARC-Target-URI"), []).append(record.record_type)
    assert pages.pop(None) == [WarcRecordType.warcinfo]
    assert len(pages) == 30
    assert all(
        kinds == [WarcRecordType.request, WarcRecordType.response, WarcRecordType.metadata] for kinds in pages.values()
    )


def test_responses_are_documentation_and_digests_are_right(crawled):
    with next(crawled.iterdir()).open("rb") as stream:
        responses = [
            (record.headers["WARC-Payload-Digest"], record.http_headers.status_code, record.reader.read())
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response)
        ]
    for digest, status, payload in responses:
        assert status == 200
        assert digest == "sha1:" + base64.b32encode(hashlib.sha1(payload).digest()).decode()
    assert any(b"ASSIGNMENT" in payload for _, _, payload in responses)


def test_links_stay_on_the_host_and_off_the_search_pages():
    assert crawl_pydoc.links("http://localhost:1/index.html", PAGE) == [
        "http://localhost:1/os.html",
        "http://localhost:1/topic?key=a&b",
    ]
    refused = b'<a href="get?key=x"> <a href="search?key=x"> <a href="antigravity.html"> <a href="test.support.html">'
    assert crawl_pydoc.links("http://localhost:1/", refused) == []


def test_an_interrupted_crawl_leaves_no_folder_that_looks_complete(tmp_path, monkeypatch):
    def walk(origin, max_pages):
        yield "http://x/", b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nhello"
        raise KeyboardInterrupt

    monkeypatch.setattr(crawl_pydoc, "walk", walk)
    with pytest.raises(KeyboardInterrupt):
        crawl_pydoc.crawl(tmp_path / "PYDOC", 5)
    assert not (tmp_path / "PYDOC").exists()
