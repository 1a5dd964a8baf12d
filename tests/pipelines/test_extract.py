"""extract: character sets, cleaning, hostile pages, and the stage on a real Spark."""

import gzip
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.guard import Guard, Outcome, Reply
from contract.manifest import File
from contract.schema import DOCUMENTS, PAGES
from contract.settings.corpus import Extract
from contract.tables import read_rows
from pipelines import extract
from pipelines.extract import clean, decode, extract_page, plain_tables, read_digests, share_out, sort_page
from pipelines.html import maintext
from pipelines.spark.documents import DocumentSink
from pipelines.spark.tables import TableWriter

pytestmark = pytest.mark.usefixtures("without_spark")


@pytest.mark.parametrize(
    ("payload", "declared", "text"),
    [
        ("Grüße".encode(), None, "Grüße"),
        ("Grüße".encode(), "iso-8859-1", "Grüße"),  # a server's default against bytes that are UTF-8
        ("Grüße".encode("latin-1"), "iso-8859-1", "Grüße"),
        ("5 € “x”".encode("cp1252"), "iso-8859-1", "5 € “x”"),  # as browsers read the label
        (b"\xef\xbb\xbf" + "Grüße".encode(), "koi8-r", "Grüße"),
        (b"\xff\xfe" + "Grüße".encode("utf-16-le"), None, "Grüße"),
        ("Привет".encode("koi8-r"), "koi8-r", "Привет"),
        ('<meta charset="windows-1251">Привет, мир'.encode("cp1251"), None, '<meta charset="windows-1251">Привет, мир'),
        ("<META http-equiv=x content='text/html; charset=gb2312'>汉字".encode("gbk"), None, None),
        ("<meta charset=utf-16>Grüße".encode("latin-1"), None, None),
        (
            "日本語の文章です。これは検出のための長い文です。".encode("shift_jis"),
            "made-up",
            "日本語の文章です。これは検出のための長い文です。",
        ),
        ("Grüß".encode()[:-1], None, "Grü"),  # cut off in mid-character by a crawler's limit
        (b"", None, ""),
    ],
)
def test_decode(payload, declared, text):
    found = decode(payload, declared)
    if text is None:
        assert "汉字" in found or "Grüße" in found
    else:
        assert found == text


ENGLISH = "<meta charset=utf-8><p>" + "plain words and more of them " * 20


@pytest.mark.parametrize(
    ("payload", "declared", "shown"),
    [
        (ENGLISH.encode() + b"it\xe2\x80s broken" + "café".encode(), "utf-8", "it\ufffds brokencafé"),
        (ENGLISH.encode() + b"it\xe2\x80s broken", "utf-8", "it\ufffds broken"),
        ("Grüße, so ".encode() * 12 + b"\xe2\x80 und mehr", "iso-8859-1", "Grüße, so Grüße"),
        (ENGLISH.encode() + "“so”".encode("cp1252"), "utf-8", "“so”"),  # declared wrongly: no part of it is UTF-8
        ("똠방각하 펲시콜라".encode("cp949"), "euc-kr", "똠방각하 펲시콜라"),
        ("①㈱髙島屋".encode("cp932"), "shift_jis", "①㈱髙島屋"),
        ("嘅啲咗 係咁".encode("big5hkscs"), "big5", "嘅啲咗 係咁"),
        ("朱镕基 €".encode("gb18030"), "gb2312", "朱镕基 €"),
        ("ไทย “”".encode("cp874"), "tis-620", "ไทย “”"),
        ("한국어 문장입니다. ".encode("cp949") * 30 + b"\xff!", "euc-kr", "한국어 문장입니다. \ufffd!"),
    ],
)
def test_what_browsers_show_of_a_page_with_few_wrong_bytes(payload, declared, shown):
    assert shown in decode(payload, declared)


