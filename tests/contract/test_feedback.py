"""Votes are kept once whatever happens, count until they are taken back, and are frozen with their bytes."""

import datetime
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import feedback
from contract.conversation import Turn
from contract.errors import DamagedError, InputError, StoreError
from contract.feedback import (
    Ballots,
    Compared,
    Held,
    Item,
    Kept,
    Reply,
    Round,
    TakenBack,
    Vote,
    compared,
    item_id,
    key_of,
)
from contract.settings.feedback import Rating
from contract.store import Store

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


def make_item(text: str, replies: int = 2, gold: tuple[int, ...] = ()) -> Item:
    prompt = (Turn("user", text),)
    written = tuple(Reply(f"{text} {number}", f"model-{number}", 0.5 * number) for number in range(replies))
    return Item(item_id(prompt, written), 1, prompt, written, gold, "talk")


def make_round(store: Store, items: list[Item], name: str = "first", **rating: Any) -> Round:
    file = feedback.write_items(store, f"sample/{name}/items.parquet", items)
    return Round(name=name, number=1, run="a-run", opened=NOW, files=(file,), rating=Rating(**rating))


def make_vote(item: Item, annotator: str = "ann", showing: int = 0, **changes: Any) -> Vote:
    ranks = tuple(range(1, len(item.replies) + 1))
    shown = tuple(range(len(item.replies)))
    values = {"round": "first", "ranks": ranks, "shown": shown, "when": NOW} | changes
    return Vote(item=item.id, annotator=annotator, showing=showing, **values)


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return request.getfixturevalue("s3_store") if request.param == "s3" else Store(str(tmp_path / "store"))


def test_items_are_read_as_they_were_written(store: Store) -> None:
    items = [make_item("What is TeX?", 3, (1, 2, 2)), make_item("zwei", 2)]
    made = feedback.open_round(store, make_round(store, items))
    assert list(feedback.items(store, made).values()) == items


def test_the_id_of_an_item_tells_neither_who_wrote_its_replies_nor_their_order() -> None:
    prompt = (Turn("user", "q"),)
    one, other = (
        (Reply("a", first, 0.5), Reply("b", second, 0.5)) for first, second in (("sft/x", "ppo/y"), ("ppo/y", "sft/x"))
    )
    assert item_id(prompt, one) == item_id(prompt, other) == item_id(prompt, one[::-1])
    assert item_id(prompt, one) != item_id(prompt, (Reply("a", "sft/x", 0.5), Reply("c", "ppo/y", 0.5)))
    assert item_id(prompt, one) != item_id((Turn("system", "q"),), one)


@pytest.mark.parametrize(
    "changes", [{"id": "x"}, {"replies": []}, {"gold": [1]}, {"gold": [1, 3]}, {"prompt": []}], ids=str
)
def test_an_item_that_nobody_could_rate_is_refused(changes: dict[str, Any]) -> None:
    row = make_item("a").row()
    assert Item.of(row) == make_item("a")
    with pytest.raises(InputError, match="item"):
        Item.of(row | changes)


def test_a_round_is_opened_once(store: Store) -> None:
    made = make_round(store, [make_item("a")])
    opened = feedback.open_round(store, made)
    assert re.fullmatch("[0-9a-f]{32}", opened.salt)
    assert opened == made.model_copy(update={"salt": opened.salt})
    assert feedback.open_round(store, made) == opened, "the salt is drawn once"
    later = made.model_copy(update={"opened": NOW + datetime.timedelta(days=1)})
    assert feedback.open_round(store, later).opened == NOW, "who comes later finds the round as it is"
    with pytest.raises(InputError, match="other items or settings"):
        feedback.open_round(store, made.model_copy(update={"number": 2}))
    with pytest.raises(InputError, match="1 to 5,000 items"):
        feedback.open_round(store, make_round(store, [], "empty"))
    store.write_bytes("feedback/torn/round.json", b"{")
    assert feedback.rounds(store) == ([opened], ["torn"])
    assert feedback.open_round(store, made.model_copy(update={"name": "other"})).salt != opened.salt
    for name, said in (("none", "no such round"), ("../runs", "no name of a round")):
        with pytest.raises(InputError, match=said):
            feedback.read_round(store, name)


