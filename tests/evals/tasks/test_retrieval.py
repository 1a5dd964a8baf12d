"""Numbers hidden in long texts."""

import json
from pathlib import Path

import pytest

from evals.tasks.prompts import prompt
from evals.tasks.published import read_items
from evals.tasks.retrieval import RETRIEVAL, make

TEXT = "".join(f"Sentence {'x' * (at % 7)} is here. " for at in range(2000))


def test_the_number_stands_where_it_is_asked_to_and_once() -> None:
    rows = [*make(TEXT, [2000, 8000], [0.0, 0.5, 1.0], each=2)]
    assert [(one["length"], one["depth"]) for one in rows[::2]] == [
        (n, d) for n in (2000, 8000) for d in (0.0, 0.5, 1.0)
    ]
    for row in rows:
        assert row["context"].count(str(row["answer"])) == 1
        assert row["context"].count("access number") == 2, "another place has one, too"
        name = row["question"].removeprefix("What is the access number of ").removesuffix("?")
        assert f"Remember that the access number of {name} is {row['answer']}." in row["context"]
        at = row["context"].index(str(row["answer"])) / len(row["context"])
        assert abs(at - row["depth"]) < 0.12
    assert len({one["id"] for one in rows}) == len({one["answer"] for one in rows}) == 12


def test_the_same_numbers_make_the_same_items_and_a_seed_makes_others() -> None:
    first, again, other = (list(make(TEXT, [2000], [0.5], seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(list(make("x" * 100, [100], [0.5]))) == 1
    with pytest.raises(ValueError, match=r"characters, 200,000 are needed"):
        next(make(TEXT, [200_000], [0.5]))


def test_items_are_asked_and_graded(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in make(TEXT, [2000], [0.1, 0.9])))
    item, _ = read_items(RETRIEVAL, tmp_path / "items.jsonl")
    assert item.source == "2000"
    assert prompt(RETRIEVAL, item).text.endswith(f"\n\nQuestion: {item.question}\nAnswer:")
    assert [RETRIEVAL.grade(item, text).score for text in (f"It is {item.answers[0]}.", "It is 5.")] == [1, 0]
