"""The faster trafilatura against the library as it comes, page by page, and what stands in for its parts."""

import json
import re
import subprocess
import sys

import pytest
from trafilatura import xpaths

from pipelines.text import maintext
from pipelines.text.maintext import main_text
from pipelines.text.treewalk import Walk

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
    assert maintext.Sought(pattern).sub("", text) == left == pattern.sub("", text)