def test_the_same_form_that_is_sent_twice_makes_one_vote(store: Store) -> None:
    item = make_item("a")
    made = feedback.open_round(store, make_round(store, [item]))
    vote = make_vote(item, seconds=3.0)
    later = vote.model_copy(update={"when": NOW + datetime.timedelta(seconds=9), "seconds": 12.0})
    other = vote.model_copy(update={"ranks": (2, 1)})
    assert [feedback.cast(store, made, one) for one in (vote, later, other)] == [Kept.NEW, Kept.SAME, Kept.OTHER]
    assert feedback.ballots(store, made).votes == (vote,), "the first one stays as it is"
    assert feedback.cast(store, made, make_vote(item, showing=1)) is Kept.NEW
    assert feedback.cast(store, made, make_vote(item, "bob")) is Kept.NEW
    assert len(feedback.ballots(store, made).counting) == 3


def test_of_many_who_send_at_once_one_wins(store: Store) -> None:
    item = make_item("a")
    made = feedback.open_round(store, make_round(store, [item]))
    times = [NOW + datetime.timedelta(milliseconds=number) for number in range(16)]
    sent = [make_vote(item, comment=str(number % 4), when=when) for number, when in enumerate(times)]
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda vote: feedback.cast(store, made, vote), sent))
    assert told.count(Kept.NEW) == 1
    [kept] = feedback.ballots(store, made).votes
    assert [(vote.answer == kept.answer) for vote in sent] == [one is not Kept.OTHER for one in told]


def test_a_vote_whose_answer_was_lost_is_there_when_it_is_sent_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = make_item("a")
    made = feedback.open_round(store, make_round(store, [item]))
    create = Store.create

    def lost(self: Store, path: str, data: bytes) -> bool:
        create(self, path, data)
        raise StoreError("timed out")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "create", lost)
        with pytest.raises(StoreError):
            feedback.cast(store, made, make_vote(item))
    later = make_vote(item, when=NOW + datetime.timedelta(seconds=1))
    assert feedback.cast(store, made, later) is Kept.SAME
    assert len(feedback.ballots(store, made).votes) == 1


def test_a_vote_is_taken_back_by_its_own_annotator_alone(store: Store) -> None:
    item = make_item("a")
    made = feedback.open_round(store, make_round(store, [item]))
    vote = make_vote(item)
    feedback.cast(store, made, vote)
    with pytest.raises(InputError, match="not of bob"):
        feedback.take_back(store, made, TakenBack(vote=vote.name, annotator="bob", when=NOW))
    with pytest.raises(InputError, match="has no vote"):
        feedback.take_back(store, made, TakenBack(vote=make_vote(item, "bob").name, annotator="bob", when=NOW))
    back = TakenBack(vote=vote.name, annotator="ann", when=NOW)
    later = back.model_copy(update={"when": NOW + datetime.timedelta(seconds=1)})
    assert [feedback.take_back(store, made, one) for one in (back, later)] == [True, False]
    found = feedback.ballots(store, made)
    assert (found.votes, found.counting) == ((vote,), [])
    forged = TakenBack(vote=make_vote(item, "bob").name, annotator="ann", when=NOW)
    feedback.cast(store, made, make_vote(item, "bob"))
    store.write_bytes(f"{made.folder}/taken_back/{forged.vote}", forged.model_dump_json().encode())
    assert len(feedback.ballots(store, made).counting) == 1, "whoever writes there cannot take back another's vote"


def test_files_that_are_no_votes_are_counted_and_left_out(store: Store) -> None:
    item = make_item("a")
    made = feedback.open_round(store, make_round(store, [item]))
    vote = make_vote(item)
    feedback.cast(store, made, vote)
    strange = {
        make_vote(item, "x").name: b"{",
        make_vote(item, "y").name: vote.model_dump_json().encode(),
        make_vote(item, "z").name: b"{" + b" " * feedback.MOST_BYTES + b"}",
        make_vote(item, "other").name: make_vote(item, "other", round="second").model_dump_json().encode(),
        "notes.txt": b"no vote at all",
    }
    for name, data in strange.items():
        store.write_bytes(f"{made.folder}/votes/{name}", data)
    found = feedback.ballots(store, made)
    assert (found.votes, {*found.damaged}) == ((vote,), {f"votes/{name}" for name in strange if name != "notes.txt"})
    assert feedback.ballots(store, make_round(store, [item], "empty")) == Ballots()


