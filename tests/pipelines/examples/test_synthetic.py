"""The rules that make examples of documents: the same seed gives the same, in the words of the documents."""

from collections import Counter
from dataclasses import FrozenInstanceError
from typing import Any

import pyarrow as pa
import pytest

from contract.kinds import Kind
from pipelines.examples.synthetic import (
    MAX_PER_DOCUMENT,
    Document,
    documents,
    sentences,
    synthetic_instructions,
    synthetic_preferences,
)
from pipelines.spark.tables import TableWriter

TEXT = (
    "A heading without an end\nThe mill grinds corn every day. It stands by the river! Who built it? Nobody knows that now. "
    "The oldest letter names a baker. He came from the harbour in winter. The stones were brought by ship."
)
PAGES = [Document(f"{index:032x}", "" if index % 3 == 0 else f"Mill {index}", TEXT) for index in range(30)]


def test_documents_of_several_files_in_order(tmp_store: Any) -> None:
    schema = pa.schema([(name, pa.string()) for name in ("id", "title", "text", "other")])
    rows = [{"id": str(at), "title": (None, " x ")[at % 2], "text": f" t{at}", "other": "o"} for at in range(600)]
    files = []
    for name, part in (("a", rows[:500]), ("b", rows[500:])):
        writer = TableWriter(tmp_store, f"{name}.parquet", Kind.DOCUMENTS, schema)
        for row in part:
            writer.write(row)
        files += writer.close()
    found = list(documents(tmp_store, files))
    assert found == [Document(str(at), ("", "x")[at % 2], f" t{at}") for at in range(600)]
    with pytest.raises(FrozenInstanceError):
        found[0].text = "another"  # type: ignore[misc]


def test_sentences_leave_headings_out() -> None:
    assert sentences(TEXT)[:3] == ["The mill grinds corn every day.", "It stands by the river!", "Who built it?"]


def test_synthetic_instructions_answer_with_the_corpus_itself() -> None:
    made = list(synthetic_instructions(PAGES, 1))
    assert made == list(synthetic_instructions(iter(PAGES), 1))
    assert max(Counter(key for key, _ in made).values()) <= MAX_PER_DOCUMENT
    assert [key for key, _ in made] == sorted(key for key, _ in made), "in the order of the documents"
    assert made != list(synthetic_instructions(PAGES, 2))
    assert 60 < len(made) <= 90
    for _, (ask, reply) in made:
        assert (ask.role, reply.role) == ("user", "assistant")
        assert reply.text in TEXT
        assert reply.text not in ask.text
    assert len({ask.text.split("{")[0].split(".")[0] for _, (ask, _) in made}) > 5, "varied wording"


def test_synthetic_preferences_spoil_the_true_reply() -> None:
    made = list(synthetic_preferences(PAGES, 1))
    assert made == list(synthetic_preferences(PAGES, 1))
    kinds: Counter[str] = Counter()
    for _, one in made:
        assert one.chosen in TEXT
        assert one.rejected != one.chosen
        if sorted(one.rejected.split()) == sorted(one.chosen.split()):
            kinds["shuffled"] += 1
        elif one.chosen.startswith(one.rejected):
            kinds["truncated"] += 1
        else:
            kinds["repeated"] += 1
            assert len(one.rejected.split()) == len(one.chosen.split())
    assert all(kinds[one] >= 10 for one in ("shuffled", "truncated", "repeated"))
