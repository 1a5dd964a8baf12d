"""The page "Pages": finds documents of a run, tells all of one, tries thresholds, and takes notes on wrong drops."""

import datetime
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import StringConstraints

from contract.errors import InputError
from contract.printable import printable
from contract.schema import SNIPPET_CHARS
from contract.settings.filter import Rule
from reports import indexes, search, thresholds, verdicts
from reports import page as document_page
from reports.charts import LOGARITHMIC
from reports.cockpit.page import Answer, Ask, Asked, InForm, InQuery, Name, Page
from reports.cockpit.visitor import Refused
from reports.older import notice, older

page = Page("pages", "Pages")

Word = Annotated[str, StringConstraints(max_length=100, strip_whitespace=True)]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
BINS = 60


class Searched(Asked):
    """What the search form asks; `address` may also be an id."""

    address: Annotated[str, StringConstraints(max_length=2000, strip_whitespace=True)] = ""
    stage: Word = ""
    reason: Word = ""
    language: Word = ""
    words: Word = ""
    after: Annotated[str, StringConstraints(max_length=500)] = ""


class Limited(Asked):
    """A threshold to try: its dotted key below `filter`, and the limit; without a limit, the recipe's."""

    setting: Word = ""
    limit: float | None = None


class Noted(Asked):
    """A note that a drop was wrong."""

    document: Id
    comment: Annotated[str, StringConstraints(max_length=1000)] = ""


@page.get("")
def newest(ask: Ask) -> Answer:
    """The newest run that the visitor may read."""
    for listed in ask.runs(1):
        return ask.go("pages", listed.dag_id, listed.run_id)
    raise Refused(404, "There is no run yet. Start one of the DAGs, and its pages appear here.")


@page.get("/{dag_id}/{run_id}")
def show(ask: Ask, dag_id: Name, run_id: Name, asked: Annotated[Searched, InQuery()]) -> Answer:
    """The documents that a search names, a page of them."""
    run = ask.run(dag_id, run_id)
    is_id = search.ID.fullmatch(asked.address.lower()) is not None
    given = asked.model_dump() | ({"id": asked.address.lower(), "address": ""} if is_id else {})
    try:
        found = search.search(run, search.Query(**given))
    except InputError as error:
        found = search.Found((), notes=(str(error),), tasks=tuple(indexes.indexed(run)[0]))
    tasks = found.tasks
    reasons = sorted({reason for task in tasks if asked.stage in ("", task.stage) for reason in task.rows.reasons})
    following = asked.model_dump(exclude_defaults=True) | {"after": found.after}
    return ask.show(
        "pages.html",
        asked=asked,
        found=found,
        stages=list(dict.fromkeys(task.stage for task in tasks)),
        reasons=reasons,
        kept=search.KEPT,
        chars=SNIPPET_CHARS,
        older=notice(older(run)) if len(tasks) < len(indexes.judging(run)) else "",
        next=ask.link("pages", dag_id, run_id, **following) if found.after else "",
    )


@page.get("/{dag_id}/{run_id}/document/{key}")
def document(ask: Ask, dag_id: Name, run_id: Name, key: Id) -> Answer:
    """All of one document."""
    run = ask.run(dag_id, run_id)
    found = document_page.document(run, key)
    if found is None:
        before = notice(older(run))
        why = before or "Dropped documents are listed from crawl on, kept ones from score on."
        raise Refused(404, f"No stage of this run has listed a document {key}. {why}")
    notes, left_out = verdicts.listed(run, key)
    judged = [one for one in found.scores if one.limits]
    return ask.show(
        "document.html",
        found=found,
        judged=sorted(judged, key=lambda one: not any(limit.crosses for limit in one.limits)),
        others=[one for one in found.scores if not one.limits],
        notes=notes,
        left_out=left_out,
        may_edit=ask.visitor.may_edit(dag_id),
        shown=document_page.TEXT_CHARS,
    )


@page.get("/{dag_id}/{run_id}/thresholds")
def try_thresholds(ask: Ask, dag_id: Name, run_id: Name, asked: Annotated[Limited, InQuery()]) -> Answer:
    """A score with its histogram, and what another threshold would keep."""
    run = ask.run(dag_id, run_id)
    rules = thresholds.rules(run)
    setting = asked.setting or (rules[0].setting if rules else "")
    values: dict[str, Any] = {"rules": rules, "setting": setting, "why": "", "tried": None}
    try:
        rule = thresholds.rule_of(run, setting)
        counts = thresholds.steps(run, setting)
        tried = thresholds.attempt(run, setting, rule.limit if asked.limit is None else asked.limit)
    except InputError as error:
        return ask.show("thresholds.html", **values | {"why": str(error)})
    values |= {"rule": rule, "tried": tried, "choices": thresholds.choices(counts, rule), "counts": counts}
    return ask.show(
        "thresholds.html", **values, figure=figure(counts, rule, tried.limit), said=said(tried, asked.limit)
    )


