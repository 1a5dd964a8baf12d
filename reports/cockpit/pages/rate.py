"""The page "Rate": people compare replies without knowing what wrote them; and what their votes are worth."""

import datetime
import math
import shlex
from typing import Annotated, Any, Literal

from pydantic import Field, create_model, field_validator

from contract import feedback
from contract.assignment import Offer
from contract.errors import DamagedError, GristmillError, StoreError
from contract.feedback import MOST_REPLIES, Kept, Rank, Round, Score, TakenBack, Vote
from contract.plan import Run
from contract.settings.feedback import Trust
from evals.agreement import Estimate
from evals.bradley_terry import Lead, Strength, Table
from reports import rating
from reports.cockpit.page import Answer, Ask, Asked, Asking, InForm, InQuery, Name, Page
from reports.cockpit.visitor import Listed, Refused
from reports.rating import LETTERS, Sheet

page = Page("rate", "Rate")

MOST_CRITERIA = 6
LOOKED_AT = 50  # newest runs among which one with a round is sought
SHOWN_TURNS = 20  # of a conversation, the last ones
LISTED = 200  # people, and pairs of them, in a table
LONGEST_S = 86_400.0  # between a page and its vote; more is no time that somebody took to decide
RoundName = Annotated[str, Field(max_length=80, pattern=f"^({feedback.NAME.pattern})?$")]
VoteName = Annotated[str, Field(pattern=f"^({feedback.VOTE.pattern})?$")]


class Wanted(Asked):
    """round: a name, else the newest one. kept: the vote that was given last."""

    round: RoundName = ""
    kept: VoteName = ""


class Judging(Asked):
    """The thresholds below which a person's votes are left out; those that are not given are the recipe's."""

    round: RoundName = ""
    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    min_gold: Annotated[float, Field(ge=0, le=1)] | None = None
    min_consistency: Annotated[float, Field(ge=0, le=1)] | None = None
    min_seconds: Annotated[float, Field(ge=0, le=3600)] | None = None

    def trust(self, run: Run) -> Trust:
        given = self.model_dump(exclude={"round"}, exclude_none=True)
        return Trust(**run.recipe.feedback.trust.model_dump() | given)


class Returned(Asked):
    """A vote that its annotator takes back."""

    round: RoundName
    vote: Annotated[str, Field(pattern=f"^{feedback.VOTE.pattern}$")]


class _Filled(Asked):
    """The filled form. rank_P and score_P_C are of the reply at place P of the page; begun: a Unix time in ms."""

    round: RoundName
    item: feedback.ItemId
    showing: Annotated[int, Field(ge=0, le=9999)]
    begun: Annotated[int, Field(ge=0, le=1 << 53)] = 0
    all_bad: bool = False
    comment: Annotated[str, Field(max_length=4000)] = ""
    action: Literal["vote", "skip"] = "vote"

    @field_validator("comment")
    @classmethod
    def _plain_ends(cls, text: str) -> str:
        """Browsers send lines that end in carriage return and line feed."""
        plain = text.replace("\r\n", "\n").replace("\r", "\n").strip()
        if len(plain) > 2000:
            raise ValueError("a comment has at most 2,000 characters")
        return plain


RANKS = {f"rank_{place}": (Rank | None, None) for place in range(MOST_REPLIES)}
SCORES = {
    f"score_{place}_{criterion}": (Score | None, None)
    for place in range(MOST_REPLIES)
    for criterion in range(MOST_CRITERIA)
}
Filled: Any = create_model("Filled", __base__=_Filled, **RANKS, **SCORES)  # type: ignore[call-overload]


@page.get("")
def newest(ask: Ask) -> Answer:
    """The newest run with a round that takes votes of the visitor, or else with any round."""
    found: list[Listed] = []
    for listed in ask.runs(LOOKED_AT):
        try:
            run = ask.run(listed.dag_id, listed.run_id)
            known = _rounds(run)
            waits = bool(known) and _may_vote(ask, listed.dag_id, known[0]) and not rating.closed(run, known[0])
        except (Refused, GristmillError) as error:
            if isinstance(error, StoreError) and not isinstance(error, DamagedError):
                raise  # nobody can tell whether there is a round
            continue  # a run without a recipe that can be read has no rounds
        if waits:
            return ask.go("rate", listed.dag_id, listed.run_id)
        found += [listed] if known else []
    for listed in found[:1]:
        return ask.go("rate", listed.dag_id, listed.run_id)
    raise Refused(404, "No round is open. When a run asks for votes, its items appear here.", page.title)


