"""Where the documents of a row come from: of the mixture's files, no more are read than it takes to find them."""

from types import SimpleNamespace
from typing import Any

import pytest

from contract import trace
from contract.kinds import Kind
from contract.manifest import File

ROWS: dict[str, list[dict[str, Any]]] = {
    "0": [{"id": "a", "url": "http://a.example/"}],
    "1": [],
    "2": [{"id": "b", "url": "http://b.example/", "file": "x.warc.gz", "offset": 7}, {"id": "c"}],
    "3": [],
}


@pytest.mark.parametrize(
    ("ids", "read", "pages"),
    [
        (["a"], ["0"], {"a": "http://a.example/"}),
        (
            ["a", "b", "c"],
            ["0", "1", "2"],
            {"a": "http://a.example/", "b": "http://b.example/  x.warc.gz at 7", "c": ""},
        ),
        (["a", "gone"], ["0", "1", "2", "3"], {"a": "http://a.example/"}),
    ],
)
def test_files_are_read_until_every_document_is_found(
    monkeypatch: pytest.MonkeyPatch, ids: list[str], read: list[str], pages: dict[str, str]
) -> None:
    files = [File(path=path, kind=Kind.DOCUMENTS, bytes=1, source="code") for path in ROWS]
    other = File(path="other", kind=Kind.DOCUMENTS, bytes=1, source="books")
    mixed = SimpleNamespace(of=lambda kind: [other, *files] if kind == Kind.DOCUMENTS else [])
    opened: list[str] = []

    def rows_of(store: Any, file: File, wanted: list[str]) -> list[dict[str, Any]]:
        opened.append(file.path)
        return [row for row in ROWS[file.path] if row["id"] in wanted]

    monkeypatch.setattr(trace, "read", lambda store, prefix: mixed)
    monkeypatch.setattr(trace, "_rows_of", rows_of)
    packed: Any = SimpleNamespace(inputs=[SimpleNamespace(stage="mix", prefix="mix")])
    tokens = File(path="t.bin", kind=Kind.TOKENS, bytes=1, source="code")
    store: Any = None
    assert trace._pages(store, packed, tokens, ids) == pages
    assert opened == read
