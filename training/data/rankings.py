"""The preferences by prompt: all pairs of replies to one prompt together, as one ranking."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from contract.conversation import Conversation, Preference
from training.data.examples import Examples, prompt_key

MOST_REPLIES = 9
"""Replies to one prompt that are compared: labelers ranked 4 to 9 (InstructGPT, section 3.5). All go through a model at
once; pairs with more of them are left out."""


@dataclass(frozen=True)
class Ranking:
    """A prompt, replies to it, each once, and the pairs (better, worse) of which people prefer one, by their places.

    scores: people's, higher is better; None of a reply that was only ranked. task: what kind of prompt it is.
    weights: of each pair in the loss.
    """

    prompt: Conversation
    replies: tuple[str, ...]
    scores: tuple[float | None, ...]
    pairs: tuple[tuple[int, int], ...]
    task: str = ""
    weights: tuple[float, ...] = ()

    @property
    def weighted(self) -> list[tuple[int, int, float]]:
        """The pairs with their weights, which are 1 if none are given."""
        weights = self.weights or (1.0,) * len(self.pairs)
        return [(better, worse, weight) for (better, worse), weight in zip(self.pairs, weights, strict=True)]


def ranking_of(pairs: Sequence[Preference]) -> Ranking:
    """One ranking of pairs that share a prompt. Of more than MOST_REPLIES replies, the first ones count."""
    scores: dict[str, float | None] = {}
    kept = []
    for pair in pairs:
        both = {pair.chosen: pair.chosen_score, pair.rejected: pair.rejected_score}
        if len(scores.keys() | both.keys()) <= MOST_REPLIES:
            scores |= both
            kept.append(pair)
    places = {text: place for place, text in enumerate(scores)}
    better = {(places[pair.chosen], places[pair.rejected]): pair.weight for pair in kept}
    texts, given = tuple(scores), tuple(scores.values())
    return Ranking(pairs[0].prompt, texts, given, tuple(better), pairs[0].task or "", tuple(better.values()))


class Rankings(Sequence[Ranking]):
    """The rankings of pairs, in the order of their first pairs. Texts are read only when a ranking is asked for."""

    def __init__(self, pairs: Examples[Preference], members: Sequence[Sequence[int]] | None = None) -> None:
        """`members` has the places of each ranking's pairs; None: those of one prompt are together."""
        self._pairs = pairs
        self._members = by_prompt(pairs) if members is None else members

    @property
    def numbers(self) -> list[int]:
        """The row of each ranking's first pair among all that were committed."""
        return [self._pairs.numbers[one[0]] for one in self._members]

    def without(self, dropped: Container[int]) -> "Rankings":
        """The rankings whose place is not among `dropped`."""
        return Rankings(self._pairs, [one for place, one in enumerate(self._members) if place not in dropped])

    def only(self, kept: Sequence[int]) -> "Rankings":
        """The rankings at these places."""
        return Rankings(self._pairs, [self._members[place] for place in kept])

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, index: int) -> Ranking: ...
    @overload
    def __getitem__(self, index: slice) -> list[Ranking]: ...
    def __getitem__(self, index: int | slice) -> Ranking | list[Ranking]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        return ranking_of([self._pairs[place] for place in self._members[index]])

    def __iter__(self) -> Iterator[Ranking]:
        return (self[place] for place in range(len(self)))


def by_prompt(pairs: Sequence[Preference]) -> list[list[int]]:
    """The places of the pairs of each prompt, in the order of the first ones."""
    found: dict[int, list[int]] = {}
    for place, pair in enumerate(pairs):
        found.setdefault(prompt_key(pair.prompt), []).append(place)
    return list(found.values())
