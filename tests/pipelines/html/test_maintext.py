"""When the fall-back extractors are asked, and what stands in for parts of trafilatura."""

import re

import pytest
from trafilatura import xpaths

from pipelines.html import maintext
from pipelines.html.maintext import Found, find_text, main_text, suspicious
from pipelines.html.treewalk import Walk


def test_most_expressions_are_walked():
    """Those that ask for more than tags and attributes stay XPath: a union whose parts are each taken once."""
    main_text("<html><body><p>text</p></body></html>", True)
    found = [expression for name in maintext.XPATH_LISTS for expression in getattr(xpaths, name)]
    assert [isinstance(one, Walk) for one in found].count(False) == 1
    assert isinstance(maintext.baseline.BASIC_CLEAN_XPATH, Walk)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("plain\tt\r\n<p>ü€\U0001f600</p>", "plain\tt\r\n<p>ü€\U0001f600</p>"),
        ("a\x00b\x0bc\x1f\n", "abc\n"),
        ("a\ufffeb\uffffc", "abc"),
        ("\ufffd\ud800", "\ufffd\ud800"),
        ("", ""),
    ],
)
def test_characters_that_xml_cannot_hold(text, left):
    pattern = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
    assert maintext.SearchFirst(pattern).sub("", text) == left == pattern.sub("", text)


@pytest.mark.parametrize(
    ("found", "main", "page", "missed"),
    [
        (413, 38638, 40965, True),
        (522, 1087, 6853, True),
        (0, 1, 1, True),
        (999, 20_000, 20_000, True),
        (1000, 20_000, 20_000, False),  # long enough to stand
        (100, 200, 5000, False),  # half of the main content
        (100, 201, 1000, False),  # a tenth of the page
        (100, 201, 1001, True),
        (894, 4311, 5694, False),
        (0, 0, 0, False),
    ],
)
def test_a_text_that_is_suspiciously_short(found, main, page, missed):
    assert suspicious(found, main, page) == missed


SENTENCE = "The river bends twice before it meets the old mill, and nobody has ground corn there for many years. "


def test_the_fall_backs_are_asked_only_where_the_text_looks_missed(monkeypatch):
    asked = []
    texts = {True: "A teaser.", False: SENTENCE * 20}
    monkeypatch.setattr(maintext, "main_text", lambda page, fast: asked.append(fast) or texts[fast])
    page = f"<html><body><main>{f'<p>{SENTENCE}</p>' * 20}</main></body></html>"
    assert find_text(page) == Found(SENTENCE * 20, True)
    assert find_text("<html><body><p>A teaser.</p></body></html>") == Found("A teaser.", False)
    texts[False] = None  # the fall-backs find nothing: the first text stays
    assert find_text(page) == Found("A teaser.", True)
    texts[True] = SENTENCE * 20
    assert find_text(page) == Found(SENTENCE * 20, False)
    assert asked == [True, False, True, True, False, True]


def test_a_text_in_hand_is_not_lost_to_the_fall_backs(monkeypatch):
    page = f"<html><body><main>{f'<p>{SENTENCE}</p>' * 20}</main></body></html>"
    texts, clock, asked = {True: "A teaser.", False: None}, [0.0], []

    def extract(page, fast):
        asked.append(fast)
        clock[0] += 5
        if texts[fast] is None:
            raise MemoryError
        return texts[fast]

    monkeypatch.setattr(maintext, "main_text", extract)
    monkeypatch.setattr(maintext.time, "process_time", lambda: clock[0])
    assert find_text(page, 10) == Found("A teaser.", False)  # half of the time is gone
    assert asked == [True]
    assert find_text(page, 10.1) == Found("A teaser.", True)  # the fall-backs fail
    assert asked == [True, True, False]
    texts[True] = ""  # nothing in hand: they are asked whatever the time, and what goes wrong is told
    with pytest.raises(MemoryError):
        find_text(page, 1)
    texts[False] = SENTENCE
    assert find_text(page, 1) == Found(SENTENCE, True)


def test_no_worse_than_the_better_of_both_on_real_pages(data_dir):
    """The pages of the multilingual set on which the two differ most: snippets wanted that are there, less those that are not."""
    from perf.extraction_quality import gold_snippets
    from pipelines.extract import decode
    from pipelines.warc.pages import read_pages
    from pipelines.warc.rangefile import RangeFile
    from pipelines.warc.record import Page

    hosts = ("laviedesidees.fr", "smava.de", "katzen-forum.net", "spiegel.de", "zdf.de", "boingboing.net", "caritas.de")
    gold = {row["url"]: row for row in gold_snippets(data_dir / "html_gold")}
    hits = {"never": 0, "stage": 0}
    file = RangeFile(str(data_dir / "html_gold" / "trafilatura_eval.dev.warc.gz"))
    for page in read_pages(file, 8 << 20):
        if isinstance(page, Page) and page.url in gold and any(host in page.url for host in hosts):
            text = decode(page.payload, page.charset)
            for name, found in (("never", main_text(text, True) or ""), ("stage", find_text(text).text)):
                hits[name] += sum(one in found for one in gold[page.url]["with"])
                hits[name] -= sum(one in found for one in gold[page.url]["without"])
    assert hits["stage"] >= hits["never"] + 10
