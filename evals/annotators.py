"""The quality of people's votes: agreement, each person against the others and against gold items, who is left out."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import median

from contract.feedback import JUDGE, Item, Vote, sign
from contract.settings.feedback import Trust
from evals.agreement import NOTHING, Estimate, cohen, krippendorff
from evals.bradley_terry import Comparison
from evals.intervals import effective_number, wilson

MOST_PAIRS = 200
"""Of so many two people at most kappa is computed: those who share the most answers."""
LEAST_COMMON = 5
"""Nobody is left out for disagreeing with people who answered fewer of the same questions."""
LEAST_WEIGHT, MOST_WEIGHT = 0.1, 4.0
Question = tuple[str, int, int]
"""An item, and two of its replies."""
Key = tuple[str, Question]
"""A person, and a question."""


@dataclass(frozen=True)
class Opinion:
    """What one vote says of two replies. prefers: 1 the first, -1 the second, 0 neither.

    first: 1 if the first reply stood before the second one on the page, else -1. item, one, other: which replies.
    """

    annotator: str
    item: str
    one: int
    other: int
    prefers: int
    first: int
    showing: int

    @property
    def question(self) -> Question:
        return self.item, self.one, self.other

    @property
    def key(self) -> Key:
        return self.annotator, self.question


@dataclass(frozen=True)
class Annotator:
    """One person. agreement: with the majority of the others; gold: with gold items; consistency: with the first vote
    on an item that was shown again; first: how often the reply that stood first is preferred. seconds: the median."""

    name: str
    votes: int
    skipped: int
    all_bad: int
    seconds: float | None
    agreement: Estimate
    gold: Estimate
    consistency: Estimate
    first: Estimate


@dataclass(frozen=True)
class Quality:
    """The votes of a round. preference: Krippendorff's alpha of which of two replies is better (nominal); ranks: of the
    ranks (ordinal); scores: criterion -> of the scores (interval). kappas: (one, other, Cohen's kappa)."""

    annotators: tuple[Annotator, ...]
    preference: Estimate
    ranks: Estimate
    scores: Mapping[str, Estimate]
    kappas: tuple[tuple[str, str, Estimate], ...]
    first: Estimate
    consistency: Estimate


def opinions(votes: Iterable[Vote]) -> list[Opinion]:
    """What votes say of every two replies that they rank."""
    found = []
    for vote in votes:
        place = {reply: at for at, reply in enumerate(vote.shown)}
        for one, other in combinations(range(len(vote.ranks)), 2):
            if vote.skipped or one not in place or other not in place:
                continue
            prefers = sign(vote.ranks[other] - vote.ranks[one])
            first = 1 if place[one] < place[other] else -1
            found.append(Opinion(vote.annotator, vote.item, one, other, prefers, first, vote.showing))
    return found


def measure(items: Mapping[str, Item], votes: Sequence[Vote]) -> Quality:
    """Measure the votes of a round that count."""
    known = in_order(items, votes)
    said = opinions(known)
    first = _firsts(said)
    once = list(first.values())
    return Quality(
        each(items, votes),
        _alpha_of(once),
        _alpha_of_ranks(known),
        _alphas_of_scores(known),
        _kappas(once),
        _share(said, lambda one: one.prefers == one.first, lambda one: one.prefers != 0),
        _share(_again(said, first), lambda one: one.prefers == first[one.key].prefers),
    )


def each(items: Mapping[str, Item], votes: Iterable[Vote]) -> tuple[Annotator, ...]:
    """Every person who voted on these items, in the order of their names."""
    of: dict[str, list[Vote]] = defaultdict(list)
    for vote in in_order(items, votes):
        of[vote.annotator].append(vote)
    said = {name: opinions(mine) for name, mine in of.items()}
    sums: Counter[Question] = Counter()  # of all people, each question once
    for one in (one for mine in said.values() for one in _firsts(mine).values()):
        sums[one.question] += one.prefers
    return tuple(_annotator(name, items, of[name], said[name], sums) for name in sorted(of))


def in_order(items: Mapping[str, Item], votes: Iterable[Vote]) -> list[Vote]:
    """The votes on known items, the oldest first."""
    return sorted((vote for vote in votes if vote.item in items), key=lambda vote: (vote.when, vote.showing))


def _firsts(said: Iterable[Opinion]) -> dict[Key, Opinion]:
    """The first opinion of each person on each question, so that an item that was shown again counts once."""
    found: dict[Key, Opinion] = {}
    for one in said:
        found.setdefault(one.key, one)
    return found


def _again(said: Iterable[Opinion], first: Mapping[Key, Opinion]) -> list[Opinion]:
    """The other opinions: those on items that were shown again."""
    return [one for one in said if first[one.key] is not one]


def _share(
    said: Iterable[Opinion], right: Callable[[Opinion], bool], asked: Callable[[Opinion], bool] = lambda _: True
) -> Estimate:
    """How many opinions are right, with Wilson's interval in which the pairs of one item count as what they are."""
    some = [one for one in said if asked(one)]
    if not some:
        return NOTHING
    scores = [float(right(one)) for one in some]
    share = math.fsum(scores) / len(scores)
    trials = effective_number(scores, [one.item for one in some])
    return Estimate(share, *wilson(share * trials, trials), len(some))


def _annotator(
    name: str, items: Mapping[str, Item], votes: Sequence[Vote], said: Sequence[Opinion], sums: Mapping[Question, int]
) -> Annotator:
    """One person. said: their opinions, the oldest first; sums: what all people say of each question, added up."""
    times = [vote.seconds for vote in votes if vote.seconds is not None and not vote.skipped]
    first = _firsts(said)
    own = list(first.values())
    others = {one.question: sums[one.question] - one.prefers for one in own}
    gold = {one.question: _gold(items, one) for one in own}
    return Annotator(
        name,
        len(votes),
        sum(vote.skipped for vote in votes),
        sum(vote.all_bad for vote in votes),
        median(times) if times else None,
        _agreement(own, others),
        _share(own, lambda one: one.prefers == gold[one.question], lambda one: gold[one.question] != 0),
        _share(_again(said, first), lambda one: one.prefers == first[one.key].prefers),
        _share(said, lambda one: one.prefers == one.first, lambda one: one.prefers != 0),
    )


def _agreement(own: Iterable[Opinion], others: Mapping[Question, int]) -> Estimate:
    """With the majority of the others, where both prefer a reply. others: what they say of a question, added up."""
    return _share(
        own,
        lambda one: one.prefers == sign(others[one.question]),
        lambda one: one.prefers != 0 and others[one.question] != 0,
    )


def _gold(items: Mapping[str, Item], one: Opinion) -> int:
    """What the gold ranking prefers; 0 for a tie, or without one."""
    gold = items[one.item].gold
    return sign(gold[one.other] - gold[one.one]) if gold else 0


def _alpha_of(once: Iterable[Opinion]) -> Estimate:
    """Of which of two replies is better. Each question counts in both directions, that of A and B and that of B and A.

    Which reply is the first one of an item says nothing. In one direction alone, people who prefer those of one model
    would seem to agree by chance.
    """
    units: dict[Question, list[float]] = defaultdict(list)
    for one in once:
        units[one.question].append(float(one.prefers))
    turned = [[-said for said in unit] for unit in units.values()]
    found = krippendorff([*units.values(), *turned], "nominal", [question[0] for question in units] * 2)
    return replace(found, count=found.count // 2)


def _alpha_of_ranks(votes: Iterable[Vote]) -> Estimate:
    units: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for vote in votes:
        for reply, rank in enumerate(vote.ranks):
            units[vote.item, reply].setdefault(vote.annotator, float(rank))
    return krippendorff([list(one.values()) for one in units.values()], "ordinal", [item for item, _ in units])


def _alphas_of_scores(votes: Iterable[Vote]) -> dict[str, Estimate]:
    units: dict[str, dict[tuple[str, int], dict[str, float]]] = {}
    for vote in votes:
        for name, scores in vote.scores.items():
            of_criterion = units.setdefault(name, defaultdict(dict))
            for reply, score in enumerate(scores):
                if score is not None:
                    of_criterion[vote.item, reply].setdefault(vote.annotator, float(score))
    return {
        name: krippendorff([list(one.values()) for one in found.values()], "interval", [item for item, _ in found])
        for name, found in sorted(units.items())
    }


def _kappas(once: Iterable[Opinion]) -> tuple[tuple[str, str, Estimate], ...]:
    """Cohen's kappa of each two people who answered the same questions, those with the most common ones.

    Each question counts in both directions, as for alpha.
    """
    answers: dict[Question, dict[str, int]] = defaultdict(dict)
    for one in once:
        answers[one.question][one.annotator] = one.prefers
    both: dict[tuple[str, str], list[tuple[str, tuple[int, int]]]] = defaultdict(list)
    for question, given in answers.items():
        for pair in combinations(sorted(given), 2):
            both[pair].append((question[0], (given[pair[0]], given[pair[1]])))
    most = sorted(both, key=lambda pair: (-len(both[pair]), pair))[:MOST_PAIRS]
    return tuple((*pair, _kappa(both[pair])) for pair in most)


def _kappa(answers: Sequence[tuple[str, tuple[int, int]]]) -> Estimate:
    """answers: the item of each question, and what either person prefers."""
    turned = [pair for _, (one, other) in answers for pair in ((one, other), (-one, -other))]
    return replace(cohen(turned, len({item for item, _ in answers})), count=len(answers))


def left_out(
    items: Mapping[str, Item], votes: Sequence[Vote], trust: Trust
) -> tuple[dict[str, str], tuple[Annotator, ...]]:
    """(Annotator -> why their votes are left out, in the order in which they go; the others, measured without them).

    First all go who fail by gold items, consistency or time, which depend on nobody else. Then, among the rest, those
    who disagree with the others go, the worst first, and all is measured again each time: one person who votes against
    the truth makes those who vote for it disagree with the majority. People who are equally low go together, unless
    nobody else is left, so that no name decides.
    """
    gone = {one.name: why for one in each(items, votes) if (why := _mistrust(one, trust))}
    while True:
        left = [vote for vote in votes if vote.annotator not in gone]
        people = each(items, left)
        low = _outvoted(items, left, people, trust.min_agreement)
        worst = [one for one in low if one.agreement.high == min(other.agreement.high for other in low)]
        if not worst or len(worst) == len(people):
            return gone, people
        gone |= {one.name: _below("agreement with the others", one.agreement, trust.min_agreement) for one in worst}


def _mistrust(one: Annotator, trust: Trust) -> str:
    """Why a person is left out whatever the others say, as a sentence; empty for one who is trusted."""
    for name, share, least in (
        ("agreement with gold items", one.gold, trust.min_gold),
        ("consistency", one.consistency, trust.min_consistency),
    ):
        if _is_low(share, least):
            return _below(name, share, least)
    if one.seconds is not None and one.seconds < trust.min_seconds:
        return f"median time {one.seconds:.1f} s, below {trust.min_seconds:g} s"
    return ""


def _is_low(share: Estimate, least: float) -> bool:
    return share.count > 0 and share.high < least


def _below(name: str, share: Estimate, least: float) -> str:
    return f"{name} {share.value:.0%} ({share.low:.0%} to {share.high:.0%}), below {least:.0%}"


def _outvoted(
    items: Mapping[str, Item], votes: Sequence[Vote], people: Iterable[Annotator], least: float
) -> list[Annotator]:
    """The people whose agreement with the others is too low, and stays below `least`, of LEAST_COMMON answers or more,
    whichever one of the others is disregarded.

    Where two people disagree, nothing shows which of them is wrong. So nobody goes for what one other person says.
    """
    answers: dict[str, dict[Question, Opinion]] = defaultdict(dict)
    sums: Counter[Question] = Counter()
    for one in _firsts(opinions(in_order(items, votes))).values():
        answers[one.annotator][one.question] = one
        sums[one.question] += one.prefers

    def without(name: str, other: str) -> Estimate:
        own, theirs = answers[name], answers[other]
        rest = {
            question: sums[question] - one.prefers - (theirs[question].prefers if question in theirs else 0)
            for question, one in own.items()
        }
        return _agreement(own.values(), rest)

    return [
        one
        for one in people
        if _is_low(one.agreement, least)
        and all(
            rest.count >= LEAST_COMMON and rest.value < least
            for rest in (without(one.name, other) for other in answers if other != one.name)
        )
    ]


def weights(people: Iterable[Annotator]) -> dict[str, float]:
    """Annotator -> the weight of their votes: ln(p / (1 - p)), p their agreement with the others.

    It is the best weight of independent voters who are right with probability p (Nitzan, Paroush 1982). p is of counts
    to which three agreements and one disagreement are added, the mean under the prior Beta(3, 1), so that a few common
    answers change little: without any, the weight is ln 3. It is at least LEAST_WEIGHT, because who is trusted counts,
    and at most MOST_WEIGHT.
    """
    made = {}
    for one in people:
        trials = one.agreement.count
        right = (one.agreement.value * trials if trials else 0.0) + 3
        wrong = trials + 4 - right
        made[one.name] = round(min(max(math.log(right / wrong), LEAST_WEIGHT), MOST_WEIGHT), 4)
    return made


def comparisons(items: Mapping[str, Item], votes: Iterable[Vote]) -> list[Comparison]:
    """What people's votes say of the models that wrote the replies; replies of the same model are not compared.

    A person counts once for an item, however often it was shown. Models that vote do not count: they may like replies
    of their own kind.
    """
    said = opinions(vote for vote in votes if vote.item in items and not vote.annotator.startswith(JUDGE))
    times = Counter(one.key for one in said)
    found = []
    for one in said:
        item = items[one.item]
        models = item.replies[one.one].model, item.replies[one.other].model
        if models[0] != models[1]:
            found.append(Comparison(*models, (one.prefers + 1) / 2, one.item, 1 / times[one.key]))
    return found
