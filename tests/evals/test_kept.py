"""What a model of ours answers as a judge is kept row by row, and votes and steps are made of the rows as of an endpoint."""

import datetime
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contract import feedback
from contract.conversation import Conversation, Turn
from contract.errors import InputError
from contract.feedback import Item, Reply, Round, item_id
from contract.kinds import Kind
from contract.store import Store
from evals import judging, kept
from evals.judging import Counted, Judge, constitution, judge_round, principle_of

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
RULES = ["Be kind.", "Be true."]
ORDER = ("better", "good", "bad", "worse")
MODEL = "ppo/" + "b" * 40


def an_item(text: str, *replies: str) -> Item:
    prompt, said = (Turn("user", text),), tuple(Reply(reply, MODEL, 1.0) for reply in replies)
    return Item(item_id(prompt, said), 1, prompt, said)


ITEMS = [an_item("one", "good", "bad"), an_item("two", "bad", "good", "worse"), an_item("three", "better", "odd")]


def said(prompt: Conversation) -> str:
    """Ranks what it knows, revises every reply to `better`, and cannot compare `odd`."""
    system, user = (turn.text for turn in prompt)
    if system.startswith("Say in a few"):
        return "a critique"
    if system.startswith("Write the reply anew"):
        assert "\na critique\n" in user
        return " better\n"
    shown = re.findall(r"\[reply ([A-D]) \w+\]\n(\w+)", user)
    if "odd" in user:
        return "Both are fine."
    return " > ".join(letter for letter, _ in sorted(shown, key=lambda pair: ORDER.index(pair[1])))


def ask(prompts: Sequence[Conversation]) -> Iterator[tuple[int, str]]:
    return ((number, said(prompts[number])) for number in reversed(range(len(prompts))))


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, Round]:
    store = Store(str(tmp_path))
    file = feedback.write_items(store, "sample/items.parquet", ITEMS)
    return store, feedback.open_round(store, Round(name="r001", number=1, run="run", opened=NOW, files=(file,)))


def manifest_of(*files: Any) -> Any:
    return SimpleNamespace(path="sample/manifest.json", of=lambda kind: [file for file in files if file.kind is kind])


def test_every_question_has_a_row_with_what_was_read_of_the_answer() -> None:
    rows = kept.ask_everything(Judge(MODEL, ask), ITEMS, RULES)
    assert [(row.item, row.showing, row.ranks) for row in rows if row.step == "comparison"] == [
        (ITEMS[0].id, 0, (1, 2)), (ITEMS[0].id, 1, (1, 2)),
        (ITEMS[1].id, 0, (2, 1, 3)), (ITEMS[1].id, 1, (2, 1, 3)),
        (ITEMS[2].id, 0, ()), (ITEMS[2].id, 1, ()),
    ]  # fmt: skip
    steps = [(row.item, row.step, row.principle, row.answer) for row in rows if row.step in ("critique", "revision")]
    assert steps == [
        row
        for item in ITEMS
        for row in (
            (item.id, "critique", principle_of(item, RULES), "a critique"),
            (item.id, "revision", principle_of(item, RULES), "better"),
        )
    ]
    choices = [(row.item, row.showing, row.ranks) for row in rows if row.step == "choice"]
    assert choices == [(item.id, showing, (2, 1)) for item in ITEMS[:2] for showing in (0, 1)]
    for row in rows:
        system, user = row.prompt
        assert (system.role, user.role) == ("system", "user")
        assert (f"principle alone: {row.principle}" in system.text) == (row.step == "choice")
    assert [row.step for row in kept.ask_everything(Judge(MODEL, ask), ITEMS)] == ["comparison"] * 6


def test_votes_and_steps_of_the_rows_are_those_of_the_model_itself(made: tuple[Store, Round]) -> None:
    store, one = made
    rows = kept.ask_everything(Judge(MODEL, ask), ITEMS, RULES)
    file = kept.write(store, "sample/judged.parquet", MODEL, rows)
    assert (file.kind, file.rows) == (Kind.JUDGED, 6 + 6 + 4)
    found = kept.read(store, manifest_of(file))
    assert found.judge.model == MODEL
    assert [found.principle(item) for item in ITEMS] == [principle_of(item, RULES) for item in ITEMS]

    assert judge_round(store, one, found.judge, lambda: NOW) == Counted(6, 2)
    assert judge_round(store, one, found.judge, lambda: NOW) == Counted(0, 0)
    votes = feedback.by_item(feedback.ballots(store, one).counting)
    assert [[vote.ranks for vote in votes[item.id]] for item in ITEMS] == [[(1, 2)] * 2, [(2, 1, 3)] * 2, [()] * 2]
    assert [(vote.skipped, vote.comment) for vote in votes[ITEMS[2].id]] == [(True, "Both are fine.")] * 2
    assert {vote.annotator for several in votes.values() for vote in several} == {f"judge:{MODEL}"}

    beside = constitution(store, one, found.judge, found.principle, lambda: NOW)
    assert (beside.unchanged, beside.votes) == (1, Counted(4, 0))
    assert beside.round is not None
    for item in ITEMS:
        steps = judging.Steps.model_validate_json(store.read_bytes(f"feedback/r001-revised/steps/{item.id}.json"))
        assert (steps.principle, steps.critique) == (principle_of(item, RULES), "a critique")
        assert (steps.revision, steps.model) == ("better", f"judge:{MODEL}")
    pairs = [[reply.text for reply in item.replies] for item in feedback.items(store, beside.round).values()]
    assert pairs == [["good", "better"], ["bad", "better"]]
    assert [vote.ranks for vote in feedback.ballots(store, beside.round).counting] == [(2, 1)] * 4


def test_a_sample_without_such_a_judge_is_refused(made: tuple[Store, Round]) -> None:
    store, one = made
    with pytest.raises(InputError, match=r"sample/manifest\.json: lists no answers of a judge"):
        kept.read(store, manifest_of(*one.files))


def test_a_question_that_was_never_asked_is_told_and_not_guessed(made: tuple[Store, Round]) -> None:
    store, one = made
    rows = kept.ask_everything(Judge(MODEL, ask), ITEMS[:2])
    found = kept.read(store, manifest_of(kept.write(store, "sample/judged.parquet", MODEL, rows)))
    with pytest.raises(InputError, match=r"sample/manifest\.json: its judge was asked other questions"):
        judge_round(store, one, found.judge, lambda: NOW)
