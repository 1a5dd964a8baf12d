"""The page "New run": asks for a run, says what is wrong with it and what it would do, and starts it."""

import datetime
import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator

from contract.errors import GristmillError, RecipeError
from contract.masking import masked
from contract.mistakes import Mistake
from contract.offered import DEFAULT_RECIPE, offered
from contract.plan import Run
from contract.recipe import Recipe
from contract.stages import stage_dags
from reports import asked as asking
from reports.again import again
from reports.asked import Asked as Wanted
from reports.cockpit.page import Answer, Ask, Asked, Asking, InForm, InQuery, Name, Page, in_thread
from reports.cockpit.visitor import Refused
from reports.forecast import Forecast, duration
from reports.keys import keys

page = Page("new", "New run")

LISTED = 100  # runs to choose from
COMPARED = 40  # newest runs, of which the forecast takes a few
IN_ADDRESS = 4_000  # characters of overrides in an address
TOLD = 50  # mistakes that are shown
FORECASTS = BoundedSemaphore(2)  # at once: a slow crawl or a large folder of sources must not take all threads
Dag = Literal["corpus", "pretrain", "align", "evaluate", "feedback", "ablate"]
Id = Annotated[str, Field(max_length=250, pattern=r"^[\w.~:+@ -]*$")]
ONCE = r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+]00:00-[0-9a-f]{8})?$"
Both = Annotated[str, Field(max_length=501, pattern=r"^([\w.~:+@ -]+/[\w.~:+@ -]+)?$")]
"""A DAG's and a run's id with a slash between, or nothing."""
ABOUT = {
    "corpus": "from a crawl to packed training sequences",
    "pretrain": "from a corpus to a base model",
    "align": "from a base model to a chat model",
    "evaluate": "measures the models and exports the last one",
    "feedback": "people compare replies of the aligned model, and the next one learns from it",
    "ablate": "compares variants of a recipe",
}


class Prefill(Asked):
    """What an address fills into the form. A run alone fills in its recipe; with another DAG it is continued."""

    dag: Dag | None = None
    from_dag: Id = ""
    from_run: Id = ""
    recipe: Annotated[str, Field(max_length=500)] = ""
    overrides: Annotated[str, Field(max_length=IN_ADDRESS)] = ""
    crawl: Annotated[str, Field(max_length=100)] = ""
    started: Id = ""


class Filled(Asked):
    """The filled form. `start`: whether the recipe or the earlier run counts. once: the moment and a random number
    that each form has of its own, so that it starts one run however often it is sent.
    """

    once: Annotated[str, Field(max_length=40, pattern=ONCE)] = ""
    start: Literal["recipe", "run"] = "recipe"
    recipe: Annotated[str, Field(max_length=500)] = ""
    crawl: Annotated[str, Field(max_length=100)] = ""
    earlier: Both = ""
    overrides: Annotated[str, Field(max_length=asking.MOST_CHARS + asking.MOST_LINES)] = ""
    unlisted: bool = False  # start it though its sources cannot be listed from here

    @field_validator("overrides")
    @classmethod
    def _plain_ends(cls, text: str) -> str:
        """Browsers send lines that end in carriage return and line feed."""
        return text.replace("\r\n", "\n").replace("\r", "\n")

    @field_serializer("overrides", "recipe", "crawl")
    def _masked(self, text: str) -> str:
        """For the audit log, without the secrets of addresses."""
        return masked(text)[:IN_ADDRESS]


@page.get("")
def show(ask: Ask, query: Annotated[Prefill, InQuery()]) -> Answer:
    """The form, empty or filled in as the address says."""
    dag: str = query.dag or (query.from_dag if query.from_dag in stage_dags() else "corpus")
    ask.check(dag)
    return _form(ask, dag, _filled(ask, dag, query), started=query.started)


