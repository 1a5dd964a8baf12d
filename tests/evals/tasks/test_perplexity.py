"""Bits per byte, of texts whose likelihood is known."""

import math
from pathlib import Path

import pytest

from contract.errors import InputError
from evals.grading import grade, report
from evals.records import Output
from evals.tasks.perplexity import PERPLEXITY
from evals.tasks.prompts import Prompt, prompt
from evals.tasks.published import read_items


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "texts.jsonl").write_text('{"text": "abcd", "id": "one"}\n{"text": "中文ab", "source": "zh"}\n')
    return tmp_path / "texts.jsonl"


def test_the_whole_text_is_scored_without_a_context(texts: Path) -> None:
    items = read_items(PERPLEXITY, texts)
    assert [(one.id, one.source, one.answers) for one in items] == [("one", "one", ("4",)), ("texts/1", "zh", ("8",))]
    assert prompt(PERPLEXITY, items[1]) == Prompt("", (), (("", "中文ab"),), ())


def test_bits_per_byte_are_those_of_all_bytes_together(texts: Path) -> None:
    """4 bytes at 2 bits each and 8 bytes at 5 bits each are 12 bytes at 4 bits each."""
    items = read_items(PERPLEXITY, texts)
    outputs = {"one": [Output(logprobs=(-8 * math.log(2),))], "texts/1": [Output(logprobs=(-40 * math.log(2),))]}
    records = grade(PERPLEXITY, items, outputs, lambda item: prompt(PERPLEXITY, item))
    assert [one.extracted for one in records] == ["2 bits per byte", "5 bits per byte"]
    assert [one.score for one in records] == pytest.approx([2**-2, 2**-5])
    made = report(records)
    assert made.bits_per_byte is not None
    assert made.bits_per_byte.mean == pytest.approx(4, abs=1e-4)
    assert made.bits_per_byte.low < 4 < made.bits_per_byte.high
    assert made.ability == "language"


def test_a_likelihood_that_is_no_number_is_not_counted_as_one(texts: Path) -> None:
    items = read_items(PERPLEXITY, texts)
    outputs = {one.id: [Output(logprobs=(math.nan,))] for one in items}
    made = report(grade(PERPLEXITY, items, outputs, lambda item: prompt(PERPLEXITY, item)))
    assert (made.score.mean, made.extraction_rate, made.bits_per_byte) == (0, 0, None)


def test_a_plain_text_file_is_one_text(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("One.\n\nTwo.\n")
    (item,) = read_items(PERPLEXITY, tmp_path / "book.txt")
    assert (item.id, item.question) == ("book/0", "One.\n\nTwo.\n")


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(InputError, match="its text is empty"):
        read_items(PERPLEXITY, tmp_path / "texts.jsonl")
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n')
    items = read_items(PERPLEXITY, tmp_path / "texts.jsonl")
    with pytest.raises(InputError, match="is one text, and its output has 2 log-likelihoods"):
        grade(PERPLEXITY, items, {items[0].id: [Output(logprobs=(-1.0, -2.0))]}, lambda item: prompt(PERPLEXITY, item))
    assert PERPLEXITY.grade(items[0], "a").extracted is None
