"""The page "Models": every model with its lineage, its abilities and replies beside those of others, and its files."""

import threading
import weakref
from collections.abc import Callable, Sequence
from html import escape
from typing import Annotated, Any, Generic, TypeVar

from fastapi import FastAPI, Path
from pydantic import Field, StringConstraints

from contract.errors import GristmillError
from contract.kinds import Kind
from contract.plan import Run
from contract.stages import STAGES
from reports import abilities, lineage, models
from reports.abilities import Row
from reports.cockpit.download import FileName, attached
from reports.cockpit.page import Answer, Ask, Asked, Asking, InQuery, Name, Page
from reports.cockpit.visitor import MOST_RUNS, Listed, Refused
from reports.lineage import FILES, HEIGHT, WIDTH, Kin
from reports.models import MODELS, Figure, Seen
from reports.older import notice, older

page = Page("models", "Models")
T = TypeVar("T")

RUNS = 10  # DAG runs on one page of the table
OTHERS = 12  # newest DAG runs whose results are looked for in the lineage of another
BESIDE = 4
ENDED = ("success", "failed")  # a DAG run in these states resolves no recipe any more
GAP, LINE = 56, 30  # pixels between two panels of a chart, and for each model in one
COLOUR = "#3b82c4"  # of charts; readable on light and dark
Stage = Annotated[str, Path(pattern=r"^[a-z_]{1,40}$")]
ModelName = Annotated[str, StringConstraints(max_length=600, pattern=rf"^[^/]+/[^/]+/({'|'.join(MODELS)})$")]