@page.get("/{dag_id}/{run_id}/thresholds/try")
def tried(ask: Ask, dag_id: Name, run_id: Name, asked: Annotated[Limited, InQuery()]) -> Answer:
    """What another threshold would keep, as JSON."""
    run = ask.run(dag_id, run_id)
    limit = thresholds.rule_of(run, asked.setting).limit if asked.limit is None else asked.limit
    found = thresholds.attempt(run, asked.setting, limit)
    changed = [
        {"link": ask.link("pages", dag_id, run_id, "document", hit.id), "title": printable(hit.title or hit.url)}
        for hit in found.changed
    ]
    return {"limit": found.limit, "said": said(found, asked.limit), "override": found.override, "changed": changed}


@page.get("/{dag_id}/{run_id}/verdicts")
def noted(ask: Ask, dag_id: Name, run_id: Name) -> Answer:
    """The notes on wrong drops, the newest first."""
    notes, left_out = verdicts.listed(ask.run(dag_id, run_id))
    return ask.show("verdicts.html", notes=notes, left_out=left_out)


@page.post("/{dag_id}/{run_id}/verdicts", "gristmill note on a drop")
def take_note(ask: Ask, dag_id: Name, run_id: Name, form: Annotated[Noted, InForm()]) -> Answer:
    """Keep a note that a drop was wrong."""
    run = ask.run(dag_id, run_id)
    found = search.search(run, search.Query(id=form.document)).hits
    if not found or found[0].reason is None:
        raise Refused(409, f"No stage of this run has dropped a document {form.document}, so there is nothing to note.")
    [drop] = found[:1]
    note = verdicts.Verdict(
        who=ask.visitor.name[:250],
        when=datetime.datetime.now(datetime.UTC),
        document=drop.id,
        stage=drop.stage,
        reason=drop.reason or "",
        comment=form.comment.strip(),
    )
    verdicts.note(run, note)
    return ask.go("pages", dag_id, run_id, "document", drop.id)


def said(tried: thresholds.Tried, asked: float | None = None) -> str:
    """What a threshold keeps, in a sentence. asked: the limit that was asked for; None for the recipe's."""
    if asked not in (None, tried.limit):
        why = "only thresholds of two significant digits are counted"
        return f"{asked:.12g} is rounded to {tried.limit:.12g}: {why}. {said(tried)}"
    then = tried.kept + tried.change
    if not tried.change:
        return f"{tried.kept:,} documents are kept, as now."
    share = f", {tried.change / tried.kept:+.1%}" if tried.kept else ""
    change = f"{tried.change:+,}{share}; {tried.words_change:+,} words"
    return f"{then:,} documents are kept instead of {tried.kept:,} ({change})."


def figure(counts: thresholds.Steps, rule: Rule, limit: float) -> dict[str, Any]:
    """The histogram of a score as Plotly's stacked bars, with the recipe's limit and the tried one as lines."""
    logarithmic = rule.score in LOGARITHMIC
    edges = bins(counts.step, logarithmic)
    steps = np.maximum(counts.step, edges[0]) if counts.step else np.zeros(0)
    heights = [np.histogram(steps, edges, weights=np.array(one, float))[0] for one in (counts.documents, counts.alone)]
    middle = np.sqrt(edges[:-1] * edges[1:]) if logarithmic else (edges[:-1] + edges[1:]) / 2
    bar = {"type": "bar", "x": middle.tolist(), "width": np.diff(edges).tolist()}
    axis = {"type": "log"} if logarithmic else {}
    return {
        "data": [
            bar | {"name": "dropped or kept by this rule alone", "y": heights[1].tolist()},
            bar | {"name": "dropped by another rule in any case", "y": (heights[0] - heights[1]).tolist()},
        ],
        "layout": {
            "barmode": "stack",
            "bargap": 0,
            "xaxis": axis | {"title": {"text": rule.score}},
            "yaxis": {"title": {"text": "documents"}},
            "shapes": [line(rule.limit, "dot"), line(limit, "solid")],
        },
    }


def line(limit: float, dash: str) -> dict[str, Any]:
    """A vertical line at a limit."""
    return {
        "type": "line",
        "x0": limit,
        "x1": limit,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"dash": dash, "color": "#d9534f"},
    }


def bins(steps: Sequence[float], logarithmic: bool) -> np.ndarray:
    """The edges of a histogram's bars over some steps."""
    low, high = (min(steps), max(steps)) if steps else (0.0, 1.0)
    if logarithmic:
        low = max(low, 0.5)
        return np.geomspace(low, max(high, low * 2), BINS + 1)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)
