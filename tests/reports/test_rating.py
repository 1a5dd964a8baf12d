"""Replies are cut into words and code without loss, and a person's sheet shows what they rate next."""

import datetime
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import feedback
from contract.assignment import Offer, order_of
from contract.conversation import Turn
from contract.feedback import Item, Reply, Round, TakenBack, Vote, item_id
from contract.settings.feedback import Rating, Trust
from contract.store import Store
from evals import annotators
from reports.rating import Piece, freeze, judge, offered, own_votes, pieces, sheet, showing, strengths, told

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("words", [Piece("words")]),
        ("a\n```python\nx = 1\n```\nb", [Piece("a"), Piece("x = 1", True, "python"), Piece("b")]),
        ("```\n\n  x\n", [Piece("\n  x\n", True)]),
        ("~~~c++ title\n```\n~~~", [Piece("```", True, "c++")]),
        ("````\n```\n````", [Piece("```", True)]),
        ("$x^2$ and `code` stay", [Piece("$x^2$ and `code` stay")]),
        ("```a`b```", [Piece("```a`b```")]),
        ("", []),
        ("x\n```\n```\ny", [Piece("x"), Piece("", True), Piece("y")]),
    ],
)
def test_fences_make_code_and_all_else_stays_words(text, found):
    assert pieces(text) == found


@given(st.text(alphabet="a `~\n$#", max_size=80))
def test_no_word_is_lost(text):
    shown = "".join(one.text for one in pieces(text))
    assert re.sub(r"[^a$#]", "", shown).count("a") <= text.count("a")
    if "```" not in text and "~~~" not in text:
        assert "".join(shown.split()) == "".join(text.split())


@pytest.mark.parametrize(
    "line", ["```" + " " * 200_000 + "`", "`" * 200_000, "```" + "a" * 200_000 + "`", "~" * 200_000]
)
def test_hostile_lines_take_no_time(line):
    began = time.perf_counter()
    pieces(line, 300_000)
    assert time.perf_counter() - began < 0.5


