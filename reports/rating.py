"""What the pages on feedback show: which item a person rates next, texts with their code, and what votes are worth."""

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from contract import feedback
from contract.assignment import Desk, Offer, order_of
from contract.digest import split_digest
from contract.feedback import Item, Round, Vote
from contract.plan import Run
from contract.settings.feedback import Trust
from contract.store import Store
from evals import annotators
from evals.bradley_terry import Table, bradley_terry

SHOWN_CHARS = 20_000  # of one text
FENCE = re.compile(r"[ \t]{0,3}+(`{3,}+|~{3,}+)[ \t]*+([\w+#.-]{0,30}+)[^`\n]*+")  # never goes back, so linear
NEWEST = 50  # own votes that are listed
LETTERS = "ABCD"


@dataclass(frozen=True)
class Piece:
    """A part of a text: running words, or code with the language that its fence names."""

    text: str
    code: bool = False
    language: str = ""


def pieces(text: str, most: int = SHOWN_CHARS) -> list[Piece]:
    """The first `most` characters of a text as running words and fenced code blocks (CommonMark 0.31, section 4.5)."""
    found: list[Piece] = []
    lines: list[str] = []
    fence, language = "", ""
    for line in text[:most].split("\n"):
        mark = FENCE.fullmatch(line)
        if not fence and mark:
            _add(found, lines)
            lines, fence, language = [], mark[1], mark[2]
        elif fence and mark and mark[1].startswith(fence) and not line[mark.end(1) :].strip():
            _add(found, lines, code=True, language=language)
            lines, fence = [], ""
        else:
            lines.append(line)
    _add(found, lines, code=bool(fence), language=language if fence else "")
    return found


def _add(found: list[Piece], lines: list[str], code: bool = False, language: str = "") -> None:
    said = "\n".join(lines)
    if said.strip() or code:
        found.append(Piece(said if code else said.strip("\n"), code, language))


def rounds_of(run: Run) -> list[Round]:
    """The rounds over a run's replies and those whose votes it learns from, the newest first.

    Those that cannot be read are left out.
    """
    name = split_digest(run.uri)[0].split("/")[-2]
    return [one for one in reversed(feedback.rounds(run.store)[0]) if one.run == name or _learns(run, one)]


def _learns(run: Run, made: Round) -> bool:
    """Whether the recipe of a run names votes of a round."""
    return any(f"/{made.folder}/frozen/" in one.votes for one in run.recipe.preferences.rounds.values())


def closed(run: Run, made: Round) -> str:
    """Why a round to which a run leads takes no vote of people, as a sentence; empty if it takes votes."""
    if _learns(run, made) or feedback.is_closed(run.store, made):
        return "This round was collected: a run learns from its votes, and a vote that came now would change nothing."
    if made.by_model:
        return "A model compares the replies of this round, so it takes no votes of people."
    return ""


@dataclass(frozen=True)
class Sheet:
    """A round as one person sees it now. item: what the person rates next, None if nothing is left."""

    round: Round
    desk: Desk
    items: Mapping[str, Item]
    item: Item | None = None
    showing: int = 0

    @property
    def order(self) -> tuple[int, ...]:
        """The reply at each place of the page."""
        if self.item is None:
            return ()
        return order_of(len(self.item.replies), self.item.id, self.desk.annotator, self.showing, self.round.salt)


def sheet(store: Store, made: Round, annotator: str, now: datetime.datetime) -> Sheet:
    """A round as one person sees it, without an item."""
    items = feedback.items(store, made)
    needed = {name: made.people(item) for name, item in items.items()}
    return Sheet(made, Desk(made.rating, needed, feedback.ballots(store, made), annotator, now), items)


def offered(store: Store, found: Sheet) -> Sheet:
    """The same with the item that the person rates next, which is then kept for the person for a while."""
    for offer in found.desk.offers():
        if offer.hold is None or feedback.hold(store, found.round, offer.hold):
            return showing(found, offer)
    return found


def showing(found: Sheet, offer: Offer) -> Sheet:
    """The same with a given item."""
    return Sheet(found.round, found.desk, found.items, found.items[offer.item], offer.showing)


def own_votes(found: Sheet) -> list[Vote]:
    """The person's votes, the newest first, also those that were taken back."""
    mine = [vote for vote in found.desk.ballots.votes if vote.annotator == found.desk.annotator]
    return sorted(mine, key=lambda vote: (vote.when, vote.name), reverse=True)[:NEWEST]


def told(vote: Vote) -> str:
    """What a vote says, with the letters under which the person saw the replies: `B over A = C`."""
    if vote.skipped:
        return "skipped"
    place = {reply: LETTERS[at] for at, reply in enumerate(vote.shown)}
    ranked = sorted((rank, place[reply]) for reply, rank in enumerate(vote.ranks))
    steps = [" = " if one[0] == other[0] else " over " for one, other in pairwise(ranked)]
    said = "".join(step + letter for (_, letter), step in zip(ranked, ["", *steps], strict=False))
    return ", ".join(filter(None, (said, "all bad" if vote.all_bad else "")))


@dataclass(frozen=True)
class Judged:
    """The votes of a round, measured. left_out: annotator -> why their votes would be left out."""

    quality: annotators.Quality
    left_out: Mapping[str, str]
    weights: Mapping[str, float]
    votes: int
    taken_back: int
    damaged: int


def judge(store: Store, made: Round, trust: Trust) -> Judged:
    """Measure the votes of a round that count."""
    items, found = feedback.items(store, made), feedback.ballots(store, made)
    gone, kept = annotators.left_out(items, found.counting, trust)
    return Judged(
        annotators.measure(items, found.counting),
        gone,
        annotators.weights(kept),
        len(found.counting),
        len(found.taken_back),
        len(found.damaged),
    )


def strengths(store: Store, made: Round, trust: Trust) -> tuple[Table, int, Mapping[str, str]]:
    """(Bradley-Terry scores of the models of a round, how many comparisons they are of, whose votes are left out)."""
    items, found = feedback.items(store, made), feedback.ballots(store, made)
    gone, _ = annotators.left_out(items, found.counting, trust)
    compared = annotators.comparisons(items, [vote for vote in found.counting if vote.annotator not in gone])
    return bradley_terry(compared), len(compared), gone


def freeze(store: Store, made: Round, trust: Trust) -> tuple[str, Mapping[str, str]]:
    """Freeze the votes of the people who are trusted, with their weights: (the file's path, whose are left out)."""
    votes = feedback.ballots(store, made).counting
    gone, kept = annotators.left_out(feedback.items(store, made), votes, trust)
    return feedback.freeze(store, made, votes, annotators.weights(kept), gone), gone
