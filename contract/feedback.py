"""Feedback of people: the items of a round, the votes on them, and the votes that are frozen for training.

A round lies in the folder `feedback/<round>/` of the store. Every file there is created once and never changed:

    round.json                               what is rated, by whom it was made, and how it is given to people
    held/<item>-<slot>-<generation>.json     an item was shown to a person: `contract.assignment` says what that means
    votes/<item>-<annotator>-<showing>.json  a vote
    taken_back/<the name of a vote>          its annotator has taken the vote back
    frozen/<digest>.json                     the votes that count, as `preferences` reads them
    collected.json                           the run that learns from the votes; no vote is taken from then on

A vote is named by its item, its annotator and the showing, so the same form that is sent twice, by two tabs, by the
back button or after a time-out, makes one vote. `gc` and `verify` look at other folders, so rounds disturb neither.
"""

import datetime
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.conversation import Conversation, Turn
from contract.errors import DamagedError, InputError
from contract.kinds import Kind
from contract.manifest import File
from contract.settings.feedback import Rating
from contract.store import Store
from contract.tables import read_rows, written

FOLDER = "feedback"
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,79}")
VOTE = re.compile(r"([0-9a-f]{32})-([0-9a-f]{16})-(\d{1,4})\.json")
HELD = re.compile(r"([0-9a-f]{32})-(\d{1,3})-(\d{1,4})\.json")
MOST_BYTES = 1 << 16  # of one vote
MOST_ITEMS = 5_000  # of one round, which a web server holds in memory and lists at every vote
MOST_REPLIES = 4
READERS = 16
JUDGE = "judge:"  # how the name of a model that votes begins
Short = Annotated[str, Field(max_length=250)]
ItemId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Rank = Annotated[int, Field(ge=1, le=MOST_REPLIES)]
Score = Annotated[int, Field(ge=1, le=5)]
Purpose = Literal["preferences", "comparison"]
T = TypeVar("T", bound=BaseModel)
One = TypeVar("One")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Reply:
    """A reply. model: the fingerprint or address of what wrote it; reward: what `sample.judge` gives it.

    Nobody who votes sees these.
    """

    text: str
    model: str
    temperature: float
    reward: float | None = None


@dataclass(frozen=True)
class Item:
    """A prompt with two to four replies. gold: the known rank of each reply, 1 is the best; empty if none is known."""

    id: str
    round: int
    prompt: Conversation
    replies: tuple[Reply, ...]
    gold: tuple[int, ...] = ()
    task: str = ""

    def row(self) -> dict[str, Any]:
        """The item as a row of `contract.schema.RATED`."""
        return {
            "id": self.id,
            "round": self.round,
            "task": self.task,
            "prompt": [vars(turn) for turn in self.prompt],
            "replies": [vars(reply) for reply in self.replies],
            "gold": list(self.gold) or None,
        }

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Item":
        """The item of a row. Raises InputError for one that nobody could rate."""
        prompt = tuple(Turn(**turn) for turn in row["prompt"])
        replies = tuple(Reply(**reply) for reply in row["replies"])
        gold = tuple(row["gold"] or ())
        if not re.fullmatch(r"[0-9a-f]{32}", row["id"]) or not prompt or not 2 <= len(replies) <= MOST_REPLIES:
            raise InputError(
                f"item {row['id']}: needs 32 hexadecimal digits, a prompt, and 2 to {MOST_REPLIES} replies"
            )
        if gold and (len(gold) != len(replies) or not all(1 <= rank <= len(replies) for rank in gold)):
            raise InputError(f"item {row['id']}: gold needs a rank from 1 to {len(replies)} for each reply")
        return cls(row["id"], row["round"], prompt, replies, gold, row["task"] or "")


def item_id(prompt: Conversation, replies: Sequence[Reply]) -> str:
    """The id of an item: of its texts alone, so the same wherever the item stands.

    It stands on the page, so it must tell neither what wrote the replies nor their order, not even to who guesses.
    """
    said = [(turn.role, turn.text) for turn in prompt], sorted(reply.text for reply in replies)
    return hashlib.sha256(repr(said).encode(errors="replace")).hexdigest()[:32]