@given(
    st.binary(max_size=300),
    st.none() | st.sampled_from(["utf-8", "latin-1", "nonsense", "utf-16", "hz", "x-user-defined", "idna", "rot13"]),
)
def test_decode_never_fails(payload, declared):
    decode(payload, declared).encode()  # a lone surrogate would raise


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\n\n\n\nb", "a\n\nb"),
        ("a \r\n \r\n \t\r\nb", "a\n\nb"),
        ("see https://a.test/x?y=1, or (www.b.test/c).", "see , or ()."),
        ("见https://a.test/路径。", "见路径。"),
        ("no\x00nul\x1b", "nonul"),
        ("a\x0cb word\x0bnext\x85line\u2028so\u2029on\x1cand\r\non", "a\nb word\nnext\nline\nso\non\nand\non"),
        ('see (https://ex.com/a),then"more" text', 'see (),then"more" text'),
        ("[link](https://a.com/x).Next", "[link]().Next"),
        ("https://a.com,b,c;next", ",b,c;next"),
        ("at https://münchen.de/path and http://例え.jp/x now", "at and now"),
        ("请访问www.example.com获取更多。", "请访问获取更多。"),
        ("in https://en.wikipedia.org/wiki/Mill_(building), or", "in , or"),
        ('<a href="http://a.test:8080/?q[]=1&b#c">', '<a href="">'),
        ("ftp://me:word@a.test/file.txt http://[::1]/x http://localhost.", "."),
        ("http://пример.рф/a", ""),
        ("Have you seen HTTPS://A.TEST/X? Or WWW.B.TEST?", "Have you seen ? Or ?"),
        (
            "http://例え.テスト/x",
            "http://例え.テスト/x",
        ),  # a last label of such a script could be the sentence: it stays
        ("https://a.test/f(x", "(x"),
        ("https://only.test", ""),
        ("a  b\u00a0c", "a b c"),
        ("Cafe\u0301 \u212b e\x00\u0301", "Caf\u00e9 \u00c5 \u00e9"),  # NFC, also of what stands together only now
    ],
)
def test_clean(text, cleaned):
    assert clean(text) == cleaned


@given(st.lists(st.sampled_from(["https://x.y/", *"ab \n\t\r.:/\u00a0"]), max_size=80).map("".join))
def test_cleaning_leaves_what_it_promises(text):
    once = clean(text)
    assert "\n\n\n" not in once
    assert once == once.strip()
    assert all(line == line.strip() for line in once.split("\n"))


def test_tables_without_their_frame():
    assert plain_tables("| | |\n|---|---|\n| a \\| b | c |\ntext") == "| a | b | c |\ntext"


ARTICLE = (
    "The river bends twice before it meets the old mill. Nobody has ground corn there since my grandmother was young. "
)
PAGE = f"<html><head><title>Mill &amp; river</title></head><body><nav>Home Login</nav><article><h1>Mill</h1><p>{ARTICLE * 4}</p></article><div id=comments><p>First comment here, long enough to count.</p></div></body></html>"


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse", "justext"])
def test_main_content_without_navigation_and_comments(extractor):
    title, text, twice = json.loads(extract_page(Extract(extractor=extractor), ("en",), PAGE.encode(), "html utf-8"))
    assert twice is False
    assert title == "Mill & river"
    assert text.count("The river bends twice") == 4
    assert "Login" not in text
    assert "First comment" not in text


def test_wet_text_passes_as_it_is():
    assert json.loads(extract_page(Extract(), ("en",), "Grüße\n\n\n\nvon hier".encode(), "text utf-8")) == [
        None,
        "Grüße\n\nvon hier",
        False,
    ]
    assert extract_page(Extract(), ("en",), b"  \n ", "text utf-8") == b""


