"""The votes of people in rounds of feedback, as preference pairs."""

from collections import Counter
from collections.abc import Iterator, Sequence

from contract import feedback
from contract.conversation import Conversation, Preference, Turn
from contract.errors import InputError
from contract.examples import Unusable, clean
from contract.feedback import Compared, Frozen, Item, Vote
from contract.schema import SNIPPET_CHARS, Drop
from contract.settings.examples import Preferences
from contract.store import Store
from pipelines.examples.reading import Row


def read_votes(settings: Preferences, shapes: Counter[str]) -> Iterator[Row[Preference]]:
    """The pairs of every round that the recipe names, the newest round first; counts the items of each that have votes.

    A limit of examples so cuts the oldest rounds, whose replies are of models that are long gone. A round of which
    nothing was read is counted with 0.

    Raises InputError, which begins with the recipe's key, if a file holds no frozen votes or those of a comparison of
    models, and DamagedError if a vote is gone or has changed.
    """
    opened = [(one.weight, *_opened(name, one.votes)) for name, one in settings.rounds.items()]
    opened.sort(key=lambda one: -one[2].round.number)
    shapes.update({_shape(frozen): 0 for _, _, frozen in opened})
    read = [(*one, feedback.votes_of(*one[1:])) for one in opened]  # all of them first, so that a lost vote ends it now
    for weight, store, frozen, votes in read:
        items = feedback.items(store, frozen.round)
        for item, given in feedback.by_item(votes).items():
            if item in items:
                shapes[_shape(frozen)] += 1
                yield from pairs(items[item], given, frozen, weight, f"{frozen.round.name} item {item}")


def _shape(frozen: Frozen) -> str:
    return f"votes of {frozen.round.name}"


def _opened(name: str, uri: str) -> tuple[Store, Frozen]:
    try:
        store, frozen = feedback.open_frozen(uri)
    except InputError as error:
        raise InputError(f"preferences.rounds.{name}.votes: {error}") from None
    if frozen.round.purpose != "preferences":
        raise InputError(
            f"preferences.rounds.{name}.votes: the round {frozen.round.name} compares models for evaluation, "
            "so nothing may be learned from it; name another round"
        )
    return store, frozen


def pairs(item: Item, votes: Sequence[Vote], frozen: Frozen, weight: float, place: str) -> Iterator[Row[Preference]]:
    """The pairs of one item, each with the weight of the round times the margin of its votes."""
    snippet = item.prompt[-1].text[:SNIPPET_CHARS]
    try:
        prompt = tuple(Turn(turn.role, _cleaned(turn.text, "prompt")) for turn in item.prompt)
        texts = [_cleaned(reply.text, "reply") for reply in item.replies]
    except Unusable as why:
        yield Row(place, why, snippet)
        return
    found = feedback.compared(item, votes, lambda annotator: frozen.weights.get(annotator, 0.0))
    if not found:
        yield Row(place, Unusable(Drop.REPLIES_TIE), snippet)
    for one in found:
        yield Row(place, _pair(prompt, texts, item.task, one, weight), snippet)


def _cleaned(text: str, what: str) -> str:
    found = clean(text)
    if not found:
        raise Unusable(Drop.EMPTY_TEXT, what)
    return found


def _pair(prompt: Conversation, texts: Sequence[str], task: str, one: Compared, weight: float) -> Preference | Unusable:
    better, worse = texts[one.better], texts[one.worse]
    if better == worse:
        return Unusable(Drop.REPLIES_ARE_EQUAL)
    return Preference(prompt, better, worse, task, weight=round(weight * one.margin, 6))


def vote_uris(settings: Preferences) -> list[str]:
    """The URIs of the files of frozen votes and of every vote in them, for lineage."""
    found = []
    for name, one in settings.rounds.items():
        store, frozen = _opened(name, one.votes)
        found += [one.votes, *(store.full(vote.path) for vote in frozen.votes)]
    return found