class Stored(BaseModel):
    """What lies in a file of a round."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    format: Literal[1] = 1


class Round(Stored):
    """A round. run: the folder in `runs/` of the run that it belongs to; made_by: the path of the items' manifest.

    dag: the DAG whose people may vote; if it is empty, those of whichever DAG's run leads to the round. purpose: its
    votes are learned from, or tell which of two models is better. by_model: a model compares the replies, and people
    are asked for none of its items. beside_gold: judges that vote on every item but the gold ones. salt: what the order
    of the replies on pages is drawn with, which no page shows; `open_round` draws it.
    """

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    number: Annotated[int, Field(ge=0, le=1_000_000)]
    run: Short
    opened: datetime.datetime
    files: tuple[File, ...]
    made_by: str = ""
    dag: Short = ""
    purpose: Purpose = "preferences"
    by_model: bool = False
    beside_gold: Annotated[int, Field(ge=0, le=100)] = 0
    rating: Rating = Rating()
    salt: Annotated[str, Field(pattern="^([0-9a-f]{32})?$")] = ""

    @property
    def folder(self) -> str:
        return f"{FOLDER}/{self.name}"

    def people(self, item: Item) -> int:
        """How many people shall rate an item, judges among them. None may be left for a gold item."""
        return max(0, self.rating.people - (self.beside_gold if item.gold else 0))


class Held(Stored):
    """An item was shown to somebody, who has it for a while. slot: which of the item's places; generation: how often
    the place was given before."""

    item: ItemId
    slot: Annotated[int, Field(ge=0, le=999)]
    generation: Annotated[int, Field(ge=0, le=9999)]
    annotator: Short
    when: datetime.datetime

    @property
    def name(self) -> str:
        return f"{self.item}-{self.slot}-{self.generation}.json"


class Vote(Stored):
    """One person's answer. All lists are in the order of the item's replies, not in the order in which they were shown.

    shown: the reply at each place of the page. ranks: 1 is the best, ties are equal numbers; empty if nothing was
    ranked. scores: criterion -> 1 to 5 for each reply, or None. seconds: from the page to the vote; None if unknown.
    """

    round: Short
    item: ItemId
    annotator: Annotated[str, Field(min_length=1, max_length=250)]
    showing: Annotated[int, Field(ge=0, le=9999)]
    shown: tuple[int, ...]
    ranks: tuple[Rank, ...] = ()
    scores: dict[str, tuple[Score | None, ...]] = {}
    all_bad: bool = False
    skipped: bool = False
    comment: Annotated[str, Field(max_length=2000)] = ""
    seconds: Annotated[float, Field(ge=0)] | None = None
    when: datetime.datetime

    @property
    def name(self) -> str:
        """The name of its file, which the same showing has whatever the answer is."""
        return f"{self.item}-{key_of(self.annotator)}-{self.showing}.json"

    @property
    def answer(self) -> tuple[Any, ...]:
        """What the person said. The same answer that is sent twice differs in its time alone."""
        scores = tuple(sorted(self.scores.items()))
        return self.ranks, scores, self.all_bad, self.skipped, self.comment

    def mistake(self, item: Item, rating: Rating) -> str:
        """What is wrong with the vote, as a sentence; empty if it can be kept."""
        count = len(item.replies)
        if sorted(self.shown) != list(range(count)):
            return f"The form does not fit this item, which has {count} replies."
        if self.ranks and len(self.ranks) != count:
            return "Rank every reply."
        if set(self.scores) - set(rating.criteria) or any(len(one) != count for one in self.scores.values()):
            return "The form has criteria that this round does not ask for."
        if not (self.skipped or self.all_bad or self.ranks):
            return "Rank every reply, or say that all are bad, or skip."
        return ""


class TakenBack(Stored):
    """A vote does not count any more. vote: its name; annotator: whose vote it is."""

    vote: Annotated[str, Field(pattern=f"^{VOTE.pattern}$")]
    annotator: Short
    when: datetime.datetime


class Collected(Stored):
    """A run learns from the round, so later votes would change nothing. run: its URI."""

    run: str
    when: datetime.datetime


@lru_cache(maxsize=10_000)
def key_of(annotator: str) -> str:
    """What stands for a person in names of files: 16 hexadecimal digits."""
    return hashlib.sha256(annotator.encode(errors="replace")).hexdigest()[:16]


@dataclass(frozen=True)
class Ballots:
    """Everything that was written into a round. votes: also those that were taken back.

    damaged: the files that are left out, as `votes/NAME`. Their names are used up: nothing else can be created there.
    """

    votes: tuple[Vote, ...] = ()
    taken_back: Mapping[str, TakenBack] = field(default_factory=dict)
    held: tuple[Held, ...] = ()
    damaged: tuple[str, ...] = ()

    @cached_property
    def counting(self) -> list[Vote]:
        """The votes that were not taken back, with those that skip."""
        return [vote for vote in self.votes if vote.name not in self.taken_back]


def open_round(store: Store, made: Round) -> Round:
    """Create a round, or return it if it is there. Raises InputError if it is there with other items or settings."""
    if not 1 <= sum(file.rows for file in made.files) <= MOST_ITEMS:
        raise InputError(f"round {made.name}: has 1 to {MOST_ITEMS:,} items")
    salted = made.model_copy(update={"salt": made.salt or secrets.token_hex(16)})
    store.create(f"{made.folder}/round.json", salted.model_dump_json(indent=1).encode())
    stands = read_round(store, made.name)
    if stands.model_copy(update={"opened": made.opened, "salt": made.salt}) != made:
        raise InputError(
            f"{store.full(made.folder)}/round.json: has other items or settings; give the round another name"
        )
    return stands


def read_round(store: Store, name: str) -> Round:
    """A round by its name. Raises InputError if there is none, and DamagedError if it cannot be read."""
    path = f"{FOLDER}/{name}/round.json"
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name of a round")
    try:
        return _parsed(store, path, Round)
    except FileNotFoundError:
        raise InputError(f"{store.full(path)}: there is no such round") from None


def rounds(store: Store) -> tuple[list[Round], list[str]]:
    """The rounds of a store, the newest last, and the names of those that cannot be read."""
    found, damaged = [], []
    for name in store.folders(FOLDER):
        try:
            found.append(read_round(store, name))
        except (InputError, DamagedError):
            damaged.append(name)
    return sorted(found, key=lambda one: (one.opened, one.name)), damaged


def write_items(store: Store, path: str, made: Sequence[Item]) -> File:
    """Write items as Parquet and return the file as a manifest lists it."""
    from contract.schema import RATED

    return written(store, path, Kind.RATED, [item.row() for item in made], RATED)


@lru_cache(maxsize=8)
def items(store: Store, made: Round) -> Mapping[str, Item]:
    """The items of a round by their ids, in the order of the files. They never change, so they are read once."""
    found = {row["id"]: Item.of(row) for file in made.files for row in read_rows(store, file)}
    return dict(list(found.items())[:MOST_ITEMS])


def ballots(store: Store, made: Round) -> Ballots:
    """What was written into a round until now. A vote that does not fit its item counts as damaged."""
    known = items(store, made)
    votes, bad = _listed(store, f"{made.folder}/votes", Vote, VOTE)
    back, worse = _listed(store, f"{made.folder}/taken_back", TakenBack, VOTE)
    held, worst = _listed(store, f"{made.folder}/held", Held, HELD)
    mine, strange = list[Vote](), list[Vote]()
    for vote in votes:
        fits = vote.round == made.name and (vote.item not in known or not vote.mistake(known[vote.item], made.rating))
        (mine if fits else strange).append(vote)
    owner = {vote.name: vote.annotator for vote in mine}
    taken = {one.vote: one for one in back if owner.get(one.vote) == one.annotator}
    unfit = (f"votes/{vote.name}" for vote in strange)
    return Ballots(tuple(mine), taken, tuple(held), (*bad, *worse, *worst, *unfit))


def _listed(store: Store, folder: str, kind: type[T], named: re.Pattern[str]) -> tuple[list[T], list[str]]:
    """The files of a folder in the order of their names, and those that cannot be read, as `votes/NAME`."""
    paths = [
        entry.path for entry in store.files(folder, recursive=False) if named.fullmatch(entry.path.rpartition("/")[2])
    ]

    def read(path: str) -> T | None:
        try:
            found = _parsed(store, path, kind)
        except (DamagedError, FileNotFoundError):
            return None
        own = found.vote if isinstance(found, TakenBack) else getattr(found, "name", "")
        return found if own == path.rpartition("/")[2] else None

    both = list(zip(paths, _each(store, read, paths), strict=True))
    damaged = ["/".join(path.split("/")[-2:]) for path, one in both if one is None]
    return [one for _, one in both if one is not None], damaged


def _each(store: Store, read: Callable[[One], Found], given: Sequence[One]) -> list[Found]:
    """What is read of each: on S3, where every answer is waited for, many at a time."""
    return list(_readers().map(read, given) if store.is_s3 and len(given) > 1 else map(read, given))


@lru_cache(maxsize=1)
def _readers() -> ThreadPoolExecutor:
    """Threads that wait for the store, the same for all requests."""
    return ThreadPoolExecutor(READERS, thread_name_prefix="feedback")


def _parsed(store: Store, path: str, kind: type[T]) -> T:
    """A file of a round. Raises DamagedError if it is not one, FileNotFoundError if it is gone."""
    found = _loaded(store, path, kind)
    assert isinstance(found, kind)
    return found


@lru_cache(maxsize=100_000)
def _loaded(store: Store, path: str, kind: type[BaseModel]) -> BaseModel:
    """The same, read once: none of these files ever changes."""
    data = store.read_bytes(path)
    if len(data) > MOST_BYTES and kind is not Round:
        raise DamagedError(f"{store.full(path)}: is longer than {MOST_BYTES:,} bytes")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise DamagedError(f"{store.full(path)}: cannot be read; {error.error_count()} values are wrong") from None


class Kept(StrEnum):
    """What became of a vote, or of another file that is created once."""

    NEW = "new"
    SAME = "same"
    """The same answer was kept before."""
    OTHER = "other"
    """Another answer of the same showing was kept before, and counts."""


def cast(store: Store, made: Round, vote: Vote) -> Kept:
    """Keep a vote. A vote that was kept before is never changed or doubled. Raises StoreError if the store fails.

    S3 also says NEW of equal bytes that were there before, because that may be the object of a retried request.
    """
    path = f"{made.folder}/votes/{vote.name}"
    if store.create(path, vote.model_dump_json(indent=1).encode()):
        return Kept.NEW
    return Kept.SAME if _parsed(store, path, Vote).answer == vote.answer else Kept.OTHER


def take_back(store: Store, made: Round, taken: TakenBack) -> bool:
    """Say that a vote does not count any more. Returns False if that was said before.

    Raises InputError if the vote does not exist or is somebody else's.
    """
    try:
        vote = _parsed(store, f"{made.folder}/votes/{taken.vote}", Vote)
    except FileNotFoundError:
        raise InputError(f"the round {made.name} has no vote {taken.vote}") from None
    if vote.annotator != taken.annotator:
        raise InputError(f"the vote {taken.vote} is not of {taken.annotator}; people take back their own votes only")
    return store.create(f"{made.folder}/taken_back/{taken.vote}", taken.model_dump_json(indent=1).encode())


def hold(store: Store, made: Round, held: Held) -> bool:
    """Give an item to a person for a while. Returns False if somebody else was faster, or if nobody can tell who."""
    path = f"{made.folder}/held/{held.name}"
    if store.create(path, held.model_dump_json(indent=1).encode()):
        return True
    try:
        return _parsed(store, path, Held).annotator == held.annotator
    except DamagedError:
        return False


def close(store: Store, made: Round, collected: Collected) -> bool:
    """Take no more votes in a round. Returns False if a run had collected it before."""
    return store.create(f"{made.folder}/collected.json", collected.model_dump_json(indent=1).encode())


def is_closed(store: Store, made: Round) -> bool:
    """Whether a run has collected a round."""
    return store.exists(f"{made.folder}/collected.json")


class FrozenVote(BaseModel):
    """A vote that counts: its path in the store, and the SHA-256 of its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Frozen(Stored):
    """The votes of a round that count. weights: annotator -> weight of their votes; left_out: annotator -> why."""

    round: Round
    votes: tuple[FrozenVote, ...]
    weights: dict[str, Annotated[float, Field(ge=0, le=1e6)]]
    left_out: dict[str, str] = {}


