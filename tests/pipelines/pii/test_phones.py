"""How many telephone numbers of real pages are masked, and how many things that only look like one.

phones.csv says where the numbers are: the file, the record (its offset, or its line where a file holds JSON lines), the range of
characters in `rendered`, and the first 8 digits of the SHA-256 of what stands there. Every run of 7 digits or more of those files
was looked at with what stands around it; numbers of fewer digits are not among them, and no page gives more than seven.
lookalikes.tsv is invented: a kind, and a text that holds no telephone number.
"""

import csv
import hashlib
import html
import json
import re
import unicodedata
from functools import lru_cache
from pathlib import Path

import pytest

from pipelines.pii import phones
from pipelines.warc.pages import read_pages
from pipelines.warc.rangefile import RangeFile
from pipelines.warc.record import Page

FOLDER = Path(__file__).parent
LOOKALIKES = [line.split("\t") for line in (FOLDER / "lookalikes.tsv").read_text("utf-8").splitlines()]
MIN_RECALL = MIN_PRECISION = 0.97

CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
UNSEEN = re.compile(r"<!--.*?-->|<(script|style|noscript|template|svg)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
BREAK = re.compile(
    r"</?(?:p|div|br|li|ul|ol|tr|td|th|table|h[1-6]|section|article|header|footer|nav|aside|dl|dt|dd|option|form|title|body|head"
    r"|blockquote|pre|address|figure|figcaption|button|label|main|hr)\b[^>]*>",
    re.IGNORECASE,
)
TAG = re.compile(r"<[a-zA-Z/!?][^>]*>")


def rendered(page: Page) -> str:
    """The text of a whole page by a rule of its own, so that the ranges hold whatever becomes of the extractor."""
    try:
        markup = page.payload.decode("utf-8")
    except UnicodeDecodeError:
        declared = CHARSET.search(page.payload)
        markup = page.payload.decode(page.charset or (declared[1].decode() if declared else "cp1252"), "replace")
    spaced = re.sub(r"[ \t\r\n\f]+", " ", UNSEEN.sub(" ", markup))
    return html.unescape(TAG.sub("", BREAK.sub("\n", spaced)))


@lru_cache
def texts(data: Path, name: str, records: frozenset[int]) -> dict[int, str]:
    """The texts of some records of a file."""
    if name.endswith(".jsonl"):
        lines = (data / name).read_text("utf-8").split("\n")
        return {record: json.loads(lines[record])["text"] for record in records}
    pages = read_pages(RangeFile(str(data / name)), 8 << 20)
    return {one.offset: rendered(one) for one in pages if isinstance(one, Page) and one.offset in records}


def labelled(data: Path) -> dict[tuple[str, int], tuple[str, list[tuple[int, int]]]]:
    """(text, ranges of its telephone numbers) of every labelled record."""
    rows = list(csv.DictReader((FOLDER / "phones.csv").open(encoding="utf-8")))
    ranges: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for row in rows:
        ranges.setdefault((row["file"], int(row["record"])), []).append((int(row["start"]), int(row["end"])))
    found = {}
    for name, record in ranges:
        wanted = frozenset(other for file, other in ranges if file == name)
        found[name, record] = texts(data, name, wanted)[record], ranges[name, record]
    for row in rows:
        number = found[row["file"], int(row["record"])][0][int(row["start"]) : int(row["end"])]
        assert hashlib.sha256(number.encode()).hexdigest()[:8] == row["sha256"], f"other data than was labelled: {row}"
    return found


def is_masked(text: str, start: int, end: int, spans: list[tuple[int, int]]) -> bool:
    """Whether all digits of a number are masked, and no letter or digit beside it with them."""
    touching = [(first, last) for first, last in spans if first < end and start < last]
    masked = {place for first, last in touching for place in range(first, last) if text[place].isalnum()}
    return masked == {place for place in range(start, end) if text[place].isalnum()}


def test_phones_of_real_pages_are_masked_and_lookalikes_stay(data_dir):
    labels = labelled(data_dir)
    count = hit = 0
    missed = []
    for (name, record), (text, ranges) in labels.items():
        spans = list(phones.spans(text))
        kept = [(name, record, *one) for one in ranges if not is_masked(text, *one, spans)]
        count, hit = count + len(ranges), hit + len(ranges) - len(kept)
        missed += kept
    wrong = [text for _, text in LOOKALIKES if any(phones.spans(text))]
    recall, precision = hit / count, hit / (hit + len(wrong))
    print(f"{count} numbers of {len(labels)} records: recall {recall:.3f}, precision {precision:.3f}")
    assert recall >= MIN_RECALL, missed
    assert precision >= MIN_PRECISION, wrong


def test_there_are_enough_numbers_and_lookalikes_of_many_places_and_kinds(data_dir):
    labels = labelled(data_dir)
    assert sum(len(ranges) for _, ranges in labels.values()) >= 200
    assert len(labels) >= 100
    assert max(len(ranges) for _, ranges in labels.values()) <= 7
    assert len({text for _, text in LOOKALIKES}) >= 200
    assert len({kind for kind, _ in LOOKALIKES}) >= 15


@pytest.mark.parametrize(
    ("spans", "expected"),
    [([(6, 19)], True), ([(5, 20)], True), ([(6, 12), (12, 19)], True), ([(6, 18)], False), ([(0, 19)], False), ([], False)],
)  # fmt: skip
def test_a_number_counts_as_masked_when_all_of_it_and_nothing_else_is(spans, expected):
    assert is_masked("phone 030 123 45 67, x", 6, 19, spans) is expected


@pytest.mark.parametrize(
    "number",
    [
        "Tel:|+49 30 1234567|", "Tel.:|030/1234567|", "Tel/|+49 30 1234567|", "|+49 (0)40 / 49 07 11 06|", "|+49 (0)40 1234567|", "|(+48) 22 123 45 67|",
        "|+43 – (0)1 – 361 88 98-98|", "|+49 431 – 5 36 22 67|", "|(0 30) 12 34 56-0|", "|0 61 51 / 405 -0|", "|0800 6 888 000|", "|0201.2402-403|",
        "|+7(495)609-44-44|", "|0043(0) 316/82 16 36|", "|1 (876) 555-0123-4|", "|415 555-2671|", "mail@example|(509) 459-5382|", "Hotline|0800 433 88 77|",
        "Tél : |71 341 066|", "Teléfono: |22669086|", "电话：|13611778776|", "Call us today on |555-0123|", "Phone (office): |202 483 7600|", "tālr. |64202543|",
        "|+49 30 1234567|, |+49 30 1234568|", "Contact: |624-6456|; |225-8452| or |225-8458|", "|021-56692669| |13917985004|", "|+4930123456| / |030 123457|",
        "電話|０３－１２３４－５６７８|まで", "|＋８１　３　１２３４　５６７８|", "هاتف: |٠٢١-١٢٣٤٥٦٧|", "फ़ोन: |०२२ १२३४ ५६७८|", "|+41 58 765 5104|E-Mail",
    ],
)  # fmt: skip
def test_a_number_is_masked_whole_and_nothing_with_it(number):
    """Bars show where the numbers begin and end."""
    parts = number.split("|")
    assert [number.replace("|", "")[start:end] for start, end in phones.spans(number.replace("|", ""))] == parts[1::2]


@pytest.mark.parametrize(
    "text",
    ["Telex 1234567", "n+1000000 of x", "IBAN DE89 0370 4004 4053 2013 00", "DE89 3704 0044 0532 0130 00", "Artikel-Nr. 030-1234567", "GSM 900/1800", "fundur 0055/2005"],
)  # fmt: skip
def test_what_only_looks_like_a_number_stays(text):
    assert list(phones.spans(text)) == []


def test_the_zeros_are_those_of_unicode():
    """Every zero of the basic plane is listed, and each is followed by its nine digits."""
    known = [chr(point) for point in range(0x10000) if unicodedata.decimal(chr(point), None) == 0]
    assert list(phones.ZEROS) == known
    assert all(unicodedata.decimal(chr(ord(zero) + value)) == value for zero in known for value in range(10))


def test_a_run_keeps_its_places_in_ascii():
    run = "（０３）　１２３４－５６７８／＋٣．५\u2013\u00a0\u2011"
    assert run.translate(phones.ASCII) == "(03) 1234-5678/+3.5- -"
    assert phones.RUN.fullmatch(run)