@pytest.mark.parametrize(
    ("outcome", "said", "kept", "dropped", "twice"),
    [
        (Outcome.DONE, ["A title", "text é", True], "text é", None, True),
        (Outcome.DONE, [None, "text é", False], "text é", None, False),
        (Outcome.DONE, ["A title", "short", True], None, ("extract_empty", "5", "short"), True),
        (Outcome.DONE, ["A title", "", False], None, ("extract_empty", "0", "A title"), False),
        (Outcome.DONE, None, None, ("extract_empty", "0", ""), False),
        (Outcome.DONE, ["A title", "long " * 9, False], None, ("text_too_long", "45", "long " * 9), False),
        (Outcome.DONE, 0.25, None, ("language_prefilter", "0.25", "<p>" + "x" * 197), False),
        (Outcome.DONE, 1, None, ("language_prefilter", "1", "<p>" + "x" * 197), False),
        (Outcome.TIMEOUT, None, None, ("extract_timeout", "", "<p>" + "x" * 197), False),
        (Outcome.MEMORY, None, None, ("extract_memory", "", "<p>" + "x" * 197), False),
    ],
)  # fmt: skip
def test_what_became_of_a_page(outcome, said, kept, dropped, twice, tmp_store, monkeypatch):
    monkeypatch.setattr(extract, "MAX_CHARS", 44)
    payload = b"<p>" + b"x" * 400
    row = dict.fromkeys(PAGES.names) | {"id": "1", "url": "u", "offset": 5, "payload": payload}
    sink = DocumentSink(tmp_store, "out", "extract", "0")
    reply = Reply(outcome, b"" if said is None else json.dumps(said).encode())
    assert sort_page(row, reply, Extract(min_chars=6), sink) is twice
    output = sink.close()
    (found,) = [row for file in output.listed() for row in read_rows(tmp_store, file.path)]
    if dropped:
        assert (found["reason"], found["value"], found["snippet"]) == dropped
    else:
        assert (found["text"], found["title"], found["source"], found["offset"]) == (kept, said[0], "crawl", 5)
    assert (output.counts.bytes_read, output.counts.bytes_kept) == (403, len(kept.encode()) if kept else 0)


def test_a_page_is_foreign_only_where_somebody_asks(monkeypatch):
    monkeypatch.setattr(extract, "foreign", lambda *_: 0.75)
    page = b"<html><body><p>" + b"Some words of a page that is long enough. " * 9 + b"</p></body></html>"
    assert json.loads(extract_page(Extract(prefilter_probability=0.5), ("en",), page, "html ")) == 0.75
    assert extract_page(Extract(prefilter_probability=0.5), ("en",), b"text", "text ") == b'[null, "text", false]'
    for settings, languages in ((Extract(prefilter_probability=0), ("en",)), (Extract(prefilter_probability=0.5), ())):
        assert "Some words" in json.loads(extract_page(settings, languages, page, "html "))[1]