@page.get("/{dag_id}/{run_id}")
def show(ask: Ask, dag_id: Name, run_id: Name, wanted: Annotated[Wanted, InQuery()]) -> Answer:
    """The item that the visitor rates next."""
    run = ask.run(dag_id, run_id)
    made = _round(run, wanted.round)
    found = rating.sheet(run.store, made, _who(ask), _now())
    if _may_vote(ask, dag_id, made) and not rating.closed(run, made) and ask.request.method == "GET":
        found = rating.offered(run.store, found)
    return _form(ask, run, found, {}, last=wanted.kept)


def _rounds(run: Run) -> list[Round]:
    """The rounds of a run, the newest first, those that take no vote last."""
    return sorted(rating.rounds_of(run), key=lambda one: bool(rating.closed(run, one)))


def _round(run: Run, name: str) -> Round:
    """A round of a run by its name, or the first. Raises Refused if there is none."""
    known = _rounds(run)
    for one in known:
        if name in ("", one.name):
            return one
    why = f"This run has no round {name}." if known else "This run has opened no round for votes yet."
    raise Refused(404, f"{why} When it asks for votes, its items appear here.", page.title)


def _may_vote(ask: Asking, dag_id: str, made: Round) -> bool:
    """Whether the visitor may vote in a round, to which a run of a DAG leads.

    Runs of several DAGs may share a recipe, so the round's own DAG is asked as well.
    """
    return all(map(ask.visitor.may_vote, {dag_id, made.dag or dag_id}))


def _may_see(ask: Asking, dag_id: str, made: Round) -> bool:
    """Whether the visitor may see who voted and what wrote the replies of a round, to which a run of a DAG leads."""
    return all(map(ask.visitor.may_edit, {dag_id, made.dag or dag_id}))


def _to_see(ask: Asking, dag_id: str, run: Run, name: str) -> Round:
    """A round of a run whose people and models the visitor may see. Raises Refused."""
    ask.check(dag_id, "edit")
    made = _round(run, name)
    if not _may_see(ask, dag_id, made):
        raise Refused(403, f"You may not edit the DAG {made.dag}. Ask who administers Airflow.")
    return made


def _to_vote(ask: Asking, dag_id: str, run: Run, name: str) -> Round:
    """A round of a run that takes votes of the visitor. Raises Refused."""
    made = _round(run, name)
    if not _may_vote(ask, dag_id, made):
        raise Refused(403, f"You may not vote in the rounds of the DAG {made.dag}. Ask who administers Airflow.")
    if why := rating.closed(run, made):
        raise Refused(409, f"{why} Nothing was kept.")
    return made


def _who(ask: Asking) -> str:
    return ask.visitor.name[:250]


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _form(
    ask: Asking, run: Run, found: Sheet, filled: dict[str, Any], *, last: str = "", said: str = "", status: int = 200
) -> Answer:
    """The page, with the form as it was filled before if it comes back. said: what went wrong; last: the last vote."""
    item, desk = found.item, found.desk
    own = {vote.name: vote for vote in desk.ballots.votes if vote.annotator == desk.annotator}
    replies = [(LETTERS[place], item.replies[reply].text) for place, reply in enumerate(found.order)] if item else []
    return ask.show(
        "rate.html",
        status=status,
        round=found.round,
        rounds=_rounds(run),
        closed=rating.closed(run, found.round),
        item=item,
        showing=found.showing,
        replies=replies,
        pieces=rating.pieces,
        shown_chars=rating.SHOWN_CHARS,
        shown_turns=SHOWN_TURNS,
        filled=filled,
        begun=filled.get("begun") or int(_now().timestamp() * 1000),
        progress=desk.progress(),
        last=own[last] if last in own and last not in desk.ballots.taken_back else None,
        told=rating.told,
        may=_may_vote(ask, ask.request.path_params["dag_id"], found.round),
        may_see=_may_see(ask, ask.request.path_params["dag_id"], found.round),
        said=said,
    )


