"""Each item goes to as many people as asked, spread evenly; some come back to the same person; nothing is asked in vain."""

import datetime
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.assignment import Desk, Offer, Progress, order_of, people_of
from contract.feedback import Ballots, Held, TakenBack, Vote
from contract.settings.feedback import Rating

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
IDS = [f"{number:032x}" for number in range(100)]


class Room:
    """People who rate the items of a round, one after the other, without a store."""

    def __init__(self, items: int, **rating: Any) -> None:
        self.rating, self.items = Rating(**rating), IDS[:items]
        self.ballots, self.now = Ballots(), NOW
        self.other: dict[str, int] = {}  # item -> how many people shall rate it, unless as many as the others

    def desk(self, annotator: str) -> Desk:
        needed = dict.fromkeys(self.items, self.rating.people) | self.other
        return Desk(self.rating, needed, self.ballots, annotator, self.now)

    def show(self, annotator: str) -> Offer | None:
        """What a person gets when the page is loaded; it is held for them."""
        self.now += datetime.timedelta(seconds=1)
        offer = next(iter(self.desk(annotator).offers()), None)
        if offer and offer.hold:
            self.ballots = replace(self.ballots, held=(*self.ballots.held, offer.hold))
        return offer

    def vote(self, annotator: str, offer: Offer, skipped: bool = False) -> Vote:
        ranks = () if skipped else (1, 2)
        vote = Vote(
            round="r", item=offer.item, annotator=annotator, showing=offer.showing, shown=(0, 1), ranks=ranks,
            skipped=skipped, when=self.now,
        )  # fmt: skip
        self.ballots = replace(self.ballots, votes=(*self.ballots.votes, vote))
        return vote

    def take_back(self, vote: Vote) -> None:
        back = TakenBack(vote=vote.name, annotator=vote.annotator, when=self.now)
        self.ballots = replace(self.ballots, taken_back={**self.ballots.taken_back, vote.name: back})

    def rate(self, annotator: str, skipped: bool = False) -> Offer | None:
        offer = self.show(annotator)
        if offer:
            self.vote(annotator, offer, skipped)
        return offer


@settings(max_examples=25)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(3, 5), st.integers(0, 1000))
def test_every_item_is_rated_by_as_many_people_as_asked_and_never_by_more(
    items: int, people: int, workers: int, seed: int
) -> None:
    room, drawn = Room(items, people=people, repeated=0.2, repeat_after=2), random.Random(seed)
    names = [f"p{number}" for number in range(workers)]
    for _ in range(items * workers * 3):
        room.rate(drawn.choice(names))
        spread = people_of(room.ballots.counting)
        assert max(spread[item] for item in room.items) - min(spread[item] for item in room.items) <= workers
    for name in names:
        while room.rate(name):
            pass
    assert people_of(room.ballots.counting) == dict.fromkeys(room.items, people)
    times = Counter((vote.item, vote.annotator) for vote in room.ballots.votes)
    assert set(times.values()) <= {1, 2}
    for name in names:
        assert room.desk(name).progress().left == 0


def test_nobody_gets_a_second_item_before_every_item_has_a_first_reader() -> None:
    room = Room(20, people=2, repeated=0)
    for number in range(20):
        room.rate(f"p{number % 3}")
    assert people_of(room.ballots.counting) == dict.fromkeys(room.items, 1)


def test_two_people_do_not_see_the_items_in_the_same_order() -> None:
    orders = []
    for name in ("ann", "bob"):
        room = Room(12, people=1, repeated=0)
        orders.append([offer.item for _ in range(12) if (offer := room.rate(name))])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == IDS[:12]


def test_a_page_that_is_loaded_again_shows_the_same_item() -> None:
    room = Room(5, people=1)
    first = room.show("ann")
    again = room.show("ann")
    assert first is not None
    assert again is not None
    assert (first.hold is not None, again) == (True, Offer(first.item, 0))
    assert len(room.ballots.held) == 1


