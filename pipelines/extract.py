"""extract: takes the main text of each page, in a child process that can be killed if a page takes too much."""

import codecs
import gc
import html
import json
import logging
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import justext
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from contract import results
from contract.guard import Guard, Outcome, Reply
from contract.kinds import Kind
from contract.manifest import File
from contract.schema import PAGES, Drop
from contract.settings.corpus import Extract
from contract.store import Store
from contract.tables import read_rows
from pipelines.html.maintext import Found, find_text, quicken
from pipelines.html.prefilter import foreign
from pipelines.spark.documents import DocumentSink, Output
from pipelines.spark.job import Job
from pipelines.spark.tables import group_rows
from pipelines.text.fasttext_model import model

GROUP_ROWS = 128  # pages of one Spark task: few, so that progress shows and all cores finish at about the same time
READ_ROWS = 16  # pages in memory at a time; one may have megabytes
READERS = 16  # page files whose digests are read at once: the reads are small and mostly wait for the store
MAX_CHARS = 2 << 20  # in a text. Bounds the later stages, too: they are linear and have no guard (at most 2 s a text)
BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
META_CHARSET = re.compile(
    rb"""<(?:meta\b[^>]{0,200}?charset|\?xml\b[^>]{0,100}?encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.I
)
UTF8_BEGINS = re.compile(rb"[\xc2-\xf4][\x80-\xbf]")
# Browsers decode these labels with larger character sets than Python does (https://encoding.spec.whatwg.org/#indexes).
WIDER = {
    "euc_kr": "cp949", "shift_jis": "cp932", "big5": "big5hkscs", "gbk": "gb18030", "gb2312": "gb18030",
    "iso8859-11": "cp874",
}  # fmt: skip
TITLE = re.compile(r"<title\b[^>]{0,200}>([^<]{1,1000})", re.IGNORECASE)
# Text in scripts without spaces, such as Chinese, can follow a URL directly. So a path matches only ASCII, and the last
# label of a host only scripts written with spaces.
URL_PART = r"[!#-'*-;=?-Z\\^-~]*"  # no quotes, no <>, no brackets: URL adds these in pairs that are not nested
URL = re.compile(
    r"(?<![A-Za-z0-9_])(?:(?:https?|ftp)://(?:[!#-.0-;=A-Z^-~]{1,99}@)?|www\.)"
    r"(?:\[[0-9A-F:.]+\]|(?:[\w-]{1,63}\.){0,20}[0-9A-Za-z_\u00c0-\u0dff-]+)(?::[0-9]+)?"
    rf"(?:[/?#]{URL_PART}(?:(?:\({URL_PART}\)|\[{URL_PART}\]){URL_PART})*(?<=[A-Za-z0-9/_=&#~+%$)\]-]))?",
    re.IGNORECASE,
)
JUSTEXT_NAMES = {
    "de": "German", "en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "ru": "Russian",
}  # fmt: skip
TABLE_FRAME = re.compile(r"\|[\s|:-]*")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")
DROPS = {
    Outcome.TIMEOUT: Drop.EXTRACT_TIMEOUT,
    Outcome.MEMORY: Drop.EXTRACT_MEMORY,
    Outcome.FAILED: Drop.EXTRACT_FAILED,
}


def decode(payload: bytes, declared: str | None) -> str:
    """Decode a page to text without lone surrogates. Never fails: undecodable bytes become U+FFFD.

    declared: the charset of the HTTP header. The first of these that applies decides:
    1. A byte order mark.
    2. Non-ASCII bytes that are valid UTF-8, except for a few: UTF-8, whatever is declared. Servers declare ISO-8859-1
       by default, and longer text in another encoding is never valid UTF-8 by chance.
    3. The header's charset, then that of `<meta>`, if every byte decodes.
    4. The same two in the same order, if all but a few bytes decode.
    5. Detection.
    """
    for mark, encoding in BOMS:
        if payload.startswith(mark):
            return payload[len(mark) :].decode(encoding, "replace")
    if not payload.isascii() and (text := _strictly(payload, "utf-8") or _nearly(payload, "utf-8", 10)) is not None:
        return text
    meta = META_CHARSET.search(payload[:4096])
    labels = (declared, meta[1].decode() if meta else None)
    encodings = [encoding for encoding in map(_python_encoding, labels) if encoding]
    for fit in (_strictly, _nearly):
        for encoding in encodings:
            if (text := fit(payload, encoding)) is not None:
                return text
    return payload.decode(_python_encoding(detect_encoding(payload)) or "utf-8", "replace")


def _python_encoding(label: str | None) -> str | None:
    """The codec that browsers use for a label, or None if they do not know the label.

    Labels of UTF-16 mean UTF-8, as in browsers: a `<meta>` tag that could be read as ASCII is not in UTF-16.
    """
    name = map_encoding_to_html5(label, fallback_utf8=False) if label else None
    try:
        codec = None if name is None else "utf-8" if name.startswith("utf-16") else codecs.lookup(name).name
    except LookupError:
        return None
    return WIDER.get(codec, codec) if codec else None


def _strictly(payload: bytes, encoding: str) -> str | None:
    """The decoded payload, or None if some bytes do not decode. Leaves out a character that is cut off at the end."""
    try:
        return codecs.getincrementaldecoder(encoding)("strict").decode(payload, False)
    except (UnicodeError, LookupError):
        return None


def _nearly(payload: bytes, encoding: str, sure: int = 1) -> str | None:
    """The payload decoded with U+FFFD for invalid bytes, or None if these are 1% of the characters or more.

    For UTF-8, the payload must also contain at least `sure` valid starts of multi-byte characters for each U+FFFD: a
    page in Latin script has few characters beyond ASCII, so the 1% alone proves little.
    """
    try:
        text = payload.decode(encoding, "replace")
    except (UnicodeError, LookupError):
        return None
    broken = text.count("\ufffd")
    if broken * 100 >= len(text):
        return None
    return text if encoding != "utf-8" or len(UTF8_BEGINS.findall(payload)) >= sure * broken else None


def clean(text: str) -> str:
    """Remove URLs, control characters, space at line ends, and newlines after two (RefinedWeb, section 3.1); apply NFC.

    Unicode can write é as one character or two. NFC makes texts comparable and character counts consistent for later
    stages.
    """
    text = CONTROL.sub("", "\n".join(text.splitlines()))  # every line break of Unicode, such as a form feed
    if "://" in text or "www." in text.lower():  # most texts have no URL; this test is cheaper than the search
        text = URL.sub("", text)
    lines = [re.sub(r"[ \t\u00a0]+", " ", line).strip() for line in text.split("\n")]
    return unicodedata.normalize("NFC", re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip())


def plain_tables(text: str) -> str:
    """Remove the frames of trafilatura's tables: empty rows, `|---|` rows, and backslashes before a `|` of the text."""
    rows = [line for line in text.split("\n") if not TABLE_FRAME.fullmatch(line.rstrip())]
    return "\n".join(rows).replace("\\|", "|")


def justext_paragraphs(page: str, languages: tuple[str, ...]) -> str:
    """The paragraphs that jusText does not take for boilerplate.

    Uses the stop words of the first language in `languages` that jusText has a list for, else those of English.
    """
    names = (JUSTEXT_NAMES.get(language) for language in languages)
    stop_words = justext.get_stoplist(next((name for name in names if name), "English"))
    return "\n".join(part.text for part in justext.justext(page, stop_words) if not part.is_boilerplate)


def main_content(settings: Extract, languages: tuple[str, ...], page: str) -> Found:
    """The text of a page from the configured extractor, not yet cleaned (trafilatura's without table frames)."""
    if settings.extractor == "resiliparse":
        text = extract_plain_text(page, main_content=True, comments=False, alt_texts=False, preserve_formatting=True)
        return Found(str(text), False)
    if settings.extractor == "justext":
        return Found(justext_paragraphs(page, languages), False)
    result = find_text(page, settings.seconds_per_page)
    return result._replace(text=plain_tables(result.text))


def extract_page(settings: Extract, languages: tuple[str, ...], payload: bytes, note: str) -> bytes:
    """Extract a page, in the child process. `note` is the page's kind and declared charset, separated by a space.

    Returns JSON: a list (title, text, whether the page was extracted twice), or a number, the probability of the wanted
    languages, for a page skipped as foreign. Returns empty bytes for a page without text.
    """
    kind, _, charset = note.partition(" ")
    page = decode(payload, charset)
    if kind == "html" and settings.prefilter_probability and languages:
        probability = foreign(page, languages, settings.prefilter_probability, model().f)
        if probability is not None:
            return json.dumps(probability).encode()
    if kind == "text":
        return _answer([None, text, False]) if (text := clean(page)) else b""
    title = TITLE.search(page)
    result = main_content(settings, languages, page)
    cleaned = clean(result.text)
    named = unicodedata.normalize("NFC", " ".join(html.unescape(title[1]).split())) if title else None
    return _answer([named, cleaned, result.twice]) if cleaned else b""


def _answer(value: list[Any]) -> bytes:
    return json.dumps(value).encode()


@lru_cache(maxsize=1)
def guard_for(settings: Extract, languages: tuple[str, ...]) -> Guard:
    """This worker's child process, kept from task to task."""
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it logs each page it cannot read
    logging.getLogger("htmldate").setLevel(logging.CRITICAL)
    if settings.prefilter_probability and languages:
        model()  # load before the fork, so that all children share the memory; quicken() likewise
    quicken()
    gc.freeze()  # Spark's daemon collects garbage after every task; do not let it scan the libraries
    return Guard(partial(extract_page, settings, languages), settings.seconds_per_page, settings.memory_mb_per_page)


@dataclass
class Share:
    """The work of one Spark task. A payload that many pages share is extracted once, where it first appears.

    files: the page files to work on. skip: by path of a page file, the numbers of its rows whose payload appeared
    before. copies: by path of any page file, the numbers of the rows that repeat a payload first seen in `files`.
    """

    files: list[File]
    skip: dict[str, set[int]] = field(default_factory=dict)
    copies: dict[str, list[int]] = field(default_factory=dict)


def share_out(groups: list[list[File]], digests: dict[str, list[str]]) -> list[Share]:
    """Make a Share of each group of files. `digests` has the payload digests of each file's rows, by path."""
    shares = [Share(files) for files in groups]
    first: dict[str, Share] = {}
    for share in shares:
        for path in (file.path for file in share.files):
            for number, digest in enumerate(digests[path]):
                if digest in first:
                    share.skip.setdefault(path, set()).add(number)
                    first[digest].copies.setdefault(path, []).append(number)
                else:
                    first[digest] = share
    return shares


def read_digests(store: Store, files: list[File]) -> dict[str, list[str]]:
    """The payload digests of each page file, by path. Reads no other column."""

    def read(file: File) -> list[str]:
        return [row["digest"] for row in read_rows(store, file, ["digest"])]

    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip((file.path for file in files), pool.map(read, files), strict=True))