def freeze(
    store: Store,
    made: Round,
    votes: Collection[Vote],
    weights: Mapping[str, float] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> str:
    """Write down which votes of a round count, and return the path of that file.

    votes: those that were measured and not taken back; a vote that came since then has no weight yet. Those that skip
    and those of people who are left out do not count. weights: annotator -> weight, 1 for others. The same votes make
    the same file. Raises InputError if no vote counts.
    """
    gone = left_out or {}
    counting = [vote for vote in votes if not vote.skipped and vote.annotator not in gone]
    if not counting:
        raise InputError(f"round {made.name}: no vote counts, so there is nothing to freeze")
    paths = sorted(f"{made.folder}/votes/{vote.name}" for vote in counting)

    def known(path: str) -> FrozenVote:
        return FrozenVote(path=path, sha256=_sha256(store.read_bytes(path)))

    frozen = Frozen(
        round=made,
        votes=tuple(_each(store, known, paths)),
        weights={name: (weights or {}).get(name, 1.0) for name in sorted({vote.annotator for vote in counting})},
        left_out=dict(sorted(gone.items())),
    )
    data = frozen.model_dump_json(indent=1).encode()
    path = f"{made.folder}/frozen/{_sha256(data)[:40]}.json"
    store.create(path, data)
    return path


def open_frozen(uri: str) -> tuple[Store, Frozen]:
    """The store of a file that `freeze` wrote, and what it says. Raises InputError if it is no such file."""
    root, found, rest = uri.rpartition(f"/{FOLDER}/")
    if not found or "/frozen/" not in rest:
        raise InputError(f"{uri}: is no file of frozen votes; it lies in {FOLDER}/ROUND/frozen of a store")
    store = Store(root)
    try:
        frozen = Frozen.model_validate_json(store.read_bytes(f"{FOLDER}/{rest}"))
    except FileNotFoundError:
        raise InputError(f"{uri}: does not exist") from None
    except ValidationError as error:
        raise InputError(f"{uri}: cannot be read; {error.error_count()} values are wrong") from None
    folder = f"{frozen.round.folder}/votes/"
    for one in frozen.votes:
        if not VOTE.fullmatch(one.path.removeprefix(folder)):
            raise InputError(f"{one.path}: is no vote of the round {frozen.round.name}")
    return store, frozen


def read_frozen(uri: str) -> tuple[Store, Frozen, list[Vote]]:
    """The same with the votes. Raises DamagedError, too, if a vote is gone or has changed."""
    store, frozen = open_frozen(uri)
    return store, frozen, votes_of(store, frozen)


def votes_of(store: Store, frozen: Frozen) -> list[Vote]:
    """The votes that were frozen. Raises DamagedError if one is gone or has changed."""

    def read(one: FrozenVote) -> Vote:
        try:
            data = store.read_bytes(one.path)
        except FileNotFoundError:
            raise DamagedError(f"{store.full(one.path)}: the vote is gone; bring it back, or freeze again") from None
        if _sha256(data) != one.sha256:
            raise DamagedError(f"{store.full(one.path)}: the vote has changed since it was frozen; freeze again")
        return Vote.model_validate_json(data)

    return _each(store, read, frozen.votes)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Compared:
    """Two replies to one item as people compare them. margin: of the weights of the votes, what speaks for the better
    one less what speaks against it, as a share of all, above 0 and at most 1. votes: the names of those that tell."""

    better: int
    worse: int
    margin: float
    votes: tuple[str, ...]


def compared(item: Item, votes: Collection[Vote], weight: Callable[[str], float] = lambda _: 1.0) -> list[Compared]:
    """The pairs of an item's replies of which people prefer one. weight: of an annotator.

    A tie speaks for neither and counts as a vote. The margin is minus twice the derivative, at equal rewards, of the
    loss of Bradley and Terry whose label is the share of the votes, so one pair of this weight pulls as all votes do.
    Of a person who saw the item twice, the two votes have the weight of one.
    """
    found = []
    ranked = [vote for vote in votes if vote.ranks and not vote.skipped and len(vote.ranks) == len(item.replies)]
    times = Counter(vote.annotator for vote in ranked)
    share = {name: weight(name) / count for name, count in times.items()}
    total = sum(share[vote.annotator] for vote in ranked)
    for one in range(len(item.replies)):
        for other in range(one + 1, len(item.replies)):
            signs = [(share[vote.annotator], sign(vote.ranks[other] - vote.ranks[one])) for vote in ranked]
            margin = sum(each * side for each, side in signs) / total if total else 0.0
            if abs(margin) > 1e-9:
                better, worse = (one, other) if margin > 0 else (other, one)
                found.append(Compared(better, worse, abs(margin), tuple(vote.name for vote in ranked)))
    return found


def sign(number: float) -> int:
    return (number > 0) - (number < 0)


def by_item(votes: Iterable[Vote]) -> dict[str, list[Vote]]:
    """Item -> its votes, in their order."""
    found: dict[str, list[Vote]] = {}
    for vote in votes:
        found.setdefault(vote.item, []).append(vote)
    return found
