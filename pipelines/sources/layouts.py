"""How the rows of published corpora become documents: one pure function for each layout, and how a layout is known.

docs/sources.md shows a row of each. Fields that are not named here are left out.
"""

import datetime
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import xxhash

from contract.examples import MAX_LINE_BYTES, Unusable, clean
from contract.schema import Drop
from pipelines.sources.columns import CODE_PATH, CODE_REPO, CODE_TEXT, DATE, LICENSE, URL

LANGUAGE_TAG = re.compile(r"([a-z]{2,3})(?:[-_][A-Za-z0-9_-]{1,20})?", re.IGNORECASE)
MAX_FIELD_CHARS = 2048  # of a title, URL, licence or path: no table is spoilt by a text in the wrong field

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What a row says of a document. `key` is the publisher's own name for it, empty if the row has none that lasts.

    `repo` and `path` are a file's place in its repository. `probability` is that of `language`, if it was measured.
    """

    text: str
    key: str = ""
    url: str | None = None
    date: datetime.datetime | None = None
    title: str | None = None
    language: str | None = None
    probability: float | None = None
    license: str | None = None
    repo: str = ""
    path: str = ""

    def id(self, source: str) -> str:
        """32 hexadecimal digits, from the source's name and the document's own key, or else its text.

        So it stays the same when the source grows, is cut into other files, or lies elsewhere.
        """
        return xxhash.xxh3_128_hexdigest(f"{source}\n{self.key or self.text}".encode())


def text_of(row: Fields, *names: str) -> str:
    """The text under the first of these names that the row has. Raises Unusable if there is none that can be used."""
    value = _first(row, names)
    if value is None:
        raise Unusable(Drop.MISSING_TEXT, names[0])
    if not isinstance(value, str):
        raise Unusable(Drop.NOT_A_TEXT, names[0])
    if len(value) > MAX_LINE_BYTES or len(value.encode("utf-8", "surrogatepass")) > MAX_LINE_BYTES:
        raise Unusable(Drop.ROW_TOO_LONG, f"{len(value):,} characters")
    text = clean(value)
    if not text:
        raise Unusable(Drop.EMPTY_TEXT, names[0])
    return text


def _first(row: Fields, names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def table(row: Fields, *names: str) -> Fields:
    """The first of these fields as a table, also if it is one written as JSON; empty if it is neither."""
    value = _first(row, names)
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    return value if isinstance(value, Mapping) else {}


def word(row: Fields, *names: str) -> str | None:
    """A short field as text, a list as its distinct entries in order; None if it is absent or cannot be stored."""
    value = _first(row, names)
    if isinstance(value, list | tuple):
        value = ", ".join(sorted({one for one in value if isinstance(one, str)}))
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    with suppress(Unusable):
        return clean(str(value)[:MAX_FIELD_CHARS]) or None
    return None


def language(row: Fields, *names: str) -> str | None:
    """A language as its ISO 639 code: `zh` of `zh_Hans`. None for anything else, such as a language of programs."""
    tag = _first(row, names)
    match = LANGUAGE_TAG.fullmatch(tag) if isinstance(tag, str) else None
    return match[1].lower() if match else None


def number(row: Fields, name: str) -> float | None:
    """A number; None if it is absent, not a number, or too large for one."""
    value = row.get(name)
    with suppress(OverflowError):
        return float(value) if isinstance(value, float | int) else None
    return None


def moment(row: Fields, *names: str) -> datetime.datetime | None:
    """A date in ISO 8601 or of Parquet, in UTC if it names no other zone; None if it is absent or not a date."""
    value = _first(row, names)
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if not isinstance(value, datetime.datetime):
        return None
    with suppress(OverflowError):
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return aware.astimezone(datetime.UTC).replace(microsecond=0)
    return None


def described(found: Found, *rows: Fields) -> Found:
    """The document with what the first of these tables that has it says of its URL, date, title and so on."""
    known: dict[str, Any] = {}
    for row in reversed(rows):
        said: dict[str, Any] = {"url": word(row, *URL), "date": moment(row, *DATE), "title": word(row, "title")}
        said |= {"language": language(row, "language", "lang"), "license": word(row, *LICENSE)}
        known |= {name: value for name, value in said.items() if value is not None}
    return replace(found, **known)


def plain(row: Fields) -> Found:
    """`text` or `content`, and optionally url, date or timestamp, title, language, license."""
    return described(Found(text_of(row, "text", "content")), row)


def pile(row: Fields) -> Found:
    """The Pile: `text`, `meta: {pile_set_name}`."""
    return described(Found(text_of(row, "text")), table(row, "meta"))


def oscar(row: Fields) -> Found:
    """OSCAR: `content` (22.01 and later) or `text`, WARC headers, and the identified language of the whole text."""
    meta = table(row, "metadata", "meta")
    headers = table(row, "warc_headers") or table(meta, "warc_headers")
    said = table(meta, "identification")
    return replace(
        described(Found(text_of(row, "content", "text"), word(headers, "warc-record-id") or ""), headers),
        language=language(said, "label"),
        probability=number(said, "prob"),
    )


def wudao(row: Fields) -> Found:
    """WuDao: `title` and `content`, which becomes the text after the title."""
    title, body = word(row, "title"), text_of(row, "content")
    text = f"{title}\n\n{body}" if title and not body.startswith(title) else body
    return described(Found(text, word(row, "uniqueKey") or ""), row)


def dolma(row: Fields) -> Found:
    """Dolma: `id`, `text`, `source`, `added`, `created`, `metadata`."""
    key, source = word(row, "id"), word(row, "source")
    return described(Found(text_of(row, "text"), f"{source} {key}" if key else ""), table(row, "metadata"), row)


def redpajama(row: Fields) -> Found:
    """RedPajama: `text`, and `meta` as a table or as one written in JSON."""
    meta = table(row, "meta")
    title = word(meta, "title", "short_book_title", "repo_name")
    return replace(described(Found(text_of(row, "text")), meta), title=title)


def code(row: Fields) -> Found:
    """A file of a repository: its repository, path, content and license, under the names that datasets use."""
    meta = table(row, "meta")
    repo, path = (word(row, *names) or word(meta, *names) for names in (CODE_REPO, CODE_PATH))
    if not repo or not path:
        raise Unusable(Drop.MISSING_TEXT, "path" if repo else "repo")
    found = described(Found(text_of(row, *CODE_TEXT), f"{repo}\n{path}", repo=repo, path=path), row, meta)
    return replace(found, title=f"{repo}/{path}", language=None)  # `language` is that of the program


def whole(row: Fields) -> Found:
    """A file of plain text."""
    return Found(text_of(row, "text"))


LAYOUTS: dict[str, tuple[Callable[[Fields], bool], Callable[[Fields], Found]]] = {
    "code": (lambda row: all(_first(row, names) for names in (CODE_REPO, CODE_PATH, CODE_TEXT)), code),
    "wudao": (lambda row: {"title", "content"} <= row.keys() and not {"text", "url"} & row.keys(), wudao),
    "oscar": (lambda row: bool({"warc_headers", "identification"} & {*row, *table(row, "metadata", "meta")}), oscar),
    "dolma": (lambda row: {"id", "text", "source"} <= row.keys() and bool({"added", "metadata"} & row.keys()), dolma),
    "pile": (lambda row: "text" in row and "pile_set_name" in table(row, "meta"), pile),
    "redpajama": (lambda row: {"text", "meta"} <= row.keys(), redpajama),
    "plain": (lambda row: bool({"text", "content"} & row.keys()), plain),
    "text": (lambda _: False, whole),
}
"""Layout -> (whether a row looks like one, what it says). The first that fits is taken, so the strictest come first.

Files of plain text are known by their names.
"""


def detect(rows: Iterable[Any]) -> str | None:
    """The layout that most of these rows have; None if none of them has one."""
    tables = [row for row in rows if isinstance(row, Mapping)]
    names = (next((name for name, (fits, _) in LAYOUTS.items() if fits(row)), None) for row in tables)
    votes = Counter(filter(None, names))
    return votes.most_common(1)[0][0] if votes else None


def read_row(layout: str, value: Any) -> Found:
    """A row as a document. Raises Unusable."""
    if isinstance(value, Unusable):
        raise value
    if not isinstance(value, Mapping):
        raise Unusable(Drop.NOT_AN_OBJECT)
    return LAYOUTS[layout][1](value)