def test_a_worker_is_made_ready_once(monkeypatch):
    """The libraries log each page they cannot read, and are garbage that a task's collection would look through each time."""
    frozen = []
    monkeypatch.setattr("gc.freeze", lambda: frozen.append(1))
    monkeypatch.setattr(extract, "model", pytest.fail)
    extract.guard_for.cache_clear()
    for name in ("trafilatura", "htmldate"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    settings = Extract(prefilter_probability=0)
    assert extract.guard_for(settings, ("en",)) is extract.guard_for(settings, ("en",))
    extract.guard_for(Extract(prefilter_probability=0.5), ())
    assert frozen == [1, 1]
    assert {logging.getLogger(name).level for name in ("trafilatura", "htmldate")} == {logging.CRITICAL}
    extract.guard_for.cache_clear()


def test_copies_go_where_their_payload_comes_first():
    files = [File(path=path, kind="pages", bytes=1, rows=3) for path in "wxyz"]
    shares = share_out([files[:2], files[2:]], {"w": ["a", "b", "a"], "x": ["b"], "y": ["c", "a"], "z": ["c", "d"]})
    assert [share.skip for share in shares] == [{"w": {2}, "x": {0}}, {"y": {1}, "z": {0}}]
    assert [share.copies for share in shares] == [{"w": [2], "x": [0], "y": [1]}, {"z": [0]}]


def test_equal_payloads_of_a_segment_are_worked_on_once(tmp_path, tmp_store, monkeypatch):
    """Four files in three tasks; a copy under another charset is worked on again, by the task that has the payload."""
    worked = []

    class Counting(Guard):
        def call(self, body, note):
            worked.append((body, note))
            return Reply(Outcome.DONE, json.dumps([None, body.decode() * 9, body == b"one"]).encode())

    pages = [["one", "two", "one"], ["two", "three"], ["one U", "four"], ["four", "one"]]
    files = []
    for number, names in enumerate(pages):
        writer = TableWriter(tmp_store, f"pages-{number}.parquet", "pages", PAGES)
        for row, name in enumerate(names):
            body, _, charset = name.partition(" ")
            place = {"id": f"{number}.{row}", "digest": body, "charset": charset, "kind": "html"}
            writer.write(dict.fromkeys(PAGES.names) | place | {"payload": body.encode()})
        files += writer.close()
    monkeypatch.setattr(extract, "guard_for", lambda *_: Counting(lambda body, note: "", 1, 100))
    shares = share_out([files[:1], files[1:3], files[3:]], read_digests(tmp_store, files))
    outputs = [
        extract._work(tmp_store, "out", Extract(min_chars=1), (), share, f"{number}")
        for number, share in enumerate(shares)
    ]
    assert worked == [
        (b"one", "html "), (b"one", "html U"), (b"two", "html "), (b"three", "html "), (b"four", "html "),
    ]  # fmt: skip
    found = [
        [(row["id"], row["text"]) for file in output.listed() for row in read_rows(tmp_store, file.path)]
        for output in outputs
    ]
    assert found == [
        [(place, "one" * 9) for place in ("0.0", "0.2", "2.0", "3.1")]
        + [(place, "two" * 9) for place in ("0.1", "1.0")],
        [("1.1", "three" * 9), ("2.1", "four" * 9), ("3.0", "four" * 9)],
        [],
    ]
    assert sum(output.counts.read for output in outputs) == 9
    assert [output.metrics for output in outputs] == [
        {"extracted_twice": 4},
        {"extracted_twice": 0},
        {"extracted_twice": 0},
    ]


def test_titles_are_nfc():
    page = PAGE.replace("Mill &amp; river", "Cafe&#x301;")
    assert json.loads(extract_page(Extract(), ("en",), page.encode(), "html utf-8"))[0] == "Caf\u00e9"


def test_both_extractions_of_a_page_stand_under_one_limit(monkeypatch):
    """Both are made in one call of the guard: a second one that never ends costs the page, and no page that needs only the first."""

    def main_text(page, fast):
        while not fast and "endless" in page:
            pass
        return "A teaser." if fast and "<main>" in page else ARTICLE * 10

    monkeypatch.setattr(maintext, "main_text", main_text)
    extract.guard_for.cache_clear()
    guard = extract.guard_for(Extract(seconds_per_page=1.0, prefilter_probability=0), ())
    missed = f"<html><body><main>{f'<p>{ARTICLE}</p>' * 20}</main></body></html>"
    try:
        assert json.loads(guard.call(PAGE.encode(), "html ").text)[2] is False
        assert json.loads(guard.call(missed.encode(), "html ").text)[1:] == [(ARTICLE * 10).strip(), True]
        assert guard.call(missed.replace("river", "endless").encode(), "html ").outcome is Outcome.TIMEOUT
    finally:
        guard.close()
        extract.guard_for.cache_clear()


HOSTILE = {
    "attributes": b"<html><body><p " + b" ".join(b'a%d="x"' % n for n in range(300_000)) + b">x</p></body></html>",
    "paragraphs": b"<html><body>" + b"<p>some words here</p>" * 200_000 + b"</body></html>",
    "divs": b"<html><body>" + b"<div>" * 100_000 + b"text" + b"</div>" * 100_000 + b"</body></html>",
}


def test_hostile_pages_cost_only_themselves(tmp_path, resolve_run, run_stage, rows_of):
    """300,000 attributes hold lxml for minutes; 200,000 paragraphs and 100,000 nested elements need more memory than they may have."""
    bodies = {**HOSTILE, "good": PAGE.encode(), "wrong": b"\x00\xff" * 200, "empty": b"<html><body></body></html>"}
    records = []
    for name, body in bodies.items():
        http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.test/{name}\r\nContent-Type: application/http\r\nContent-Length: {len(http)}\r\n\r\n"
        records.append(gzip.compress(head.encode() + http + b"\r\n\r\n"))
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "hostile.warc.gz").write_bytes(b"".join(records))
    run = resolve_run(
        tmp_path / "crawl",
        {"extract.seconds_per_page": 1.0, "extract.memory_mb_per_page": 64, "extract.prefilter_probability": 0},
    )
    run_stage(run, "crawl")
    [manifest] = run_stage(run, "extract")
    drops = {row["url"].rpartition("/")[2]: row["reason"] for row in rows_of(run.store, [manifest], "drops")}
    assert drops.pop("attributes") == "extract_timeout"
    assert drops.pop("paragraphs") in ("extract_memory", "extract_timeout")
    assert drops.pop("divs") in ("extract_memory", "extract_timeout", "extract_empty")
    assert drops == {"wrong": "extract_empty", "empty": "extract_empty"}
    [document] = rows_of(run.store, [manifest], "documents")
    assert list(document) == DOCUMENTS.names
    assert (document["url"], document["title"], document["language"], document["source"]) == (
        "http://a.test/good",
        "Mill & river",
        None,
        "crawl",
    )
    assert (manifest.rows.read, manifest.rows.kept) == (6, 1)


