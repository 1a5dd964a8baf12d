"""The bench of feedback: simulated people rank as told, learned rewards are true ones, and the detectors detect."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract import feedback
from contract.conversation import Preference, Turn
from contract.errors import StoreError
from contract.feedback import Ballots, TakenBack
from contract.store import Store
from perf.feedback import kept, known, rounds
from perf.feedback.simulated import LIAR, PEOPLE, World, make_items, numbers_of, open_round, ranks, text_of, votes


def test_the_highest_reward_is_rank_one_and_what_is_close_ties():
    assert ranks([0.1, 3.0, 1.0]) == (3, 1, 2)
    assert ranks([1.0, 1.05, -1.0], tie=0.1) == (1, 1, 2)
    assert ranks([0.0, 0.0]) == (1, 1)


def test_the_text_of_a_reply_holds_its_numbers():
    numbers = np.array([0.125, -3.0, 2.0])
    assert numbers_of(text_of(numbers)).tolist() == numbers.tolist()


def test_each_item_gets_its_votes_and_the_liar_turns_the_truth(tmp_path: Path):
    random = np.random.default_rng(0)
    world = World.drawn(random)
    items = make_items(random, world, 100, gold=1.0)
    made = open_round(Store(str(tmp_path)), items, "r")
    given = list(votes(random, world, items, made.name, each=3, again=0.2))
    first = [vote for vote in given if vote.showing == 0]
    assert Counter(vote.item for vote in first) == {item.id: 3 for item in items}
    assert 30 < len(given) - len(first) < 90
    of = {item.id: item for item in items}
    right = {
        name: np.mean([vote.ranks.index(1) == of[vote.item].gold.index(1) for vote in first if vote.annotator == name])
        for name in PEOPLE
    }
    assert right["careful"] > right["hasty"] > 0.3 > right[LIAR]


def test_a_linear_reward_is_found_from_pairs():
    random = np.random.default_rng(1)
    world = World.drawn(random)
    both = random.standard_normal((800, 2, 6))
    pairs = []
    for one, other in both:
        one, other = (one, other) if world.reward(one) > world.reward(other) else (other, one)
        pairs.append(Preference((Turn("user", "?"),), text_of(one), text_of(other)))
    found = known.fit(pairs)
    assert found @ world.direction / np.linalg.norm(found) > 0.99
    silent = [replace(Preference((Turn("user", "?"),), pair.rejected, pair.chosen), weight=0.0) for pair in pairs]
    assert known.fit(pairs + silent) == pytest.approx(found), "a pair without weight says nothing"


def test_figures_with_a_closed_form_are_met():
    assert known.closed_form_off() < 1e-6
    assert known.alpha_off(0) < 0.02
    assert known.alpha_off(0, missing=0.4) < 0.02
    assert known.definition_off(0) < 1e-9
    gaps = [[1, 2, None], [1, 1, 1], [2, None, None]]
    # Two answers of the first unit differ, so D_o is 2 of 5; of all 20 ordered pairs 8 differ.
    assert known.by_definition(gaps, "nominal") == pytest.approx(1 - (2 / 5) / (8 / 20))


def test_the_liar_alone_is_told_apart_in_every_mix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(known, "MIX_SEEDS", 1)
    assert known.told_apart() == [True] * len(known.MIXES)
    monkeypatch.setattr(known, "MIXES", [(known.MIXES[1][0], 2, 0.2, set())])
    assert known.told_apart() == [False]


@pytest.fixture
def round_of_votes(tmp_path: Path):
    random = np.random.default_rng(2)
    world = World.drawn(random)
    items = make_items(random, world, 3, 0.0)
    store = Store(str(tmp_path))
    made = open_round(store, items, "r", repeated=0)
    for vote in votes(random, world, items, made.name, each=1, again=0.0):
        feedback.cast(store, made, vote)
    return made, feedback.ballots(store, made)


def test_a_lost_vote_is_seen(round_of_votes):
    made, found = round_of_votes
    ledger = kept.Ledger([(vote.name, kept.answer(vote)) for vote in found.votes])
    assert kept.lost(ledger, found) == []
    first = found.votes[0]
    assert kept.lost(ledger, Ballots(found.votes[1:])) == [first.name]
    turned = first.model_copy(update={"ranks": tuple(5 - rank for rank in first.ranks)})
    assert kept.lost(ledger, Ballots((turned, *found.votes[1:]))) == [first.name]
    ledger.taken_back.add(first.name)
    assert kept.lost(ledger, found) == [first.name], "it still counts"
    back = TakenBack(vote=first.name, annotator=first.annotator, when=first.when)
    assert kept.lost(ledger, Ballots(found.votes, {first.name: back})) == []
    assert kept.doubled(made, found) == []


def test_a_doubled_vote_is_seen(round_of_votes):
    made, found = round_of_votes
    twice = found.votes[0].model_copy(update={"showing": 1})
    key = (twice.item, twice.annotator)
    assert kept.doubled(made, Ballots((*found.votes, twice))) == [key]
    back = TakenBack(vote=twice.name, annotator=twice.annotator, when=twice.when)
    assert kept.doubled(made, Ballots((*found.votes, twice), {twice.name: back})) == []
    again = made.model_copy(update={"rating": made.rating.model_copy(update={"repeated": 1.0})})
    assert kept.doubled(again, Ballots((*found.votes, twice))) == []


def test_a_failing_store_fails_before_and_after_it_writes(tmp_path: Path):
    store, failed, there = Store(str(tmp_path)), 0, 0
    with kept.failing(0) as told:
        for number in range(200):
            try:
                assert store.create(f"x/{number}", b"x")
            except StoreError:
                failed += 1
                there += store.exists(f"x/{number}")
    assert told == {"refused": failed - there, "answer lost": there}
    assert 20 <= failed <= 60
    assert there > 5
    assert store.create("x/last", b"x"), "outside it nothing fails"


def test_a_few_clients_lose_no_vote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("CLIENTS", 4), ("BROWSERS", 0), ("LIMIT_S", 60.0)):
        monkeypatch.setattr(kept, name, value)
    random = np.random.default_rng(0)
    items = make_items(random, World.drawn(random), 8, 0.0)
    store = Store(str(tmp_path))
    made = open_round(store, items, "kept", people=2, repeated=0.1, repeat_after=2, hold_minutes=0.1)
    ledger = kept.Ledger()
    with kept.served(store) as url, kept.failing(1):
        kept.everybody(url, ledger)
    found = feedback.ballots(store, made)
    assert (kept.lost(ledger, found), kept.doubled(made, found)) == ([], [])
    done = kept.people_of(found.counting)
    assert {done[item.id] for item in items} == {2}
    assert ledger.counts["kept"] >= 16


def test_a_round_rises_only_beyond_noise():
    low, high = [0.0, 1.0] * 50, [0.5, 1.5] * 50
    assert rounds.rises(low, high)
    assert not rounds.rises(high, low)
    assert not rounds.rises(low, low)
    assert not rounds.rises(low[:4], high[:4]), "of so few replies a rise is noise"
    assert rounds.error(low) == pytest.approx(0.0503, abs=1e-4)


def test_the_true_reward_is_the_mean_over_letters():
    weights = {"a": 1.0, "b": -0.5}
    assert rounds.true_reward("A b, a ...A!", weights) == 0.625
    assert rounds.true_reward("aa7", weights) == (2 * weights["a"] - 10) / 3
    assert rounds.true_reward(" .", weights) == rounds.true_reward("7", weights) == -10
