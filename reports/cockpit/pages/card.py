"""The figures of the card on Airflow's home page, as JSON; `static/card.js` draws it."""

from typing import Any

from contract.errors import GristmillError
from contract.plan import Run
from reports import card
from reports.cockpit.page import Answer, Ask, Asking, Page
from reports.cockpit.visitor import Listed, Refused

page = Page("card", "")
DAGS = ("corpus", "pretrain", "align", "evaluate")
NEWEST = 200  # runs among which the newest of each DAG is sought


@page.get("")
def show(ask: Ask) -> Answer:
    """DAG -> what the card says of its newest run that the visitor may read; nothing without Airflow."""
    newest: dict[str, Listed] = {}
    for one in ask.runs(NEWEST):
        newest.setdefault(one.dag_id, one)
    return {"runs": {dag: _run(ask, newest[dag]) for dag in DAGS if dag in newest}}


def _run(ask: Asking, listed: Listed) -> dict[str, Any]:
    """One run: its figures and the addresses behind them, or a sentence that says why there are none."""
    dag, name = listed.dag_id, listed.run_id
    said: dict[str, Any] = {
        "run": name,
        "state": listed.state,
        "started": listed.started,
        "airflow": ask.airflow(dag, name),
        "links": _links(ask, dag, name),
    }
    try:
        return said | _figures(ask.run(dag, name), dag)
    except (GristmillError, Refused) as error:
        return said | {"error": str(error)}


def _figures(run: Run, dag: str) -> dict[str, Any]:
    if dag == "corpus":
        steps = card.steps(run)
        return {"steps": [{"stage": one.stage, "kept": one.kept, "share": one.share} for one in steps]}
    return {"stages": card.lines(run, dag)}


def _links(ask: Asking, dag: str, run: str) -> list[dict[str, str]]:
    """What a person asks of a run of this DAG, with the page that answers it."""
    pages: dict[str, dict[str, tuple[str, ...]]] = {
        "corpus": {"Funnel": ("run", dag, run), "Why a page was dropped": ("pages", dag, run)},
        "pretrain": {"Loss curve": ("training", dag, run, "pretrain")},
        "align": {"Gate decision": ("training", dag, run, "gate"), "PPO curves": ("training", dag, run, "ppo")},
        "evaluate": {"Sample replies": ("models", dag, run)},
    }
    return [{"title": title, "address": ask.link(*parts)} for title, parts in pages[dag].items()]