def test_a_held_item_goes_to_nobody_else_until_the_time_is_over() -> None:
    room = Room(1, people=1, hold_minutes=30)
    mine = room.show("ann")
    assert mine is not None
    assert room.show("bob") is None
    room.now += datetime.timedelta(minutes=31)
    theirs = room.show("bob")
    assert theirs is not None
    assert theirs.hold is not None
    assert (theirs.item, theirs.hold.slot, theirs.hold.generation) == (mine.item, 0, 1)
    assert room.show("ann") is None, "the item is bob's now"
    room.vote("ann", mine)
    assert room.ballots.counting, "the late vote counts"


def test_only_votes_that_the_page_asked_for_are_taken() -> None:
    room = Room(3, people=1, repeated=0)
    offer = room.show("ann")
    assert offer is not None
    allowed = [room.desk(name).may_vote(offer.item, showing) for name in ("ann", "bob") for showing in (0, 1)]
    assert allowed == [True, False, False, False]
    vote = room.vote("ann", offer)
    assert room.desk("ann").may_vote(offer.item, 0), "it is there, and is not kept again"
    assert not room.desk("ann").may_vote(offer.item, 1), "it is not to be repeated"
    room.take_back(vote)
    assert room.desk("ann").may_vote(offer.item, 1)
    room = Room(1, people=1, repeated=1)
    first = room.rate("ann")
    assert first is not None
    assert [room.desk("ann").may_vote(first.item, showing) for showing in (0, 1, 2)] == [True, True, False]


def test_who_rates_without_a_slot_counts_as_one_of_the_people() -> None:
    """A judge asks for no slot, and a late vote comes when the slot is somebody else's."""
    room = Room(4, people=1, repeated=0)
    for item in room.items:
        room.vote("judge:m", Offer(item, 0))
    assert room.desk("ann").offers() == []
    assert room.desk("ann").progress() == Progress(done=4, needed=4, mine=0, left=0, by_models=4)
    room = Room(1, people=2, repeated=0, hold_minutes=30)
    room.vote("judge:m", Offer(IDS[0], 0))
    mine = room.show("ann")
    assert mine is not None
    assert room.show("bob") is None, "ann and the judge are two"
    room.now += datetime.timedelta(minutes=31)
    theirs = room.show("bob")
    assert theirs is not None
    room.vote("ann", mine)
    assert room.show("cat") is None
    assert room.desk("bob").may_vote(theirs.item, 0), "who has the item may still vote"


def test_an_item_that_needs_fewer_people_is_complete_with_them() -> None:
    room = Room(3, people=2, repeated=0)
    room.other = {IDS[1]: 1, IDS[2]: 0}
    room.vote("judge:m", Offer(IDS[0], 0))
    assert {(room.rate("ann") or Offer("", 0)).item for _ in range(2)} == {IDS[0], IDS[1]}
    assert room.show("ann") is None
    assert room.show("bob") is None
    assert room.desk("bob").progress() == Progress(done=3, needed=3, mine=0, left=0, by_models=1)


def test_a_person_who_got_two_slots_counts_once() -> None:
    room = Room(1, people=2, repeated=0)
    held = [
        Held(item=IDS[0], slot=slot, generation=generation, annotator=name, when=NOW)
        for slot, generation, name in ((0, 0, "bob"), (1, 0, "ann"), (0, 1, "ann"))
    ]
    room.ballots = Ballots(held=tuple(held))
    room.vote("ann", Offer(IDS[0], 0))
    assert room.rate("cat") is not None
    assert people_of(room.ballots.counting) == {IDS[0]: 2}


def test_an_item_that_is_skipped_goes_to_somebody_else_and_not_to_the_same_person() -> None:
    room = Room(1, people=1)
    room.rate("ann", skipped=True)
    assert room.show("ann") is None
    assert people_of(room.ballots.counting) == {}
    assert room.rate("bob") is not None
    assert people_of(room.ballots.counting) == dict.fromkeys(room.items, 1)


def test_a_vote_that_is_taken_back_is_asked_for_again_with_the_next_number() -> None:
    room = Room(1, people=1)
    offer = room.show("ann")
    assert offer is not None
    vote = room.vote("ann", offer)
    assert room.show("ann") is None
    room.now += datetime.timedelta(hours=2)
    room.take_back(vote)
    again = room.show("ann")
    assert again == Offer(offer.item, 1), "its time to be held begins again"
    room.vote("ann", again)
    assert room.desk("ann").progress() == Progress(1, 1, 1, 0)
    assert [kept.showing for kept in room.ballots.counting] == [1]