def _filled(ask: Asking, dag: str, query: Prefill) -> Filled:
    recipe = query.recipe or DEFAULT_RECIPE
    if not (query.from_dag and query.from_run):
        return Filled(recipe=recipe, crawl=query.crawl, overrides=query.overrides)
    earlier = f"{query.from_dag}/{query.from_run}"
    run = ask.run(query.from_dag, query.from_run)
    # A round goes on from the run that the last one made; every other DAG does the same again.
    same = dag != "feedback" and (query.dag is None or query.dag == query.from_dag)
    if found := again(run.recipe) if same and not query.recipe else None:
        lines = [*found.overrides, *query.overrides.split("\n")] if query.overrides else [*found.overrides]
        if len(lines) <= asking.MOST_LINES and sum(len(line) + 1 for line in lines) <= asking.MOST_CHARS:
            return Filled(recipe=found.recipe, crawl=found.crawl, earlier=earlier, overrides="\n".join(lines))
    return Filled(start="run", earlier=earlier, recipe=recipe, overrides=query.overrides)


def check(ask: Ask, dag_id: Name, form: Annotated[Filled, InForm()]) -> Answer:
    """As JSON: every mistake with its line, counted from 0, and its key."""
    _check_dag(ask, dag_id)
    wanted, recipe, found = _examined(ask, dag_id, form)
    if wanted and recipe and FORECASTS.acquire(blocking=False):
        try:
            found = [one for one in [asking.find_unlisted(wanted, recipe, outside=False)] if one]
        finally:
            FORECASTS.release()
    return {"mistakes": [_as_row(one) for one in found]}


def plan(ask: Ask, dag_id: Name, form: Annotated[Filled, InForm()]) -> Answer:
    """The form again, with what is wrong or with what the run would do."""
    _check_dag(ask, dag_id)
    return _planned(ask, dag_id, form)


page.router.add_api_route("/check/{dag_id}", in_thread(check, ""), methods=["POST"], response_model=None)
page.router.add_api_route("/plan/{dag_id}", in_thread(plan, ""), methods=["POST"], response_model=None)
# Both only read, so the audit log has no row of them. They are posted because a form may be too long for an address.


@page.post("/start/{dag_id}", "new_run")
def start(ask: Ask, dag_id: Name, form: Annotated[Filled, InForm()]) -> Answer:
    """Start the run and show where it is, unless something is wrong with it.

    Workers may reach sources that this server does not: `unlisted` starts it without listing them.
    """
    _check_dag(ask, dag_id)
    wanted, recipe, found = _examined(ask, dag_id, form)
    if wanted is None or recipe is None:
        return _form(ask, dag_id, form, mistakes=found, status=422)
    with _forecasting():
        unlisted = None if form.unlisted else asking.find_unlisted(wanted, recipe)
    if unlisted:
        return _form(ask, dag_id, form, mistakes=[unlisted], unlisted=True, status=422)
    asked = asking.conf(wanted), asking.partition_key(wanted, recipe)
    run_id = ask.visitor.trigger(dag_id, *asked, name_of_run(dag_id, form.once, asked))
    return ask.go(page.name, dag=dag_id, started=run_id)


def name_of_run(dag_id: str, once: str, asked: tuple[dict[str, Any], str | None]) -> str | None:
    """The id of the run that a form starts: the same if it is sent again as it is. None for a form without `once`.

    asked: the run's conf and partition key.
    """
    if not once:
        return None
    digest = hashlib.sha256(json.dumps([dag_id, once, asked], sort_keys=True).encode()).hexdigest()
    return f"manual__{asked[1] or once.rpartition('-')[0]}__{digest[:8]}"


@page.get("/keys")
def about_keys(ask: Ask) -> Answer:
    """Every key of a recipe, its default and what it means; as JSON for a script."""
    if "text/html" in ask.request.headers.get("accept", ""):
        return ask.show("keys.html", keys=keys())
    return {"keys": [{"name": one.name, "default": one.default, "about": one.about} for one in keys()]}


