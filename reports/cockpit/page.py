"""What a page is made with: its routes, what its functions are asked, and what they may answer."""

import logging
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Form, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict

from contract.errors import DamagedError, GristmillError, NotReadyError, StoreError
from contract.plan import Run
from reports.cockpit import rendering
from reports.cockpit.desk import Desk
from reports.cockpit.visitor import MOST_RUNS, Listed, Refused, Visitor

log = logging.getLogger(__name__)

Name = Annotated[str, Path(min_length=1, max_length=250, pattern=r"^[\w.~:+@ -]+$")]
"""A DAG's, run's or task's id in an address."""
InQuery, InForm = Query, Form
Answer = Response | dict[str, Any]
Right = Literal["edit", "vote"]
"""What a write needs beside the right to read the runs of its DAG."""
LATE = (
    "This takes longer than {:g} seconds and goes on. It may have been done already: look before you send it again. "
    "A form that starts a run starts only one, even if it is sent twice."
)
"""The answer to a write that is not done in time. It is not stopped."""


class Asked(BaseModel):
    """The values of a query or form. A page's own have types and bounds; a value without a field is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Asking:
    """One request to a page: who asks, what they may see, and how to answer."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.visitor: Visitor = request.state.visitor

    def run(self, dag_id: str, run_id: str) -> Run:
        """The resolved run. Raises Refused if it does not exist or the visitor may not read it."""
        self.check(dag_id)
        return self.visitor.run(dag_id, run_id)

    def runs(self, limit: int = MOST_RUNS) -> Sequence[Listed]:
        """The visitor's newest runs, the newest first."""
        return self.visitor.runs(min(limit, MOST_RUNS))

    def check(self, dag_id: str, right: Right | None = None) -> None:
        """Raise Refused unless the visitor may read the runs of a DAG, and has another right if one is asked."""
        if not self.visitor.may_read(dag_id):
            raise Refused(403, f"You may not read the runs of the DAG {dag_id}. Ask who administers Airflow.")
        if right == "edit" and not self.visitor.may_edit(dag_id):
            raise Refused(403, f"You may not edit the DAG {dag_id}. Ask who administers Airflow.")
        if right == "vote" and not self.visitor.may_vote(dag_id):
            raise Refused(403, f"You may not vote in the rounds of the DAG {dag_id}. Ask who administers Airflow.")

    def link(self, page: str, *parts: str | int, **query: Any) -> str:
        """The address of a page of ours. Parts and values are quoted; values that are None are left out."""
        path = "/".join(quote(str(part), safe="") for part in (page, *parts))
        asked = urlencode({key: value for key, value in query.items() if value is not None}, doseq=True)
        return f"{self.request.scope.get('root_path', '')}/{path}{'?' if asked else ''}{asked}"

    def static(self, name: str) -> str:
        """The address of a file in static/, with its digest, so that a browser keeps it until it changes."""
        return self.link("static", name, v=rendering.files()[name][1])

    def show(self, template: str, /, **values: Any) -> HTMLResponse:
        """The page that a template makes of these values; `status` is that of the answer as well."""
        where = self.request.path_params
        own = {"dag_id": where.get("dag_id", ""), "run_id": where.get("run_id", "")} | values
        frame = {
            "pages": self.request.app.state.pages,
            "current": self.request.url.path.removeprefix(self.link("")).partition("/")[0],
            "link": self.link,
            "static": self.static,
            "airflow": self.airflow,
            "visitor": self.visitor.name,
        }
        if taken := own.keys() & frame.keys():
            raise TypeError(f"{template}: {', '.join(sorted(taken))} are the frame's names; choose others")
        text = rendering.templates().get_template(template).render(own | frame)
        return HTMLResponse(text, values.get("status", 200))

    def airflow(self, dag_id: str, run_id: str, task_id: str = "", map_index: int = -1) -> str:
        """The address of Airflow's page on a run or task; empty without Airflow."""
        return self.visitor.airflow(dag_id, run_id, task_id, map_index)

    def go(self, page: str, *parts: str | int, **query: Any) -> RedirectResponse:
        """Lead the browser to a page after a write."""
        return RedirectResponse(self.link(page, *parts, **query), 303)

    def sorry(self, status: int, sentence: str, why: Refused | None = None) -> Response:
        """A page with one sentence; as JSON for a script that asked for data. why: what else the page shows."""
        if "text/html" in self.request.headers.get("accept", ""):
            more = (
                {"title": why.title, "at": why.at, "told": why.told} if why else {"title": "", "at": None, "told": ()}
            )
            return self.show("sorry.html", status=status, sentence=sentence, **more)
        return as_response({"error": sentence}, status)