def test_a_vote_that_is_taken_back_and_not_given_again_goes_to_somebody_else() -> None:
    room = Room(1, people=1)
    offer = room.show("ann")
    assert offer is not None
    room.take_back(room.vote("ann", offer))
    assert room.show("bob") is None
    room.now += datetime.timedelta(hours=1)
    assert room.show("bob") is not None


def test_repeated_items_come_after_enough_others_or_at_the_end() -> None:
    room = Room(12, people=1, repeated=1, repeat_after=3)
    seen = [(offer.item, offer.showing) for _ in range(40) if (offer := room.rate("ann"))]
    assert Counter(item for item, _ in seen) == dict.fromkeys(room.items, 2)
    first = {item: place for place, (item, showing) in enumerate(seen) if showing == 0}
    second = {item: place for place, (item, showing) in enumerate(seen) if showing == 1}
    gaps = [second[item] - first[item] for item in room.items]
    assert sum(gap <= 3 for gap in gaps) <= 3, "only at the end it is too early for the last ones"
    assert min(second.values()) == 4, "they do not wait for the end"


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_about_the_share_that_is_asked_for_is_repeated(share: float) -> None:
    room = Room(100, people=1, repeated=share)
    while room.rate("ann"):
        pass
    twice = sum(count == 2 for count in Counter(vote.item for vote in room.ballots.votes).values())
    assert abs(twice - 100 * share) <= 15 * (share > 0)


def test_progress_counts_votes_of_the_round_and_of_the_person() -> None:
    room = Room(3, people=2, repeated=0)
    room.rate("ann"), room.rate("bob"), room.rate("ann", skipped=True)
    assert room.desk("ann").progress() == Progress(done=2, needed=6, mine=2, left=1)
    assert room.desk("bob").progress() == Progress(done=2, needed=6, mine=1, left=2)
    stray = Vote(round="r", item="f" * 32, annotator="x", showing=0, shown=(0, 1), ranks=(1, 2), when=NOW)
    room.ballots = replace(room.ballots, votes=(*room.ballots.votes, stray))
    assert room.desk("ann").progress().done == 2, "votes on items that the round does not have do not count"


@given(st.integers(2, 4), st.text(max_size=20), st.integers(0, 3))
def test_replies_stand_in_an_order_that_a_showing_always_has(replies: int, annotator: str, showing: int) -> None:
    order = order_of(replies, IDS[0], annotator, showing)
    assert sorted(order) == list(range(replies))
    assert order == order_of(replies, IDS[0], annotator, showing)


def test_the_order_of_replies_cannot_be_told_without_the_rounds_salt() -> None:
    orders = {salt: [order_of(2, item, "ann", 0, salt) for item in IDS] for salt in ("", "a", "b")}
    for one, other in (("", "a"), ("a", "b")):
        alike = sum(mine == theirs for mine, theirs in zip(orders[one], orders[other], strict=True))
        assert 35 <= alike <= 65, "as often as by chance"


@pytest.mark.parametrize(
    "change", [lambda n: (IDS[n], "a", 0), lambda n: (IDS[0], str(n), 0), lambda n: (IDS[0], "a", n)]
)
def test_each_order_is_as_frequent_as_another(change: Callable[[int], tuple[str, str, int]]) -> None:
    counts = Counter(order_of(3, *change(number)) for number in range(100))
    counts.update(order_of(3, item, annotator, showing + 100) for item, annotator, showing in map(change, range(100)))
    assert len(counts) == 6
    assert max(counts.values()) < 60


def test_the_holder_of_a_slot_is_the_last_generation() -> None:
    room = Room(1, people=1)
    held = [
        Held(item=IDS[0], slot=0, generation=generation, annotator=name, when=NOW)
        for generation, name in ((1, "bob"), (0, "ann"))
    ]
    room.ballots = Ballots(held=tuple(held))
    assert room.show("bob") == Offer(IDS[0], 0)
    assert room.show("ann") is None