@pytest.mark.parametrize(
    "changes",
    [{"ranks": (1, 2, 3)}, {"ranks": (1,)}, {"shown": (0, 0)}, {"shown": ()}, {"scores": {"helpfulness": (1,) * 3}}],
    ids=str,
)
def test_a_vote_that_does_not_fit_its_item_is_left_out_and_counted(store: Store, changes: dict[str, Any]) -> None:
    item = make_item("a")
    made = feedback.open_round(store, make_round(store, [item]))
    fits, strange = make_vote(item), make_vote(item, "bob", **changes)
    for vote in (fits, strange):
        store.write_bytes(f"{made.folder}/votes/{vote.name}", vote.model_dump_json().encode())
    found = feedback.ballots(store, made)
    assert (found.votes, found.damaged) == ((fits,), (f"votes/{strange.name}",))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"ranks": (1, 1)}, ""),
        ({"ranks": (), "skipped": True}, ""),
        ({"ranks": (), "all_bad": True}, ""),
        ({"ranks": ()}, "Rank every reply, or"),
        ({"ranks": (1,)}, "Rank every reply."),
        ({"shown": (0, 0)}, "does not fit"),
        ({"scores": {"helpfulness": (1, None)}}, ""),
        ({"scores": {"wit": (1, 2)}}, "criteria"),
        ({"scores": {"helpfulness": (1,)}}, "criteria"),
    ],
)
def test_a_vote_must_fit_its_item(changes: dict[str, Any], said: str) -> None:
    item = make_item("a")
    told = make_vote(item, **changes).mistake(item, Rating())
    assert said in told
    assert bool(said) == bool(told)


def test_a_slot_is_held_by_the_first_who_asks(store: Store) -> None:
    item = make_item("a")
    made = feedback.open_round(store, make_round(store, [item]))
    held = Held(item=item.id, slot=0, generation=0, annotator="ann", when=NOW)
    assert [feedback.hold(store, made, one) for one in (held, held, held.model_copy(update={"annotator": "bob"}))] == [
        True,
        True,
        False,
    ]
    assert feedback.ballots(store, made).held == (held,)
    torn = held.model_copy(update={"generation": 1})
    store.write_bytes(f"{made.folder}/held/{torn.name}", torn.model_dump_json().encode()[:40])
    assert feedback.hold(store, made, torn) is False, "nobody can tell whose it is"
    assert feedback.ballots(store, made).damaged == (f"held/{torn.name}",)


def test_frozen_votes_are_those_that_count_and_stay_what_they_were(store: Store) -> None:
    items = [make_item("a"), make_item("b")]
    made = feedback.open_round(store, make_round(store, items))
    kept, gone, bad = make_vote(items[0]), make_vote(items[1]), make_vote(items[0], "bad")
    skipped = make_vote(items[1], "bob", ranks=(), skipped=True)
    with pytest.raises(InputError, match="no vote counts"):
        feedback.freeze(store, made, [])
    for vote in (kept, gone, bad, skipped):
        feedback.cast(store, made, vote)
    feedback.take_back(store, made, TakenBack(vote=gone.name, annotator="ann", when=NOW))
    found = feedback.ballots(store, made).counting
    path = feedback.freeze(store, made, found, {"ann": 2.5}, {"bad": "agrees with nobody"})
    assert feedback.freeze(store, made, found[::-1], {"ann": 2.5}, {"bad": "agrees with nobody"}) == path
    found_store, frozen, votes = feedback.read_frozen(store.full(path))
    assert (found_store, frozen.round, frozen.weights, votes) == (store, made, {"ann": 2.5}, [kept])
    assert frozen.left_out == {"bad": "agrees with nobody"}
    feedback.cast(store, made, make_vote(items[1], "late"))
    assert feedback.read_frozen(store.full(path))[2] == [kept], "later votes change nothing"
    changed = json.loads(store.read_bytes(frozen.votes[0].path)) | {"ranks": [2, 1]}
    store.write_bytes(frozen.votes[0].path, json.dumps(changed).encode())
    with pytest.raises(DamagedError, match="has changed since"):
        feedback.read_frozen(store.full(path))
    store.delete(frozen.votes[0].path)
    with pytest.raises(DamagedError, match="is gone"):
        feedback.read_frozen(store.full(path))