def _check_dag(ask: Asking, dag_id: str) -> None:
    if dag_id not in stage_dags():
        raise Refused(404, f"No DAG of Gristmill is called {dag_id}. There are {', '.join(stage_dags())}.")
    ask.check(dag_id, "edit")


def _wanted(ask: Asking, dag_id: str, form: Filled) -> Wanted:
    """What the form asks for. Raises RecipeError for a text that is too long, and Refused for a run."""
    lines = asking.read_lines(form.overrides)
    if form.start == "recipe":
        return Wanted(dag_id, form.recipe, lines, form.crawl.strip())
    if not form.earlier:
        raise RecipeError("choose the earlier run, or start from a recipe")
    of_dag, _, run_id = form.earlier.partition("/")
    return Wanted(dag_id, "", lines, "", ask.run(of_dag, run_id))


def _examined(ask: Asking, dag_id: str, form: Filled) -> tuple[Wanted | None, Recipe | None, list[Mistake]]:
    """What the form asks for and its recipe, or what is wrong with it."""
    try:
        wanted = _wanted(ask, dag_id, form)
        recipe, found = asking.examine(wanted)
        return wanted, recipe, found[:TOLD]
    except (GristmillError, Refused) as error:
        return None, None, [Mistake("", str(error))]


@contextmanager
def _forecasting() -> Iterator[None]:
    """One of the few turns to list sources. Raises Refused if others have them all."""
    if not FORECASTS.acquire(timeout=1):
        raise Refused(503, "Others are looking at what their runs would do. Ask again in a minute.")
    try:
        yield
    finally:
        FORECASTS.release()


def _as_row(one: Mistake) -> dict[str, Any]:
    return {"line": one.line, "key": one.key[:200], "message": one.message}


def _planned(ask: Asking, dag_id: str, form: Filled) -> Answer:
    """The form with its mistakes or its plan."""
    wanted, recipe, found = _examined(ask, dag_id, form)
    if wanted is None or recipe is None:
        return _form(ask, dag_id, form, mistakes=found, status=422)
    with _forecasting():
        try:
            expected = asking.expect(wanted, recipe, _earlier(ask))
        except GristmillError as error:
            told = Mistake("", str(error)[: asking.TOLD_CHARS])
            return _form(ask, dag_id, form, mistakes=[asking.find_unlisted(wanted, recipe) or told], status=422)
    return _form(ask, dag_id, form, expected=expected, commands=asking.commands(wanted))


def _earlier(ask: Asking) -> Iterator[Run]:
    """The newest runs that the visitor may read, each recipe once."""
    seen: set[str] = set()
    for listed in ask.runs(COMPARED):
        try:
            run = ask.run(listed.dag_id, listed.run_id)
        except (Refused, GristmillError):
            continue
        if run.uri not in seen:
            seen.add(run.uri)
            yield run


def _form(
    ask: Asking,
    dag: str,
    form: Filled,
    *,
    mistakes: list[Mistake] | None = None,
    expected: Forecast | None = None,
    commands: list[str] | None = None,
    started: str = "",
    unlisted: bool = False,
    status: int = 200,
) -> Answer:
    listed = [f"{one.dag_id}/{one.run_id}" for one in ask.runs(LISTED)]
    return ask.show(
        "new.html",
        status=status,
        dag=dag,
        about=ABOUT,
        form=form,
        once=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%S}+00:00-{secrets.token_hex(4)}",
        recipes=offered(),
        earlier=listed if form.earlier in ("", *listed) else [form.earlier, *listed],
        mistakes=mistakes or [],
        unlisted=unlisted,
        expected=expected,
        expected_s=duration(expected.low_s, expected.high_s) if expected else "",
        of=duration,
        followers=asking.FOLLOWERS.get(dag, ()),
        commands=commands or [],
        started=started,
        paused=bool(started) and ask.visitor.is_paused(dag),
        started_at=ask.airflow(dag, started) if started else "",
        in_airflow=bool(ask.airflow(dag, "any")),
        may=ask.visitor.may_edit(dag),
        most=asking.MOST_CHARS,
    )