def test_long_texts_are_cut():
    assert pieces("x" * 50, 20) == [Piece("x" * 20)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def made(store: Store) -> Round:
    items = []
    for number in range(12):
        prompt = (Turn("user", f"question {number}"),)
        replies = tuple(Reply(f"reply {number} {one}", f"model-{one}", 1.0) for one in range(2))
        items.append(Item(item_id(prompt, replies), 1, prompt, replies))
    file = feedback.write_items(store, "sample/x/items.parquet", items)
    rating = Rating(people=2, repeated=0)
    return feedback.open_round(store, Round(name="r", number=1, run="one", opened=NOW, files=(file,), rating=rating))


def cast(store: Store, made: Round, name: str, ranks: tuple[int, ...]) -> Vote:
    found = offered(store, sheet(store, made, name, NOW))
    assert found.item
    vote = Vote(
        round="r", item=found.item.id, annotator=name, showing=found.showing, shown=found.order, ranks=ranks, when=NOW
    )
    feedback.cast(store, made, vote)
    return vote


def test_an_offered_item_is_held_and_two_people_cannot_hold_one_place(store: Store, made: Round):
    seen = [offered(store, sheet(store, made, f"p{number}", NOW)).item for number in range(24)]
    assert all(seen)
    assert {[one.id for one in seen if one].count(item) for item in feedback.items(store, made)} == {2}
    assert offered(store, sheet(store, made, "late", NOW)).item is None


def test_the_order_on_the_page_is_salted(store: Store, made: Round):
    pages = [showing(sheet(store, made, "ann", NOW), Offer(item, 0)) for item in feedback.items(store, made)]
    assert [page.order for page in pages] == [order_of(2, page.item.id, "ann", 0, made.salt) for page in pages]
    assert [page.order for page in pages] != [order_of(2, page.item.id, "ann", 0) for page in pages]


def test_files_that_were_cut_off_take_no_item_from_anybody(store: Store, made: Round):
    for item in feedback.items(store, made):
        for slot in range(2):
            store.write_bytes(f"feedback/r/held/{item}-{slot}-0.json", b'{"item":')
    found = offered(store, sheet(store, made, "ann", NOW))
    assert found.item
    [held] = feedback.ballots(store, made).held
    assert (held.item, held.generation, found.showing) == (found.item.id, 1, 0)
    store.write_bytes(f"feedback/r/taken_back/{found.item.id}-{feedback.key_of('ann')}-3.json", b"")
    empty = f"{found.item.id}-{feedback.key_of('ann')}-0.json"
    store.write_bytes(f"feedback/r/votes/{empty}", b"")
    again = offered(store, sheet(store, made, "ann", NOW))
    assert again.item
    assert (again.item.id, again.showing) == (found.item.id, 1), "the lost vote's number is used up"
    assert [again.desk.may_vote(found.item.id, showing) for showing in (0, 1, 2)] == [False, True, False]
    vote = cast(store, made, "ann", (1, 2))
    assert (vote.item, vote.showing) == (found.item.id, 1)
    assert feedback.ballots(store, made).counting == [vote]


def test_own_votes_are_told_with_the_letters_of_the_page(store: Store, made: Round):
    first, second = cast(store, made, "ann", (1, 2)), cast(store, made, "ann", (1, 1))
    cast(store, made, "bob", (1, 2))
    feedback.take_back(store, made, TakenBack(vote=first.name, annotator="ann", when=NOW))
    found = own_votes(sheet(store, made, "ann", NOW))
    assert {one.name for one in found} == {first.name, second.name}
    assert told(first) == ("A over B" if first.shown == (0, 1) else "B over A")
    assert told(second) == "A = B"
    three = first.model_copy(update={"ranks": (2, 1, 2), "shown": (2, 0, 1)})
    assert told(three) == "C over A = B"
    assert told(first.model_copy(update={"ranks": (), "all_bad": True})) == "all bad"
    assert told(first.model_copy(update={"ranks": (), "skipped": True})) == "skipped"


def test_votes_are_judged_and_frozen_without_those_who_are_left_out(store: Store, made: Round):
    for number, item in enumerate(feedback.items(store, made)):
        for name, ranks in (("ann", (1, 2)), ("bob", (1, 2) if number else (2, 1)), ("mal", (2, 1))):
            vote = Vote(round="r", item=item, annotator=name, showing=0, shown=(0, 1), ranks=ranks, when=NOW)
            feedback.cast(store, made, vote)
    found = judge(store, made, Trust())
    assert (found.votes, list(found.left_out), found.damaged) == (36, ["mal"], 0)
    path, left_out = freeze(store, made, Trust())
    assert left_out == found.left_out
    frozen = feedback.read_frozen(store.full(path))[1]
    assert frozen.weights == found.weights
    assert found.weights["ann"] == pytest.approx(1.9459, abs=1e-4), "ln((11 + 3) / (1 + 1))"
    table, compared, gone = strengths(store, made, Trust())
    assert ([one.name for one in table.players], compared, list(gone)) == (["model-0", "model-1"], 24, ["mal"])
    assert table.leads[0].share == pytest.approx(23 / 24)


def test_a_vote_that_comes_after_the_measuring_is_not_frozen(
    store: Store, made: Round, monkeypatch: pytest.MonkeyPatch
):
    first = cast(store, made, "ann", (1, 2))
    measure = annotators.left_out

    def measured(*given: Any) -> Any:
        found = measure(*given)
        cast(store, made, "late", (2, 1))
        return found

    monkeypatch.setattr(annotators, "left_out", measured)
    path, _ = freeze(store, made, Trust())
    assert len(feedback.ballots(store, made).counting) == 2
    _, frozen, votes = feedback.read_frozen(store.full(path))
    assert (votes, frozen.weights) == ([first], {"ann": round(math.log(3), 4)})
