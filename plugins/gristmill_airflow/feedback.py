"""The tasks of the DAG `feedback` that are not stages: a round begins, waits for its votes, and is then collected.

While a round waits, for days perhaps, its task is deferred: it holds no worker and no slot of a pool. A trigger in
Airflow's triggerer looks at the store now and then.
"""

import asyncio
import datetime
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.exceptions import AirflowTimetableInvalid
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseOperator, get_current_context, task, timezone
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.log import mask_secret
from airflow.timetables.base import TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable
from airflow.triggers.base import BaseTrigger, TriggerEvent

from contract.errors import GristmillError, RecipeError, StoreError
from contract.manifest import need
from contract.plan import open_run
from contract.printable import printable
from contract.store import Store
from gristmill_airflow.assets import RESOLVED
from gristmill_airflow.note import USES
from gristmill_airflow.params import crawl_of, run_name
from gristmill_airflow.result import SUMMARY
from gristmill_airflow.stage import RUN, hide, reported

if TYPE_CHECKING:
    from contract.feedback import Item, Round
    from evals.judging import Judge

log = logging.getLogger(__name__)

POLL_S = 30.0
COLLECTED = "{{ ti.xcom_pull(task_ids='collect') }}"
"""The run that learns from the round."""


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def next_time(schedule: str, after: datetime.datetime) -> datetime.datetime:
    """The first moment from `after` on of a schedule, five fields of cron in UTC. Raises RecipeError if it is none."""
    timetable = CronTriggerTimetable(schedule, timezone="UTC")
    restriction = TimeRestriction(earliest=timezone.coerce_datetime(after), latest=None, catchup=True)
    try:
        timetable.validate()
        found = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
    except (AirflowTimetableInvalid, ValueError) as error:
        raise RecipeError(f"feedback.schedule: {schedule} is no schedule of cron ({error})") from None
    assert found is not None, "a schedule without an end goes on"
    return found.run_after


class Due(BaseOperator):
    """Waits for the time that the recipe's `feedback.schedule` names, if a new model started the round.

    A round that a person starts begins at once, and so does every round without a schedule.
    """

    template_fields = ("recipe",)

    def __init__(self, *, recipe: str = RUN, **kwargs: Any) -> None:
        super().__init__(**{"task_id": "due", "doc_md": __doc__, **kwargs})
        self.recipe = recipe

    def execute(self, context: Any) -> None:
        with reported():
            run = open_run(self.recipe)
            hide(run.recipe.crawl.source)
            schedule = run.recipe.feedback.schedule
            if schedule is None or not context["triggering_asset_events"]:
                return
            moment = next_time(schedule, now())
        self.log.info("the round begins at %s, by feedback.schedule %s", moment.isoformat(), schedule)
        self.defer(trigger=DateTimeTrigger(moment=moment), method_name="execute_complete")

    def execute_complete(self, context: Any, event: Any) -> None:
        """Go on when it is time."""