async def _asking(request: Request) -> Asking:
    return Asking(request)


Ask = Annotated[Asking, Depends(_asking)]


class Page:
    """The routes of one page. name: how its addresses begin; title: its label in the navigation, empty for none."""

    def __init__(self, name: str, title: str) -> None:
        self.name, self.title = name, title
        self.router = APIRouter(prefix=f"/{name}")

    @property
    def of_run(self) -> bool:
        """Whether the page has an address for each run."""
        return any(route.path == f"/{self.name}/{{dag_id}}/{{run_id}}" for route in self.router.routes)  # type: ignore[attr-defined]

    def get(self, path: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
        """Register a function that answers an address."""

        def register(made: Callable[..., Answer]) -> Callable[..., Answer]:
            self.router.add_api_route(path, in_thread(made, ""), methods=["GET", "HEAD"], response_model=None)
            return made

        return register

    def post(
        self, path: str, event: str, right: Right = "edit"
    ) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
        """Register a function that changes something. event: what the audit log calls it; right: what it needs."""
        if "{dag_id}" not in path:
            raise ValueError(f"{path}: a write names its DAG, so that the right to edit it can be asked")

        def register(made: Callable[..., Answer]) -> Callable[..., Answer]:
            self.router.add_api_route(path, in_thread(made, event, right), methods=["POST"], response_model=None)
            return made

        return register


def in_thread(made: Callable[..., Answer], event: str, right: Right = "edit") -> Callable[..., Any]:
    """The page's function as a route: it checks the visitor's rights and answers in one of the frame's threads.

    event: of a write, for the audit log; empty for a function that only reads. right: what a write needs.
    """

    @wraps(made)
    async def route(**given: Any) -> Response:
        ask: Asking = given["ask"]
        try:
            desk: Desk = ask.request.app.state.desk
            return await desk.do(partial(answer, made, event, right, given), LATE if event else "")
        except Refused as error:
            if event and (runs := ask.airflow(given["dag_id"], "")):
                error.at = error.at or (f"The runs of {given['dag_id']} in Airflow", runs)
            return ask.sorry(error.status, str(error), error)

    return route


def answer(made: Callable[..., Answer], event: str, right: Right, given: dict[str, Any]) -> Response:
    """The page's answer, or one that says why there is none."""
    ask: Asking = given["ask"]
    try:
        if dag_id := given.get("dag_id"):
            ask.check(dag_id, right if event else None)
        if event:
            forms = [one.model_dump(mode="json") for one in given.values() if isinstance(one, BaseModel)]
            ask.visitor.record(event, given["dag_id"], given.get("run_id", ""), forms[0] if forms else {})
        made_of = made(**given)
        return made_of if isinstance(made_of, Response) else as_response(made_of)
    except Refused as error:
        return ask.sorry(error.status, str(error), error)
    except GristmillError as error:
        return ask.sorry(status_of(error), str(error))
    except Exception:
        log.exception("%s", ask.request.url.path)
        return ask.sorry(500, "This page has failed. Airflow's log of its API server says where.")


def status_of(error: GristmillError) -> int:
    """404 for what is not there yet, 503 for a store that may answer later, 422 for what is wrong and stays so."""
    if isinstance(error, NotReadyError):
        return 404
    return 503 if isinstance(error, StoreError) and not isinstance(error, DamagedError) else 422


def as_response(values: dict[str, Any], status: int = 200) -> Response:
    return Response(rendering.as_json(values), status, media_type="application/json")