def read_copies(store: Store, share: Share) -> dict[str, list[dict[str, Any]]]:
    """The rows of the share's copies, without their payload, by digest."""
    columns = [name for name in PAGES.names if name != "payload"]
    copies: dict[str, list[dict[str, Any]]] = {}
    for path, numbers in share.copies.items():
        wanted = set(numbers)
        for number, row in enumerate(read_rows(store, path, columns)):
            if number in wanted:
                copies.setdefault(row["digest"], []).append(row)
    return copies


def sort_page(row: dict[str, Any], reply: Reply, settings: Extract, sink: DocumentSink) -> bool:
    """Keep or drop a page according to the child's reply. Returns whether the page was extracted twice."""
    payload = row.pop("payload")
    if reply.outcome is not Outcome.DONE:
        sink.drop(row, DROPS[reply.outcome], reply.text, len(payload), snippet=payload[:200].decode("utf-8", "replace"))
        return False
    answer = json.loads(reply.data) if reply.data else (None, "", False)
    if isinstance(answer, float | int):
        sink.drop(
            row, Drop.LANGUAGE_PREFILTER, float(answer), len(payload), snippet=payload[:200].decode("utf-8", "replace")
        )
        return False
    title, text, twice = answer
    if not settings.min_chars <= len(text) <= MAX_CHARS:
        reason = Drop.EXTRACT_EMPTY if len(text) < settings.min_chars else Drop.TEXT_TOO_LONG
        sink.drop(row, reason, len(text), len(payload), snippet=text or title or "")
        return bool(twice)
    document = {key: row[key] for key in ("id", "url", "snapshot", "date", "file", "offset", "digest")}
    sink.keep({**document, "title": title, "source": "crawl", "text": text}, len(text.encode()), len(payload))
    return bool(twice)