class VotesTrigger(BaseTrigger):
    """Fires when every item of a round has its votes, or when the time is over, and says which of the two.

    store: its URI; until: ISO 8601 with a time zone. A store that does not answer is asked again.
    """

    def __init__(self, store: str, round_name: str, until: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.store, self.round_name, self.until = store, round_name, until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        where = f"{type(self).__module__}.{type(self).__name__}"
        return where, {"store": self.store, "round_name": self.round_name, "until": self.until}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while True:
            event = await asyncio.to_thread(self._look)
            if event:
                yield TriggerEvent(event)
                return
            await asyncio.sleep(POLL_S)

    def _look(self) -> dict[str, str] | None:
        """What to say now; None to wait on."""
        from reports import rounds

        said = "the store does not answer"
        try:
            found = rounds.votes(Store(self.store), self.round_name)
            said = str(found)
            if found.complete:
                return {"state": "complete", "said": said}
        except StoreError as error:
            log.warning("%s: %s", self.round_name, error)
        except GristmillError as error:
            return {"state": "failed", "said": str(error)}
        over = now() >= datetime.datetime.fromisoformat(self.until)
        return {"state": "over", "said": said} if over else None


class Votes(BaseOperator):
    """Opens a round over what `sample` made, and waits for its votes; the XCom is the round's name.

    It waits at most `feedback.hours` from when the round was opened, and then goes on with the votes that are there.
    """

    template_fields = ("recipe",)

    def __init__(self, *, recipe: str = RUN, **kwargs: Any) -> None:
        super().__init__(**{"task_id": "votes", "doc_md": __doc__, **kwargs})
        self.recipe = recipe

    def execute(self, context: Any) -> str:
        from reports import rounds

        with reported():
            run = open_run(self.recipe)
            hide(run.recipe.crawl.source)
            made = rounds.open_round(run, context["dag"].dag_id, now())
            found = rounds.votes(run.store, made.name)
        self.log.info("round %s: %s", made.name, found)
        if found.complete:
            return made.name
        until = made.opened + datetime.timedelta(hours=run.recipe.feedback.hours)
        self.log.info("people vote on the page Rate of this run, until %s", until.isoformat(timespec="minutes"))
        self.defer(
            trigger=VotesTrigger(run.store.uri, made.name, until.isoformat()),
            method_name="execute_complete",
            kwargs={"name": made.name},
        )
        raise AssertionError("defer raises")

    def execute_complete(self, context: Any, event: dict[str, str], name: str) -> str:
        """Go on when the trigger has fired."""
        if event["state"] == "failed":
            raise AirflowFailException(event["said"])
        over = "the time is over; " if event["state"] == "over" else ""
        self.log.info("round %s: %s%s", name, over, event["said"])
        context["ti"].xcom_push(key=SUMMARY, value=f"{over}{event['said']}")
        return name


@task
def compare(recipe: str) -> int:
    """Have the recipe's judges vote beside the people, and revise replies by principles; the number of new votes.

    Without a judge in the recipe nothing is asked.
    """
    from evals import judging, kept
    from evals.endpoint import from_environment
    from reports import rounds

    with reported():
        run = open_run(recipe)
        hide(run.recipe.crawl.source)
        asked, own = run.recipe.feedback.judge, run.recipe.sample
        if asked.model is None and own.judge is None:
            log.info("the recipe names no feedback.judge.model and no sample.judge; only people compare")
            return 0
        endpoint = from_environment(asked.model, asked.max_tokens) if asked.model else None
        context: Any = get_current_context()
        made = rounds.open_round(run, context["dag"].dag_id, now())
        new = 0
        if own.judge and not own.chats:
            new = judging.vote_by_rewards(run.store, made, own.judge, now)
            log.info("round %s: %d new votes of %s", made.name, new, judging.annotator(own.judge))
        if own.chats:
            found = kept.read(run.store, need(run.store, run.task("sample")))
            new += _judge(run.store, made, found.judge, found.principle if own.principles else None)
        if endpoint:
            mask_secret(endpoint.key)
            rules = judging.read_principles(asked.principles, "feedback.judge.principles") if asked.principles else []
            judge = judging.Judge(endpoint.model, endpoint.ask_all)
            new += _judge(run.store, made, judge, partial(judging.principle_of, principles=rules) if rules else None)
    return new


def _judge(store: Store, made: "Round", judge: "Judge", principle: "Callable[[Item], str] | None") -> int:
    """Have a judge vote in a round and, with principles, make the round of its choices; the number of new votes."""
    from evals import judging

    cast = judging.judge_round(store, made, judge, now)
    said = judging.annotator(judge.model)
    log.info("round %s: %d new votes of %s, of which %d rank nothing", made.name, cast.votes, said, cast.unread)
    if principle is None:
        return cast.votes
    beside = judging.constitution(store, made, judge, principle, now)
    votes, where = beside.votes, beside.round.name if beside.round else "no round"
    log.info(
        "revised: %s; %d revisions change nothing; %d new votes of %s, of which %d rank nothing",
        where, beside.unchanged, votes.votes, said, votes.unread,
    )  # fmt: skip
    return cast.votes + votes.votes


@task(outlets=[RESOLVED])
def collect(recipe: str, name: str) -> str:
    """Freeze the votes of the round, and return the URI of the run that learns from them and from all rounds before."""
    from contract import feedback
    from reports import rounds

    context: Any = get_current_context()
    with reported():
        run = open_run(recipe)
        hide(run.recipe.crawl.source)
        made = feedback.read_round(run.store, name)
        found = rounds.collect(run, made, run_name(f"{context['dag'].dag_id}.{context['run_id']}.collected"))
    for annotator, why in (found.left_out or {}).items():
        log.info("left out: %s", printable(f"{annotator}: {why}"))
    for place in (*found.frozen, *found.dropped):
        log.info("learned from: %s", place)
    log.info("run: %s", found.run.uri)
    said = f"round {made.number}: {rounds.votes(run.store, name)}"
    if context["ti"].xcom_pull(task_ids="compare") is None:
        log.warning("the task compare did not end well: the round has what its judge had voted by then")
        said = f"{said}; the judge failed"
    context["ti"].xcom_push(key=SUMMARY, value=said)
    event = context["outlet_events"][RESOLVED]
    event.extra = {"recipe": found.run.uri, "uses": uses(found.run.uri, made.number, run)}
    event.add_partitions(crawl_of(found.run))
    return found.run.uri


def uses(uri: str, number: int, run: Any) -> str:
    """The first line of the note of a DAG run that has collected a round."""
    crawls = ", ".join(run.recipe.snapshots)
    return printable(f"{USES}run {uri}, crawl {crawls} of {run.recipe.crawl.source}, with the votes of round {number}")