@page.post("/{dag_id}/{run_id}/vote", "vote", right="vote")
def vote(ask: Ask, dag_id: Name, run_id: Name, form: Annotated[Filled, InForm()]) -> Answer:
    """Keep a vote. The same form that is sent again changes nothing."""
    run = ask.run(dag_id, run_id)
    made = _to_vote(ask, dag_id, run, form.round)
    found = rating.sheet(run.store, made, _who(ask), _now())
    if form.item not in found.items:
        raise Refused(409, f"The round {made.name} has no such item. Load the page again.")
    if not found.desk.may_vote(form.item, form.showing):
        raise Refused(409, "You were not asked to rate this item, or not now. Load the page again.")
    found = rating.showing(found, Offer(form.item, form.showing))
    given = _vote(found, form)
    again = form.model_dump(exclude_none=True)
    if mistake := given.mistake(found.items[form.item], made.rating):
        return _form(ask, run, found, again, said=f"{mistake} Nothing was kept.", status=422)
    try:
        kept = feedback.cast(run.store, made, given)
    except StoreError as error:
        said = f"The vote could not be kept, or the store did not say so. Send it again; it counts once. ({error})"
        return _form(ask, run, found, again, said=said, status=503)
    if kept is Kept.OTHER:
        said = "You have voted on this item before. That vote counts, and this one was not kept."
        return _form(ask, run, found, again, last=given.name, said=said, status=409)
    return ask.go("rate", dag_id, run_id, round=made.name, kept=given.name)


def _vote(found: Sheet, form: Any) -> Vote:
    """The vote that a form is."""
    order, criteria = found.order, found.round.rating.criteria
    place_of = {reply: place for place, reply in enumerate(order)}
    skipped = form.action == "skip"
    ranks = [getattr(form, f"rank_{place_of[reply]}") for reply in range(len(order))]
    scores = {
        name: tuple(getattr(form, f"score_{place_of[reply]}_{number}") for reply in range(len(order)))
        for number, name in enumerate(criteria)
    }
    seconds = _now().timestamp() - form.begun / 1000
    return Vote(
        round=found.round.name,
        item=form.item,
        annotator=found.desk.annotator,
        showing=form.showing,
        shown=order,
        ranks=() if skipped or None in ranks else dense(ranks),
        scores={} if skipped else {name: given for name, given in scores.items() if any(given)},
        all_bad=form.all_bad and not skipped,
        skipped=skipped,
        comment=form.comment,
        seconds=round(seconds, 1) if form.begun and 0 <= seconds <= LONGEST_S else None,
        when=_now(),
    )


def dense(ranks: list[int]) -> tuple[int, ...]:
    """Ranks without gaps: 1, 3, 3 -> 1, 2, 2."""
    places = {rank: place for place, rank in enumerate(sorted(set(ranks)), 1)}
    return tuple(places[rank] for rank in ranks)


@page.get("/{dag_id}/{run_id}/votes")
def votes(ask: Ask, dag_id: Name, run_id: Name, wanted: Annotated[Wanted, InQuery()]) -> Answer:
    """The visitor's own votes."""
    run = ask.run(dag_id, run_id)
    made = _round(run, wanted.round)
    found = rating.sheet(run.store, made, _who(ask), _now())
    mine = rating.own_votes(found)
    return ask.show(
        "rate_votes.html",
        round=made,
        votes=mine,
        newest=rating.NEWEST,
        prompts={vote.name: found.items[vote.item].prompt[-1].text[:200] for vote in mine if vote.item in found.items},
        taken_back=found.desk.ballots.taken_back,
        told=rating.told,
        may=_may_vote(ask, dag_id, made) and not rating.closed(run, made),
        may_see=_may_see(ask, dag_id, made),
    )


@page.post("/{dag_id}/{run_id}/take_back", "vote taken back", right="vote")
def take_back(ask: Ask, dag_id: Name, run_id: Name, form: Annotated[Returned, InForm()]) -> Answer:
    """Say that a vote of the visitor's does not count any more."""
    run = ask.run(dag_id, run_id)
    made = _to_vote(ask, dag_id, run, form.round)
    feedback.take_back(run.store, made, TakenBack(vote=form.vote, annotator=_who(ask), when=_now()))
    return ask.go("rate", dag_id, run_id, round=made.name)


