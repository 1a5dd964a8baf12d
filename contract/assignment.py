"""Who rates which item next, and how much is left. Pure functions of what was written into a round.

An item has as many places, called slots, as people shall rate it. A slot is given to a person by creating a file, which
succeeds once; so no two people can get the same slot, however many ask at the same moment. A slot is free again if its
person skips the item, or has not voted when the time to hold it is over; the next holder creates the next generation.
Who has rated an item without a slot, as judges do, is one of its people, too.
"""

import datetime
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from contract.feedback import HELD, JUDGE, VOTE, Ballots, Held, Vote, by_item, key_of
from contract.settings.feedback import Rating

TRIED = 50
"""So many free slots are offered at once, in case other people are faster at the first ones."""


def drawn(*parts: object) -> float:
    """A number from 0 to below 1 that the parts decide."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode(errors="replace")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def order_of(replies: int, item: str, annotator: str, showing: int, salt: str = "") -> tuple[int, ...]:
    """The reply at each place of the page: random, and the same whenever the same person sees the same showing.

    salt: of the round. Without it, who knows the other values knows the order, which is right for judges alone.
    """
    return tuple(sorted(range(replies), key=lambda reply: drawn("order", salt, item, annotator, showing, reply)))


@dataclass(frozen=True)
class Offer:
    """An item for a person. hold: the file to create first, which may fail; None if the person has the item already."""

    item: str
    showing: int
    hold: Held | None = None


@dataclass(frozen=True)
class Progress:
    """Of a round: votes that count towards its items, and how many it needs. Of a person: votes, and what is left.

    left: items that the person could rate now, with those to be rated a second time. by_models: of `done`.
    """

    done: int
    needed: int
    mine: int
    left: int
    by_models: int = 0


@dataclass(frozen=True)
class Desk:
    """A round as one person sees it at one moment. items: the ids of the round's items, in their order -> how many
    people shall rate each."""

    rating: Rating
    items: Mapping[str, int]
    ballots: Ballots
    annotator: str
    now: datetime.datetime

    @cached_property
    def _all(self) -> Mapping[str, list[Vote]]:
        """Item -> all of the person's votes on it, also those that were taken back, the oldest first."""
        mine = [vote for vote in self.ballots.votes if vote.annotator == self.annotator]
        return by_item(sorted(mine, key=lambda vote: (vote.when, vote.showing)))

    @cached_property
    def mine(self) -> Mapping[str, list[Vote]]:
        """Item -> the person's votes on it that count, the oldest first."""
        back = self.ballots.taken_back
        return {item: kept for item, votes in self._all.items() if (kept := [v for v in votes if v.name not in back])}

    @cached_property
    def _voted(self) -> Mapping[tuple[str, str], Vote]:
        """(Item, annotator) -> a vote that counts."""
        return {(vote.item, vote.annotator): vote for vote in self.ballots.counting}

    @cached_property
    def _holders(self) -> Mapping[str, dict[int, Held]]:
        """Item -> slot -> who got it last."""
        found: dict[str, dict[int, Held]] = defaultdict(dict)
        for held in sorted(self.ballots.held, key=lambda one: one.generation):
            found[held.item][held.slot] = held
        return found

    @cached_property
    def _returned(self) -> Mapping[tuple[str, str], datetime.datetime]:
        """(Item, annotator) -> when a vote on it was taken back last; its person may then vote again."""
        found: dict[tuple[str, str], datetime.datetime] = {}
        for name, back in self.ballots.taken_back.items():
            key = (name[:32], back.annotator)
            found[key] = max(back.when, found.get(key, back.when))
        return found

    @cached_property
    def _lost(self) -> Mapping[str, set[int]]:
        """Item -> the showings of the person whose votes cannot be read."""
        found: dict[str, set[int]] = defaultdict(set)
        for one in _named(VOTE, "votes/", self.ballots.damaged):
            if one[2] == key_of(self.annotator):
                found[one[1]].add(int(one[3]))
        return found

    @cached_property
    def _used(self) -> Mapping[tuple[str, int], int]:
        """(Item, slot) -> the highest generation whose file cannot be read."""
        found: dict[tuple[str, int], int] = {}
        for one in _named(HELD, "held/", self.ballots.damaged):
            key = one[1], int(one[2])
            found[key] = max(int(one[3]), found.get(key, 0))
        return found

    def showing(self, item: str) -> int:
        """The number of the person's next vote on an item, from 0. A vote that cannot be read has its number too."""
        seen = {vote.showing for vote in self._all.get(item, ())} | self._lost.get(item, set())
        return max(seen, default=-1) + 1

    def may_vote(self, item: str, showing: int) -> bool:
        """Whether the page may have asked the person for this vote: before, or now.

        A vote that was asked for before may be there already, and is then not kept a second time.
        """
        if showing != self.showing(item):
            return showing < self.showing(item) and showing not in self._lost.get(item, ())
        if item in self.mine:
            return item in self.again()
        return any(held.item == item and held.annotator == self.annotator for held in self.ballots.held)

    def _busy(self, held: Held) -> bool:
        """Whether a slot is taken: its holder has rated the item, or may still do so."""
        key = held.item, held.annotator
        if vote := self._voted.get(key):
            return not vote.skipped
        since = max(held.when, self._returned.get(key, held.when))
        return (self.now - since).total_seconds() < self.rating.hold_minutes * 60

    @cached_property
    def _raters(self) -> Mapping[str, set[str]]:
        """Item -> who has rated it, also those who never had a slot: judges, and people who voted late."""
        found: dict[str, set[str]] = defaultdict(set)
        for vote in self.ballots.counting:
            if not vote.skipped:
                found[vote.item].add(vote.annotator)
        return found

    def _slots(self, item: str) -> tuple[int, int | None]:
        """(How many people have rated an item or may still do so, the first free slot, or None if they are enough)."""
        busy = {slot: held.annotator for slot, held in self._holders.get(item, {}).items() if self._busy(held)}
        first_of = {name: slot for slot, name in sorted(busy.items(), reverse=True)}  # who got two slots needs one
        people, needed = self._raters.get(item, set()) | set(first_of), self.items[item]
        free = [slot for slot in range(needed) if slot not in first_of.values()]
        return len(people), free[0] if len(people) < needed else None

    def _hold(self, item: str, slot: int) -> Held:
        """The file that gives a free slot to the person."""
        before = self._holders.get(item, {}).get(slot)
        last = max(before.generation if before else -1, self._used.get((item, slot), -1))
        return Held(item=item, slot=slot, generation=last + 1, annotator=self.annotator, when=self.now)

    def _begun(self) -> Iterator[str]:
        """Items that the person holds and has not answered, the first that was shown first."""
        held = [one for holders in self._holders.values() for one in holders.values()]
        for one in sorted(held, key=lambda one: (one.when, one.item)):
            if one.annotator == self.annotator and one.item not in self.mine and self._busy(one):
                yield one.item

    def again(self) -> list[str]:
        """Items that the person shall rate a second time, those that were rated first first."""
        once = [votes[0] for votes in self.mine.values() if len(votes) == 1 and not votes[0].skipped]
        chosen = [vote for vote in once if self._is_repeated(vote.item)]
        return [vote.item for vote in sorted(chosen, key=lambda vote: (vote.when, vote.item))]

    def _is_repeated(self, item: str) -> bool:
        return drawn("again", self.rating.seed, item, self.annotator) < self.rating.repeated

    def _due(self) -> Iterator[str]:
        """Of `again`, those after which the person has rated enough others."""
        times = sorted(vote.when for votes in self.mine.values() for vote in votes)
        for item in self.again():
            if sum(when > self.mine[item][0].when for when in times) >= self.rating.repeat_after:
                yield item

    @cached_property
    def _fresh(self) -> list[tuple[str, int]]:
        """(Item, free slot) of items that are new to the person: those with the fewest people first, then by lot."""
        found = []
        for item in self.items:
            if item not in self.mine:
                taken, free = self._slots(item)
                if free is not None:
                    found.append((taken, drawn("next", self.rating.seed, self.annotator, item), item, free))
        return [(item, free) for *_, item, free in sorted(found)]

    def offers(self) -> list[Offer]:
        """What the person may rate next, the best first; empty if nothing is left.

        First what was shown and not answered, so that a page that is loaded again shows the same item. Then what is to
        be rated again, then new items, and at the end what is to be rated again too early.
        """
        if own := next(self._begun(), None):
            return [Offer(own, self.showing(own))]
        if due := next(self._due(), None):
            return [Offer(due, self.showing(due))]
        fresh = [Offer(item, self.showing(item), self._hold(item, slot)) for item, slot in self._fresh[:TRIED]]
        return fresh or [Offer(item, self.showing(item)) for item in self.again()[:1]]

    def progress(self) -> Progress:
        """How far the round and the person are."""
        done = people_of(self.ballots.counting)
        models = people_of([vote for vote in self.ballots.counting if vote.annotator.startswith(JUDGE)])
        kept = sum(min(done[item], needed) for item, needed in self.items.items())
        open_now = {*self._begun(), *(item for item, _ in self._fresh)}
        return Progress(
            done=kept,
            needed=sum(self.items.values()),
            mine=sum(len(votes) for votes in self.mine.values()),
            left=len(open_now) + len(self.again()),
            by_models=sum(min(models[item], needed) for item, needed in self.items.items()),
        )


def _named(pattern: re.Pattern[str], folder: str, paths: Iterable[str]) -> Iterator[re.Match[str]]:
    """The parts of the names of those of these files that lie in a folder."""
    return filter(None, (pattern.fullmatch(path.removeprefix(folder)) for path in paths if path.startswith(folder)))


def people_of(counting: Collection[Vote]) -> Counter[str]:
    """Item -> how many people have rated it; those who skipped it have not."""
    return Counter(item for item, _ in {(vote.item, vote.annotator) for vote in counting if not vote.skipped})
