"""Simulated people who know the true reward of a reply, with noise: three of different quality, and one who lies."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contract import feedback
from contract.assignment import order_of
from contract.conversation import Turn
from contract.feedback import Item, Reply, Round, Vote, item_id
from contract.settings.feedback import Rating
from contract.store import Store

Floats = npt.NDArray[np.float64]
FEATURES = 6
People = Mapping[str, tuple[float, int]]
PEOPLE: People = {"careful": (0.3, 1), "usual": (0.8, 1), "hasty": (1.5, 1), "liar": (0.3, -1)}
"""Name -> (the standard deviation of the noise on a reward, whose own is 1; 1 who tells the truth, or -1 who turns it)."""
LIAR = "liar"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class World:
    """A true reward, linear in the numbers that the text of a reply holds. direction: (FEATURES,), of length 1."""

    direction: Floats

    @classmethod
    def drawn(cls, random: np.random.Generator) -> "World":
        direction = random.standard_normal(FEATURES)
        return cls(direction / np.linalg.norm(direction))

    def reward(self, numbers: Floats) -> Floats:
        """numbers: (..., FEATURES), standard normal. Shape (...), with a standard deviation of 1."""
        return np.asarray(numbers @ self.direction)


def text_of(numbers: Floats) -> str:
    """A reply that holds the numbers."""
    return " ".join(f"{number:.3f}" for number in numbers)


def numbers_of(text: str) -> Floats:
    return np.array([float(word) for word in text.split()])


def make_items(random: np.random.Generator, world: World, count: int, gold: float) -> list[Item]:
    """Items of two to four replies, of which a share has the true ranking as gold."""
    found = []
    for number in range(count):
        replies = tuple(
            Reply(text_of(random.standard_normal(FEATURES)), f"model-{at}", 1.0)
            for at in range(int(random.integers(2, 5)))
        )
        prompt = (Turn("user", f"prompt {number}"),)
        known = ranks(world.reward(np.array([numbers_of(reply.text) for reply in replies])))
        found.append(Item(item_id(prompt, replies), 1, prompt, replies, known if random.random() < gold else ()))
    return found


def ranks(rewards: Sequence[float] | Floats, tie: float = 0.0) -> tuple[int, ...]:
    """The rank of each reply, 1 for the highest reward; one that is at most `tie` below the next higher one ties."""
    order = np.argsort(-np.asarray(rewards), kind="stable")
    found, rank = [0] * len(order), 1
    for place, reply in enumerate(order.tolist()):
        if place and rewards[order[place - 1]] - rewards[reply] > tie:
            rank += 1
        found[reply] = rank
    return tuple(found)


def votes(
    random: np.random.Generator,
    world: World,
    items: Sequence[Item],
    made: str,
    each: int,
    again: float = 0.1,
    people: People = PEOPLE,
) -> Iterator[Vote]:
    """Votes of `each` of the people on every item, in turns; a share of them a second time. made: the round's name."""
    names = list(people)
    for number, item in enumerate(items):
        rewards = world.reward(np.array([numbers_of(reply.text) for reply in item.replies]))
        for turn in range(each):
            name = names[(number + turn) % len(names)]
            spread, truth = people[name]
            for showing in range(2 if random.random() < again else 1):
                seen = truth * rewards + spread * random.standard_normal(len(rewards))
                yield Vote(
                    round=made,
                    item=item.id,
                    annotator=name,
                    showing=showing,
                    shown=order_of(len(rewards), item.id, name, showing),
                    ranks=ranks(seen, 0.1),
                    seconds=float(random.uniform(3, 60)),
                    when=NOW + datetime.timedelta(seconds=len(names) * number + turn, hours=showing),
                )


def open_round(store: Store, items: Sequence[Item], name: str, **rating: float) -> Round:
    """A round of these items."""
    file = feedback.write_items(store, f"sample/{name}/items.parquet", items)
    wanted = Rating.model_validate(rating)
    return feedback.open_round(store, Round(name=name, number=1, run="bench", opened=NOW, files=(file,), rating=wanted))
