"""Votes become pairs with the weight of their round and of their margin; votes that tell nothing are dropped with a reason."""

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contract import feedback
from contract.conversation import Preference, Turn
from contract.errors import DamagedError, InputError
from contract.examples import Unusable
from contract.feedback import Item, Reply, Round, Vote, item_id
from contract.schema import Drop
from contract.settings.examples import Preferences, RoundOfVotes
from contract.store import Store
from pipelines.examples.reading import limited
from pipelines.examples.votes import read_votes, vote_uris

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
TEXTS = {
    "three": ("best\r\n", "middle", "worst"),
    "tied": ("one", "other"),
    "equal": ("same", " same "),
    "empty": ("words", " "),
    "alone": ("left", "right"),
}


def make_item(name: str) -> Item:
    prompt = (Turn("system", "Be kind."), Turn("user", f"{name} "))
    replies = tuple(Reply(text, f"m{at}", 1.0) for at, text in enumerate(TEXTS[name]))
    return Item(item_id(prompt, replies), 1, prompt, replies, (), "talk")


@pytest.fixture
def frozen(tmp_path: Path) -> str:
    """The URI of the frozen votes of a round: of ann with weight 3 and of bob with weight 1."""
    return make_round(Store(str(tmp_path / "store")))


def make_round(store: Store, **changes: Any) -> str:
    items = {name: make_item(name) for name in TEXTS}
    file = feedback.write_items(store, "sample/x/items.parquet", list(items.values()))
    made = feedback.open_round(
        store, Round(**({"name": "first", "number": 1, "run": "r", "opened": NOW, "files": (file,)} | changes))
    )
    ranks = {
        "ann": {"three": (1, 2, 3), "tied": (1, 1), "equal": (1, 2), "empty": (1, 2), "alone": (2, 1)},
        "bob": {"three": (1, 3, 2), "tied": (1, 1)},
    }
    for name, given in ranks.items():
        for key, one in given.items():
            shown = tuple(range(len(one)))
            vote = Vote(
                round=made.name, item=items[key].id, annotator=name, showing=0, shown=shown, ranks=one, when=NOW
            )
            feedback.cast(store, made, vote)
    return store.full(feedback.freeze(store, made, feedback.ballots(store, made).counting, {"ann": 3.0}))


def test_votes_become_pairs_with_weights(frozen: str) -> None:
    shapes: Counter[str] = Counter()
    rows = list(read_votes(Preferences(rounds={"one": RoundOfVotes(votes=frozen, weight=2.0)}), shapes))
    found = {(one.chosen, one.rejected): one for row in rows if isinstance(one := row.found, Preference)}
    assert {pair: one.weight for pair, one in found.items()} == {
        ("best", "middle"): 2.0,
        ("best", "worst"): 2.0,
        ("middle", "worst"): 1.0,  # (3 - 1) / 4, times that of the round
        ("right", "left"): 2.0,
    }
    assert found["best", "middle"].prompt == (Turn("system", "Be kind."), Turn("user", "three"))
    assert found["best", "middle"].task == "talk"
    dropped = [row.found.reason for row in rows if isinstance(row.found, Unusable)]
    assert Counter(dropped) == {Drop.REPLIES_TIE: 1, Drop.REPLIES_ARE_EQUAL: 1, Drop.EMPTY_TEXT: 1}
    assert {row.place for row in rows} == {f"first item {make_item(name).id}" for name in TEXTS}
    assert shapes == {"votes of first": 5}


def test_the_newest_round_is_read_first_and_the_oldest_is_cut(frozen: str, tmp_path: Path) -> None:
    third = make_round(Store(str(tmp_path / "store")), name="third", number=3)
    second = make_round(Store(str(tmp_path / "store")), name="second", number=2)
    rounds = {name: RoundOfVotes(votes=uri) for name, uri in (("a", frozen), ("b", third), ("c", second))}
    shapes: Counter[str] = Counter()
    rows = read_votes(Preferences(rounds=rounds), shapes)
    read = [row.place.split()[0] for row in limited(rows, 6)]
    assert [*dict.fromkeys(read)] == ["third", "second"]
    assert {name: count > 0 for name, count in shapes.items()} == {
        "votes of third": True, "votes of second": True, "votes of first": False,
    }  # fmt: skip


def test_lineage_has_the_file_and_every_vote_and_reads_no_vote(frozen: str) -> None:
    store, named = feedback.open_frozen(frozen)
    store.delete(named.votes[0].path)
    uris = vote_uris(Preferences(rounds={"one": RoundOfVotes(votes=frozen)}))
    assert uris[0] == frozen
    assert len(uris) == 8
    assert all("/feedback/first/votes/" in uri for uri in uris[1:])
    assert vote_uris(Preferences()) == []


def test_what_cannot_be_learned_from_is_said(frozen: str, tmp_path: Path) -> None:
    blind = make_round(Store(str(tmp_path / "store")), name="blind", purpose="comparison")
    for uri, said in (
        (blind, "preferences.rounds.one.votes: the round blind compares models"),
        (f"{frozen}x", "preferences.rounds.one.votes: .*does not exist"),
        ("/tmp/x.json", "preferences.rounds.one.votes: .*no file of frozen votes"),
    ):
        with pytest.raises(InputError, match=said):
            list(read_votes(Preferences(rounds={"one": RoundOfVotes(votes=uri)}), Counter()))
    store = Store(str(tmp_path / "store"))
    store.delete("feedback/first/votes")
    with pytest.raises(DamagedError, match="the vote is gone"):
        list(read_votes(Preferences(rounds={"one": RoundOfVotes(votes=frozen)}), Counter()))


def test_rounds_stand_in_place_of_synthetic_pairs() -> None:
    rounds = {"one": RoundOfVotes(votes="/v")}
    told = [
        (settings.synthetic, settings.read)
        for settings in (
            Preferences(),
            Preferences(rounds=rounds),
            Preferences(data="/d"),
            Preferences(data="/d", rounds=rounds),
        )
    ]
    assert told == [(True, False), (False, False), (False, True), (False, True)]
