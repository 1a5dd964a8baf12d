"""The report on a tokenizer: every figure by language, beside the reference, as a table and as bars."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from contract.errors import NotReadyError
from contract.fertility import Counts, Fertility, whole
from contract.kinds import Kind
from contract.manifest import Attempt
from contract.output import write_file
from contract.results import Tokenizer
from reports import charts, fertility

FOUND = Fertility(
    own={
        "en": Counts(documents=2, words=100, characters=500, bytes=500, tokens=125),
        "zh": Counts(documents=1, words=200, characters=200, bytes=600, tokens=150, unknown=3),
    },
    reference={
        "en": Counts(documents=2, words=100, characters=500, bytes=500, tokens=120),
        "zh": Counts(documents=1, words=200, characters=200, bytes=600, tokens=400),
    },
)


def test_figures_are_ratios_of_sums() -> None:
    zh = FOUND.own["zh"]
    assert (zh.tokens_per_word, zh.bytes_per_token, zh.unknown_rate) == (0.75, 4.0, 0.02)
    assert zh.characters_per_token == pytest.approx(4 / 3)
    assert whole(FOUND.own) == Counts(documents=3, words=300, characters=700, bytes=1100, tokens=275, unknown=3)
    assert Counts().bytes_per_token == 0


def test_the_table_has_a_row_for_each_language_and_one_for_all() -> None:
    assert fertility.table(FOUND)[2:] == [
        "| en | 2 | 1.25 / 1.20 | 4.00 / 4.17 | 4.00 / 4.17 | 0.00% / 0.00% |",
        "| zh | 1 | 0.75 / 2.00 | 4.00 / 1.50 | 1.33 / 0.50 | 2.00% / 0.00% |",
        "| all | 3 | 0.92 / 1.73 | 4.00 / 2.12 | 2.55 / 1.35 | 1.09% / 0.00% |",
    ]
    alone = fertility.table(FOUND.model_copy(update={"reference": None}))
    assert alone[2] == "| en | 2 | 1.25 | 4.00 | 4.00 | 0.00% |"


def test_bars_are_as_long_as_their_figures() -> None:
    drawn = fertility.chart(FOUND, "tiny")
    root = ElementTree.fromstring(drawn)
    words = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words[:3] == ["Tokenizer by language: tiny", "this run", "reference"]
    assert words.index("zh") < words.index("en"), "the language with most bytes comes first"
    width = {
        colour: [float(one) for one in re.findall(rf'width="([\d.]+)" height="{height}.0" fill="{colour}"', drawn)]
        for colour, height in ((charts.OURS, 13), (charts.THEIRS, 7))
    }
    assert width[charts.OURS] == pytest.approx([67.5, 112.5, 172.8, 172.8, 180, 0], abs=0.1)
    assert width[charts.THEIRS] == pytest.approx([180, 108, 64.8, 180, 0, 0], abs=0.1)
    assert charts.THEIRS + '"/>' in drawn


def test_the_command_writes_what_the_stage_measured(
    make_corpus: Any, make_document: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_corpus([[[make_document("text")]]])
    assert fertility.main(["--recipe", run.uri]) == NotReadyError.exit_code
    assert "tokenizer" in capsys.readouterr().err
    attempt = Attempt(run, run.task("tokenizer"))
    data = FOUND.model_dump_json().encode()
    file = write_file(run.store, attempt.path("fertility.json"), Kind.FERTILITY, data)
    figures = {"vocab_size": 1, "sample_bytes": 1, "sample_documents": 1, "heldout_bytes_per_token": 4.0}
    attempt.commit([file], result=Tokenizer(**figures))
    assert fertility.main(["--recipe", run.uri, "--output", str(tmp_path / "out" / "mine.md")]) == 0
    text = (tmp_path / "out" / "mine.md").read_text()
    assert "![figures by language](mine.svg)" in text
    assert fertility.table(FOUND)[3] in text
    ElementTree.parse(tmp_path / "out" / "mine.svg")
    assert fertility.main(["--recipe", run.uri]) == 0
    assert "| zh | 1 | 0.75 / 2.00 |" in capsys.readouterr().out