@page.get("/{dag_id}/{run_id}/quality")
def quality(ask: Ask, dag_id: Name, run_id: Name, wanted: Annotated[Judging, InQuery()]) -> Answer:
    """How much people agree, and whose votes would be left out. It names people, so readers alone do not see it."""
    run = ask.run(dag_id, run_id)
    made = _to_see(ask, dag_id, run, wanted.round)
    trust = wanted.trust(run)
    judged = rating.judge(run.store, made, trust)
    return ask.show(
        "rate_quality.html",
        round=made,
        trust=trust,
        judged=judged,
        found=judged.quality,
        people=judged.quality.annotators[:LISTED],
        kappas=judged.quality.kappas[:LISTED],
        chart=agreement(judged),
        share=share,
        figure=figure,
        command=_command(run, made, trust),
        may_see=True,
    )


@page.get("/{dag_id}/{run_id}/strengths")
def strengths(ask: Ask, dag_id: Name, run_id: Name, wanted: Annotated[Judging, InQuery()]) -> Answer:
    """Which model's replies people prefer. It names the models, so those who only vote do not see it."""
    run = ask.run(dag_id, run_id)
    made = _to_see(ask, dag_id, run, wanted.round)
    table, compared, gone = rating.strengths(run.store, made, wanted.trust(run))
    return ask.show(
        "rate_strengths.html",
        round=made,
        table=table,
        compared=compared,
        left_out=gone,
        chart=scores(table),
        between=between,
        may_see=True,
    )


def _command(run: Run, made: Round, trust: Trust) -> str:
    """The command that freezes the votes with these thresholds."""
    changed = trust.model_dump(exclude_defaults=True)
    options = [f"--{name.replace('_', '-')} {value:g}" for name, value in changed.items()]
    store = shlex.quote(run.store.uri)
    return " ".join(("python -m reports freeze --store", store, "--round", made.name, *options))


def share(one: Estimate) -> str:
    """A share with its interval, or a dash."""
    return f"{one.value:.0%} ({one.low:.0%} to {one.high:.0%})" if one.count else "-"


def figure(one: Estimate) -> str:
    """A coefficient with its interval, or a dash."""
    if one.value != one.value:
        return "-"
    return f"{one.value:.2f}" + (f" ({one.low:.2f} to {one.high:.2f})" if one.low == one.low else "")


def between(one: Strength | Lead) -> str:
    """The interval of a score, or that there is none."""
    return f"{one.low:.2f} to {one.high:.2f}" if math.isfinite(one.high) else "unknown"


def agreement(judged: rating.Judged) -> dict[str, Any]:
    """Each person's agreement with the others as a dot with its interval."""
    people = [one for one in judged.quality.annotators if one.agreement.count][:LISTED]
    return _dots([one.name[:16] for one in people], [one.agreement for one in people]) | {
        "layout": {
            "xaxis": {"range": [0, 1], "tickformat": ".0%", "title": {"text": "agreement"}},
            "yaxis": {"autorange": "reversed", "type": "category"},
            "height": 120 + 28 * len(people),
        }
    }


def scores(table: Table) -> dict[str, Any]:
    """Each model's score as a dot with its interval."""
    found = [Estimate(one.score, one.low, one.high, one.comparisons) for one in table.players]
    return _dots([one.name[:40] for one in table.players], found) | {
        "layout": {
            "xaxis": {"title": {"text": "score (logarithm of the strength)"}},
            "yaxis": {"autorange": "reversed", "type": "category"},
            "height": 120 + 40 * len(found),
        }
    }


def _dots(names: list[str], found: list[Estimate]) -> dict[str, Any]:
    ends = {"array": [one.high - one.value for one in found], "arrayminus": [one.value - one.low for one in found]}
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [one.value for one in found],
        "y": names,
        "marker": {"size": 10},
        "error_x": {"type": "data", "symmetric": False, **ends, "thickness": 2, "width": 8},
    }
    return {"data": [dots]}
