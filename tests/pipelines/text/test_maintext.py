"""The faster trafilatura against the library as it comes, page by page, and the rewriting of its expressions."""

import json
import subprocess
import sys

import pytest
from lxml import etree, html

from pipelines.text.maintext import main_text, one_union, one_walk

PLAIN = """
import json, sys, logging, trafilatura
logging.disable(logging.CRITICAL)
for line in sys.stdin:
    page, fast = json.loads(line)
    found = trafilatura.bare_extraction(page, fast=fast, include_comments=False)
    print(json.dumps(found.text if found else None))
"""


def test_output_equals_the_library_on_real_pages(data_dir):
    """A second process runs the library untouched."""
    from pipelines.extract import decode
    from pipelines.text.rangefile import RangeFile
    from pipelines.text.warc import Page, read_pages

    asked = []
    for name, step in (("aeb", 4), ("mediacloud2020_multilang", 5), ("trafilatura_eval", 12)):
        file = RangeFile(str(data_dir / "html_gold" / f"{name}.dev.warc.gz"))
        pages = [decode(one.payload, one.charset) for one in read_pages(file, 1 << 20) if isinstance(one, Page)]
        asked += [(page, index % 4 != 0) for index, page in enumerate(pages[::step])]
    assert len(asked) > 60
    given = "\n".join(json.dumps(one) for one in asked)
    plain = subprocess.run([sys.executable, "-c", PLAIN], input=given, capture_output=True, text=True, check=True)
    expected = [json.loads(line) for line in plain.stdout.splitlines()]
    assert sum(text is not None for text in expected) > 50
    assert [main_text(page, fast) for page, fast in asked] == expected


@pytest.mark.parametrize(
    ("path", "rewritten"),
    [
        (".//*[self::p][@id='x']", "descendant::*[self::p][@id='x']"),
        (".//*[self::p][1]", ".//*[self::p][1]"),
        ("(.//*[self::p])[1]", "(descendant::*[self::p])[1]"),
        (".//*[re:test(@id|@class, 'ab', 'i')]", "descendant::*[(@id|@class and re:test(@id|@class, 'ab', 'i'))]"),
        (".//*[re:test(@id, 'a*')]", "descendant::*[re:test(@id, 'a*')]"),
    ],
)
def test_one_walk(path, rewritten):
    assert one_walk(path) == rewritten
    tree = html.fromstring("<div id=x><p id=x>1<p class=abc id=q>2<div><p id=ABx>3</p></div><b id=AB>4</b></div>")
    names = {"namespaces": {"re": "http://exslt.org/regular-expressions"}}
    assert etree.XPath(rewritten, **names)(tree) == etree.XPath(path, **names)(tree)


def test_one_union():
    path = ".//aside|.//div[contains(@class|@id, 'footer')]|.//*[re:test(@class, 'cookie', 'i')]"
    names = {"namespaces": {"re": "http://exslt.org/regular-expressions"}}
    tree = html.fromstring(
        "<div><aside>1<div id=footer>2</div></aside><p class=Cookie>3<b class=x>4</b></p><div class='a footer'>5</div></div>"
    )
    before = etree.XPath(path, **names)(tree)
    assert len(before) == 4
    assert etree.XPath(one_union(path), **names)(tree) == before
    assert one_union("(.//a)[1]") == "(.//a)[1]"