def test_votes_on_s3_are_frozen_and_read_many_at_a_time(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    item = make_item("a")
    made = feedback.open_round(s3_store, make_round(s3_store, [item]))
    votes = [make_vote(item, f"p{number}") for number in range(4)]
    for vote in votes:
        feedback.cast(s3_store, made, vote)
    readers, read = list[str](), Store.read_bytes

    def noted(self: Store, path: str) -> bytes:
        if "/votes/" in path:
            readers.append(threading.current_thread().name)
        return read(self, path)

    monkeypatch.setattr(Store, "read_bytes", noted)
    path = feedback.freeze(s3_store, made, votes)
    assert sorted(vote.annotator for vote in feedback.read_frozen(s3_store.full(path))[2]) == ["p0", "p1", "p2", "p3"]
    assert len(readers) == 8
    assert all(name.startswith("feedback") for name in readers), "threads that wait at the same time"


def test_other_files_are_no_frozen_votes(store: Store) -> None:
    store.write_bytes("feedback/first/frozen/x.json", b"[]")
    for path, said in (("a.json", "no file of frozen"), ("feedback/first/frozen/y.json", "does not exist")):
        with pytest.raises(InputError, match=said):
            feedback.read_frozen(store.full(path))
    with pytest.raises(InputError, match="cannot be read"):
        feedback.read_frozen(store.full("feedback/first/frozen/x.json"))


def test_rankings_with_ties_become_pairs_with_the_margin_of_the_votes() -> None:
    item = make_item("a", 3)
    votes = [
        make_vote(item, name, ranks=ranks) for name, ranks in (("a", (1, 2, 2)), ("b", (1, 2, 3)), ("c", (2, 1, 3)))
    ]
    found = {(one.better, one.worse): one.margin for one in compared(item, votes)}
    assert found == pytest.approx({(0, 1): 1 / 3, (0, 2): 1, (1, 2): 2 / 3})
    weights = {"a": 1.0, "b": 1.0, "c": 4.0}
    found = {(one.better, one.worse): one.margin for one in compared(item, votes, weights.__getitem__)}
    assert found == pytest.approx({(1, 0): 2 / 6, (0, 2): 1, (1, 2): 5 / 6})
    assert compared(item, votes)[0] == Compared(0, 1, pytest.approx(1 / 3), tuple(vote.name for vote in votes))


def test_a_person_who_saw_an_item_twice_counts_once() -> None:
    item = make_item("a")
    votes = [make_vote(item, "a"), make_vote(item, "a", 1, ranks=(2, 1)), make_vote(item, "b", ranks=(2, 1))]
    [one] = compared(item, votes)
    assert (one.better, one.worse, one.margin) == (1, 0, pytest.approx(1 / 2))


@pytest.mark.parametrize(
    "votes", [[], [make_vote(make_item("a"), skipped=True)], [make_vote(make_item("a"), ranks=(1, 1))]], ids=len
)
def test_votes_that_prefer_nothing_make_no_pair(votes: list[Vote]) -> None:
    assert compared(make_item("a"), votes) == []


@given(st.text(max_size=250), st.text(max_size=250))
def test_names_of_people_become_safe_and_different_names_of_files(one: str, other: str) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)
    vote = make_vote(make_item("a"), one or "x")
    assert feedback.VOTE.fullmatch(vote.name)


def test_a_reply_knows_its_model_and_the_item_its_gold(store: Store) -> None:
    item = replace(make_item("a"), gold=(2, 1))
    assert item.row()["gold"] == [2, 1]
    reply = {"text": "a 1", "model": "model-1", "temperature": 0.5, "reward": None}
    assert item.row()["replies"][1] == reply
