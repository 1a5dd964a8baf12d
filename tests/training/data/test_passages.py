"""What models are measured on: the same characters for all of them, questions from text, questions from files."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.errors import InputError
from contract.settings.training import Probe
from training.data.passages import (
    Documents,
    Passage,
    after_word,
    next_sentences,
    question,
    read_documents,
    read_questions,
)
from training.engine.job import Job


def test_the_first_words_are_given() -> None:
    assert after_word("x" * 40 + " and more") == 40
    assert after_word("a" * 31 + " " + "b" * 4 + " c") == 36
    assert after_word("x" * 64 + " far") == 32
    assert Passage("ab é", 2).bytes == 3


def test_documents_of_the_held_out_files_are_read(make_job: Callable[..., Job]) -> None:
    job = make_job("probe")
    found = read_documents(job.store, job.manifest("mix"), Probe(documents=10, max_chars=256))
    assert [*found] == ["crawl"]
    crawl = found["crawl"]
    assert len(crawl.ids) == len(crawl.passages) == 10
    assert crawl.stands_for == 4, "of 40 held-out documents"
    assert all(one.text.startswith("The ") and one.text[one.given] == " " for one in crawl.passages)
    assert max(len(one.text) for one in crawl.passages) <= 256
    assert read_documents(job.store, job.manifest("mix"), Probe())["crawl"].stands_for == 1


def documents(texts: list[str]) -> dict[str, Documents]:
    return {"crawl": Documents([f"{at}" for at in range(len(texts))], [Passage(text, 32) for text in texts], 1.0)}


def test_the_true_sentence_stands_among_those_of_other_documents() -> None:
    texts = [f"{'Words of ' * 12}document {at}. Sentence number {at} ends here! And more." for at in range(6)]
    asked = next_sentences(documents(texts), 100)
    assert [one.name for one in asked] == ["0", "1", "2", "3", "4", "5"]
    for at, one in enumerate(asked):
        before = texts[at].partition(" Sentence")[0]
        said = [f"{before} Sentence number {(at + step) % 6} ends here!" for step in range(4)]
        assert [passage.text for passage in one.passages] == said
        assert {passage.given for passage in one.passages} == {len(before)}
        assert one.right == 0
    assert [one.name for one in next_sentences(documents(texts), 3)] == ["0", "2", "4"]


def test_sentences_without_spaces_between_them_and_at_the_end_of_a_text_are_found() -> None:
    texts = [f"{'文' * 110}。这里是第{at}个句子，它足够长，可以用来提问和回答。" for at in range(4)]
    texts += [f"{'Words ' * 20}end. The last sentence of text {at}." for at in range(4)]
    asked = next_sentences(documents(texts), 100)
    assert [one.passages[0].text for one in asked] == texts
    assert asked[0].passages[0].given == 111


def test_many_documents_with_few_different_sentences_take_no_longer_than_they_should() -> None:
    texts = [
        f"{'Words of ' * 12}document. Sentence number {max(at - 20_000, 0)} ends here! And." for at in range(20_004)
    ]
    began = time.perf_counter()
    asked = next_sentences(documents(texts), 1 << 24)
    assert time.perf_counter() - began < 10, "a walk over all documents for each takes minutes"
    assert len(asked) == 20_004
    for one in (asked[0], asked[-1]):
        assert len({passage.text for passage in one.passages}) == 4


def test_no_question_is_asked_without_three_other_sentences() -> None:
    text = "Words " * 20 + "end. The very same sentence follows. More."
    assert next_sentences(documents([text] * 9), 100) == []
    assert next_sentences(documents(["Words " * 20 + "end. No. More."] * 9), 100) == []


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ({"context": "Two and two make", "choices": ["four", "five"], "answer": 0}, 0),
        ({"ctx": "He", "endings": ["runs", "walks", "sits"], "label": "2"}, 2),
        ({"question": "Which?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}, 1),
        ({"query": "Which?", "options": ["a", "b", "c"], "gold": "C"}, 2),
        ({"question": "Which?", "context": None, "options": ["a", "b", "c"], "gold": "C"}, 2),
    ],
)
def test_questions_of_published_sets_are_read(row: dict[str, Any], right: int) -> None:
    found = question("7", row)
    assert (found.name, found.right) == ("7", right)
    first = found.passages[0]
    assert first.text[first.given] == " "
    assert first.text[: first.given] in row.values()


def test_a_question_about_a_text_stands_after_it() -> None:
    row = {"question": "Who waits?", "context": "Ann waits for Bob.", "options": ["Ann", "Bob"], "answer": "A"}
    first = question("7", row).passages[0]
    assert (first.text, first.text[first.given :]) == ("Ann waits for Bob.\nWho waits? Ann", " Ann")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([], "is no JSON object"),
        ({"choices": ["a", "b"], "answer": 0}, "context or ctx .* should be a text"),
        ({"goal": "c", "choices": ["a", "b"], "answer": 0}, "context or ctx .* should be a text"),
        ({"context": "c", "question": 3, "choices": ["a", "b"], "answer": 0}, "context or ctx .* should be a text"),
        ({"context": "c", "choices": {"text": ["a", "b"], "label": None}, "answer": 0}, "label should list the names"),
        ({"context": "c", "choices": {"text": ["a", "b"], "label": 3}, "answer": 0}, "label should list the names"),
        ({"context": "c", "choices": ["a"], "answer": 0}, "should list two texts or more"),
        ({"context": "c", "choices": {"text": None}, "answer": 0}, "should list two texts or more"),
        ({"context": "c", "choices": ["a", 3], "answer": 0}, "should list two texts or more"),
        ({"context": "c", "choices": ["a", "b"], "answer": 2}, "should be the number of a choice"),
        ({"context": "c", "choices": ["a", "b"], "answer": True}, "should be the number of a choice"),
        ({"context": "c", "choices": ["a", "b"]}, "should be the number of a choice"),
    ],
)
def test_what_is_no_question_says_why(row: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        question("1", row)


def test_a_file_of_questions_names_its_bad_line(tmp_path: Path) -> None:
    file = tmp_path / "quiz.jsonl"
    good = json.dumps({"context": "c", "choices": ["a", "b"], "answer": 1})
    file.write_text(f"{good}\n\n{good}\n{{}}\n")
    assert [one.name for one in read_questions("quiz", str(file), 2)] == ["1", "3"]
    with pytest.raises(InputError, match=r"^probe\.tasks\.quiz: .*quiz\.jsonl:4: context or ctx"):
        read_questions("quiz", str(file), 3)
    lines = "\u2028".join(["c\x85", "\u2029"]) + "\u2028"
    file.write_text(json.dumps({"context": lines, "choices": ["a", "b"], "answer": 1}, ensure_ascii=False) + "\r\n")
    assert [one.passages[1].text for one in read_questions("quiz", str(file), 3)] == [f"{lines}b"]
    file.write_text("[1,\n")
    with pytest.raises(InputError, match=r"quiz\.jsonl:1: Expecting"):
        read_questions("quiz", str(file), 3)
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_questions("quiz", str(file), 3)
    file.write_text("\n")
    with pytest.raises(InputError, match="holds no question"):
        read_questions("quiz", str(file), 3)