def _work(store: Store, prefix: str, settings: Extract, languages: tuple[str, ...], share: Share, name: str) -> Output:
    sink = DocumentSink(store, prefix, "extract", name)
    guard = guard_for(settings, languages)
    copies = read_copies(store, share)
    twice = 0
    for file in share.files:
        skip = share.skip.get(file.path, ())
        for number, row in enumerate(read_rows(store, file, batch_rows=READ_ROWS)):
            if number not in skip:
                twice += sort_equals(row, copies.pop(row["digest"], []), guard, settings, sink)
    output = sink.close()
    output.metrics["extracted_twice"] = twice
    return output


def sort_equals(
    row: dict[str, Any], copies: list[dict[str, Any]], guard: Guard, settings: Extract, sink: DocumentSink
) -> int:
    """Keep or drop a page and its copies. Returns how many of them were extracted twice.

    Extracts their common payload once for each kind and declared charset.
    """
    payload, replies, twice = row["payload"], dict[str, Reply](), 0
    for page in (row, *copies):
        note = f"{page['kind']} {page['charset'] or ''}"
        if note not in replies:
            replies[note] = guard.call(payload, note)
        twice += sort_page(page | {"payload": payload}, replies[note], settings, sink)
    return twice


def run(job: Job) -> None:
    settings: Extract = job.settings
    files = job.inputs("crawl", Kind.PAGES)
    shares = share_out(group_rows(files, GROUP_ROWS), read_digests(job.store, files))
    languages = tuple(sorted(job.setting("langid.languages")))
    output = job.map_files(shares, partial(_work, job.store, job.prefix, settings, languages), "groups")
    twice, read = output.metrics["extracted_twice"], output.counts.read
    print(f"extracted twice: {twice:,} of {read:,} pages ({twice / max(read, 1):.1%})", flush=True)
    job.commit(output, results.Extract(extracted_twice=twice))