def test_the_stage_keeps_every_copy(tmp_path, resolve_run, run_stage, rows_of, capfd):
    """Equal pages in two crawl files of a segment: one share holds both, and no other task has a document."""
    (tmp_path / "crawl").mkdir()
    for name in "ab":
        http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE.encode()
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://{name}.test/\r\nContent-Type: application/http\r\nContent-Length: {len(http)}\r\n\r\n"
        record = gzip.compress(head.encode() + http + b"\r\n\r\n")
        (tmp_path / "crawl" / f"{name}.warc.gz").write_bytes(record * 100)
    run = resolve_run(tmp_path / "crawl", {"extract.prefilter_probability": 0})
    run_stage(run, "crawl")
    [manifest] = run_stage(run, "extract")
    assert len(manifest.of("documents")) == 1
    documents = rows_of(run.store, [manifest], "documents")
    assert [row["file"].rpartition("/")[2][0] for row in documents] == ["a"] * 100 + ["b"] * 100
    assert len({row["id"] for row in documents}) == 200
    assert len({row["text"] for row in documents}) == 1
    assert (manifest.rows.read, manifest.rows.kept) == (200, 200)
    assert manifest.metrics == {"extracted_twice": 0}
    assert "extracted twice: 0 of 200 pages (0.0%)" in capfd.readouterr().out


def test_real_pages_against_their_gold_text(data_dir, tmp_path):
    """Word overlap with the article-extraction benchmark's gold text; measured .96 (F1 of 4-word shingles) over the whole of it."""
    from pipelines.warc.pages import read_pages
    from pipelines.warc.rangefile import RangeFile
    from pipelines.warc.record import Page

    gold = json.loads((data_dir / "html_gold" / "aeb_ground-truth.dev.json").read_text())
    by_url = {row["url"]: row["articleBody"] for row in gold.values() if row.get("url")}
    scores = []
    for page in read_pages(RangeFile(str(data_dir / "html_gold" / "aeb.dev.warc.gz")), 8 << 20):
        if isinstance(page, Page) and page.url in by_url and len(scores) < 30:
            found = extract_page(Extract(prefilter_probability=0), ("en",), page.payload, f"html {page.charset or ''}")
            text = json.loads(found)[1] if found else ""
            scores.append(shingle_f1(text, by_url[page.url]))
    assert len(scores) == 30
    assert sum(scores) / len(scores) > 0.9


def shingle_f1(text, gold):
    ours, theirs = ({tuple(words[i : i + 4]) for i in range(len(words) - 3)} for words in (text.split(), gold.split()))
    both = len(ours & theirs)
    return 2 * both / (len(ours) + len(theirs)) if both else 0.0
