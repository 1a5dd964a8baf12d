"""The bench of languages writes where it is told to, and the documentation's page is what it writes."""

import io
import sys
import tarfile
from pathlib import Path

import pytest

from perf import language

PAGE = Path(__file__).parents[2] / "docs" / "language-identification.md"


def test_it_writes_nothing_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lid").mkdir()
    with tarfile.open(tmp_path / "lid" / "lingua_sentences_75langs.tar.xz", "w:xz") as archive:
        for code in language.STOP_WORD_LANGUAGES:
            member = tarfile.TarInfo(f"{code}.txt")
            member.size = len(data := b"This is a sentence of some words.\n")
            archive.addfile(member, io.BytesIO(data))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["language", "--data", str(tmp_path)])
    assert language.main() == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lingua_sentences_75langs.tar.xz"]


def test_the_page_is_what_the_bench_writes() -> None:
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    missing = {"lg", "mi", "sn", "so", "st", "tn", "ts", "xh", "yo", "zu"}
    f1 = {line.split()[1]: float(line.split()[1] not in missing) for line in table[2:]}
    written = language.page(table, f1, 0.65).splitlines()
    assert written[:-1] == PAGE.read_text().splitlines()[:-1]
    assert "Run the commands in the project's folder" in PAGE.read_text()