class Shown(Asked):
    """Which page of the table."""

    part: int = Field(1, ge=1, le=MOST_RUNS // RUNS)


class Chosen(Asked):
    """Models to put beside each other, each as DAG id, run id and stage with slashes between."""

    model: list[ModelName] = Field(min_length=1, max_length=BESIDE)


class Wanted(Asked):
    """Of a download: the step of a checkpoint, or none for the result."""

    step: int | None = Field(None, ge=0, lt=10**12)


@page.get("")
def every(ask: Ask, shown: Annotated[Shown, InQuery()]) -> Answer:
    """The models of the newest runs, RUNS of them on a page."""
    listed = ask.runs(MOST_RUNS)
    some = listed[(shown.part - 1) * RUNS : shown.part * RUNS]
    seen = PLACES.of(ask, readable(ask, some))
    return ask.show(
        "models.html",
        models=models.table(seen),
        part=shown.part,
        parts=max(1, -(-len(listed) // RUNS)),
        first=(shown.part - 1) * RUNS + 1,
        some=len(some),
        all=len(listed),
        most=BESIDE,
    )


@page.get("/beside")
def beside(ask: Ask, chosen: Annotated[Chosen, InQuery()]) -> Answer:
    """Abilities and replies of up to BESIDE models side by side."""
    names = [name.split("/") for name in dict.fromkeys(chosen.model)]
    picked = [(dag_id, run_id, stage, ask.run(dag_id, run_id)) for dag_id, run_id, stage in names]
    labels = [f"{letter}: {stage}" for letter, (_, _, stage, _) in zip("ABCD", picked, strict=False)]
    compared = compare([(run, stage) for _, _, stage, run in picked], labels)
    shown = [(label, *one[:3]) for label, one in zip(labels, picked, strict=True)]
    return ask.show("beside.html", chosen=shown, **compared)


@page.get("/{dag_id}/{run_id}")
def of_run(ask: Ask, dag_id: Name, run_id: Name) -> Answer:
    """The models of one run, their abilities and replies."""
    run = ask.run(dag_id, run_id)
    made = models.table([Seen.of(dag_id, run_id, run)])
    labels = [stage for stage in MODELS if stage in {one.stage for one in made if one.finished}]
    compared = compare([(run, stage) for stage in labels], labels)
    known = {"name": run.recipe.name, "most": BESIDE, "older": notice(older(run))}
    return ask.show("models_of_run.html", models=made, **known, **compared)


@page.get("/{dag_id}/{run_id}/{stage}")
def one(ask: Ask, dag_id: Name, run_id: Name, stage: Stage) -> Answer:
    """One stage of a run with its lineage; of a model also its figures, its checkpoints and its files."""
    if stage not in (FILES, *STAGES):
        raise Refused(404, "There is no such stage.")
    run = ask.run(dag_id, run_id)
    seen = Seen.of(dag_id, run_id, run)
    others = others_of(ask, run)
    found = lineage.of_stage(run, stage, [other for _, _, other in others])
    made, files, notes = None, None, []
    try:
        made = models.model(seen, stage) if stage in MODELS else None
        files = models.committed(run, stage) if stage in (*MODELS, "export") else None
    except GristmillError as error:
        notes.append(str(error))
    at = [(dag_id, run_id), *((dag, name) for dag, name, _ in others)]
    return ask.show(
        "lineage.html",
        stage=stage,
        step=found.steps[found.start],
        found=found,
        drawing=lineage.drawing(found),
        size=(WIDTH, HEIGHT),
        at=at,
        summary=STAGES[stage].summary if stage in STAGES else "the files of the crawl, as the run lists them",
        place=place_of_stage(ask, dag_id, run_id, stage),
        place_is_training=has_curves(ask, stage),
        model=made,
        checkpoints=models.checkpoints(seen, stage) if stage in MODELS else [],
        files=models.downloads(files) if files else [],
        command=models.fetch_command(run.store, files) if files else "",
        loads=bool(files and files.of(Kind.EXPORT)),
        notes=notes,
    )


@page.get("/{dag_id}/{run_id}/{stage}/{name}")
def download(
    ask: Ask, dag_id: Name, run_id: Name, stage: Stage, name: FileName, wanted: Annotated[Wanted, InQuery()]
) -> Answer:
    """A file of a model, of an export or of a checkpoint, by its name in the manifest."""
    if stage not in (*MODELS, "export"):
        raise Refused(404, "Only stages that make models have files to download.")
    run = ask.run(dag_id, run_id)
    return attached(ask, run.store, models.downloads(models.committed(run, stage, wanted.step)), name)


class Memo(Generic[T]):
    """What was made of listed runs, for at most `size` runs of each application. A run's recipe never changes.

    One thread makes at a time: to open a run takes the processor, and others most likely wait for the same ones.
    """

    def __init__(self, size: int, make: Callable[[str, str, Run], T]) -> None:
        self._size, self._make, self._lock = size, make, threading.Lock()
        self._known: weakref.WeakKeyDictionary[FastAPI, dict[object, T | None]] = weakref.WeakKeyDictionary()

    def of(self, ask: Asking, listed: Sequence[Listed]) -> list[T]:
        """What is made of each of these runs. Those that have no resolved recipe that can be read are left out."""
        with self._lock:
            found = [self._of(ask, one) for one in listed]
        return [one for one in found if one is not None]

    def _of(self, ask: Asking, one: Listed) -> T | None:
        known = self._known.setdefault(ask.request.app, {})
        key = one.dag_id, one.run_id, one.started
        if key in known:
            return known[key]
        try:
            made = self._make(one.dag_id, one.run_id, ask.run(one.dag_id, one.run_id))
        except (Refused, GristmillError):
            if one.state not in ENDED:
                return None  # it may resolve its recipe yet
            made = None
        while len(known) >= self._size:
            del known[next(iter(known))]
        known[key] = made
        return made


PLACES = Memo(4096, Seen.of)  # about a kilobyte each
NEWEST = Memo(64, lambda dag_id, run_id, run: (dag_id, run_id, Kin.of(run)))


def readable(ask: Asking, listed: Sequence[Listed]) -> list[Listed]:
    """Those of the listed runs whose DAG the visitor may read: what is kept of a run was perhaps made for another."""
    allowed = {dag_id for dag_id in {one.dag_id for one in listed} if ask.visitor.may_read(dag_id)}
    return [one for one in listed if one.dag_id in allowed]


def others_of(ask: Asking, own: Run) -> list[tuple[str, str, Kin]]:
    """Of the OTHERS newest runs those that are not the one asked for, each once, with their DAG and run ids."""
    found: dict[str, tuple[str, str, Kin]] = {}
    for one in NEWEST.of(ask, readable(ask, ask.runs(OTHERS))):
        found.setdefault(one[2].uri, one)
    return [one for uri, one in found.items() if uri != own.uri]


def place_of_stage(ask: Asking, dag_id: str, run_id: str, stage: str) -> str:
    """The address of a stage's own page: of a model its curves, of a stage of the corpus the run's funnel."""
    return ask.link("training", dag_id, run_id, stage) if has_curves(ask, stage) else ask.link("run", dag_id, run_id)


def has_curves(ask: Asking, stage: str) -> bool:
    """Whether a stage has curves on the page Training."""
    of_gpu = stage in STAGES and STAGES[stage].plane == "gpu"
    return of_gpu and any(one.name == "training" for one in ask.request.app.state.pages)


def compare(picked: Sequence[tuple[Run, str]], labels: Sequence[str]) -> dict[str, Any]:
    """What the templates show of models beside each other, in the order of their labels."""
    results = abilities.Results()
    found = [abilities.abilities(run, stage, results) for run, stage in picked]
    rows = abilities.beside(found)
    speaking = [(one, label) for one, label in zip(picked, labels, strict=True) if one[1] in abilities.SPEAKING]
    prompts, lacking = abilities.replies([one for one, _ in speaking], results)
    notes: dict[str, list[str]] = {}
    for one, label in zip(found, labels, strict=True):
        for note in one.notes:
            notes.setdefault(note, []).append(label)
    return {
        "labels": labels,
        "rows": rows,
        "figure": figure(rows, labels) if rows else None,
        "notes": notes,
        "prompts": prompts,
        "speakers": [label for _, label in speaking],
        "lacking": lacking if speaking else ["evaluate samples replies of sft and ppo alone"],
    }


def figure(rows: Sequence[Row], labels: Sequence[str]) -> dict[str, Any]:
    """A panel for each ability, one below the other: a dot for each model, with its interval where one is known."""
    known = [[(label, cell.figure) for label, cell in zip(labels, row.cells, strict=True) if cell] for row in rows]
    height = sum(GAP + LINE * len(one) for one in known)
    layout: dict[str, Any] = {
        "showlegend": False,
        "height": height + GAP,
        "margin": {"l": 90, "r": 24, "t": 0, "b": GAP},
        "annotations": [],
    }
    data = []
    top = 0
    for at, (row, dots) in enumerate(zip(rows, known, strict=True), 1):
        end = "" if at == 1 else str(at)
        ends = 1 - (top + GAP) / height, 1 - (top + GAP + LINE * len(dots)) / height
        top += GAP + LINE * len(dots)
        data.append(_dots(dots) | {"xaxis": f"x{end}", "yaxis": f"y{end}"})
        names = [label for label, _ in dots]
        layout[f"xaxis{end}"] = {"nticks": 6, "anchor": f"y{end}"}
        layout[f"yaxis{end}"] = {
            "type": "category", "autorange": "reversed", "domain": [max(0, ends[1]), ends[0]], "anchor": f"x{end}",
            "tickmode": "array", "tickvals": names,
        }  # fmt: skip
        layout["annotations"].append(
            {
                "text": f"{escape(row.name, quote=False)} ({row.better} is better)", "showarrow": False,
                "x": 0, "xshift": -80, "xref": "paper", "xanchor": "left",
                "y": ends[0], "yref": "paper", "yanchor": "bottom",
            }
        )  # fmt: skip
    return {"data": data, "layout": layout}


def _dots(dots: Sequence[tuple[str, Figure]]) -> dict[str, Any]:
    """One panel's figures as dots with their intervals."""
    return {
        "type": "scatter",
        "mode": "markers",
        "marker": {"size": 10, "color": COLOUR},
        "y": [label for label, _ in dots],
        "x": [one.value for _, one in dots],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "color": COLOUR,
            "array": [0 if one.high is None else one.high - one.value for _, one in dots],
            "arrayminus": [0 if one.low is None else one.value - one.low for _, one in dots],
        },
        "hovertemplate": "%{y}: %{x:.4g}<extra></extra>",
    }
