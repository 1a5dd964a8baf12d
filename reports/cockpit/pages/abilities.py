"""The page "Abilities": what the models of a run can do, what any of them lost, and every item with its answers."""

from collections.abc import Sequence
from html import escape
from typing import Annotated, Any

from fastapi import Path
from pydantic import Field

from contract.benchmarks import LEAST_EXTRACTED
from contract.errors import GristmillError, NotReadyError
from contract.manifest import need
from evals.ability_report import FOUND, Report, gap_shown, gate_line, shown
from reports import answers, benchmarks
from reports.answers import Verdict
from reports.benchmarks import Part
from reports.cockpit.download import FileName, attached
from reports.cockpit.page import Answer, Ask, Asked, InQuery, Name, Page
from reports.cockpit.visitor import Refused
from reports.models import downloads
from reports.older import notice, older

page = Page("abilities", "Abilities")

DAGS = ("evaluate", "align", "pretrain")  # those that ask benchmarks
RUNS = 100  # newest ones that are looked at for one of these
SHOWN = 10  # items on a page
MOST = 1_000_000  # items of a benchmark
GAP, LINE = 56, 28  # pixels between two panels of the chart, and for each model in one
COLOUR = "#3b82c4"  # readable on light and dark
BenchmarkName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
VERDICTS: tuple[Verdict, ...] = ("any", "right", "partly", "wrong", "no answer", "lost", "won")


class Wanted(Asked):
    """Which items of a benchmark. model: whose verdicts; empty: the last one. against: a second model beside it."""

    model: str = Field(default="", max_length=60)
    against: str = Field(default="", max_length=60)
    verdict: Verdict = "any"
    source: str = Field(default="", max_length=300)
    first: int = Field(default=0, ge=0, le=MOST)


@page.get("")
def newest(ask: Ask) -> Answer:
    """The newest run of a DAG that asks benchmarks, or else the newest one."""
    runs = ask.runs(RUNS)
    if not runs:
        raise Refused(404, "There is no run yet. Start one of the DAGs, and what its models can do appears here.")
    first = next((one for one in runs if one.dag_id in DAGS), runs[0])
    return of_run(ask, first.dag_id, first.run_id)


@page.get("/{dag_id}/{run_id}")
def of_run(ask: Ask, dag_id: Name, run_id: Name) -> Answer:
    """The table of abilities, the changes from model to model, and contamination."""
    run = ask.run(dag_id, run_id)
    known = {"dag_id": dag_id, "run_id": run_id, "name": run.recipe.name, "older": notice(older(run))}
    parts = benchmarks.parts(run)
    found, problem = None, ""
    try:
        found = benchmarks.report(run)
    except NotReadyError as error:
        problem = benchmarks.waiting(parts) or (str(error) if parts else "")
    except GristmillError as error:
        problem = str(error) if parts else ""
    return ask.show(
        "abilities.html",
        parts=parts,
        answered=sorted({one.benchmark for one in parts if one.records}),
        found=found,
        problem=problem,
        figure=figure(found) if found else None,
        low=low(found) if found else [],
        least=LEAST_EXTRACTED,
        gate=gate_line(found) if found else "",
        kinds=FOUND,
        shown=shown,
        gap=gap_shown,
        **known,
    )


@page.get("/{dag_id}/{run_id}/report/{name}")
def download(ask: Ask, dag_id: Name, run_id: Name, name: FileName) -> Answer:
    """The report as Markdown or JSON."""
    run = ask.run(dag_id, run_id)
    return attached(ask, run.store, downloads(need(run.store, run.task("abilities"))), name)


@page.get("/{dag_id}/{run_id}/{benchmark}")
def items(
    ask: Ask, dag_id: Name, run_id: Name, benchmark: BenchmarkName, wanted: Annotated[Wanted, InQuery()]
) -> Answer:
    """The items of a benchmark with the outputs of one model, or of two side by side."""
    run = ask.run(dag_id, run_id)
    parts = [one for one in benchmarks.parts(run) if one.benchmark == benchmark]
    if not parts:
        raise Refused(404, f"The recipe of this run names no benchmark {benchmark}.")
    answered = [one for one in parts if one.records]
    if not answered:
        raise NotReadyError(f"No model of this run has answered {benchmark} yet: {parts[0].problem}.")
    chosen = chosen_of(answered, wanted)
    found = answers.find(run.store, chosen, wanted.verdict, wanted.source, wanted.first, SHOWN)

    def link_to(first: int) -> str:
        return ask.link("abilities", dag_id, run_id, benchmark, **wanted.model_dump(exclude={"first"}), first=first)

    return ask.show(
        "answers.html",
        benchmark=benchmark,
        wanted=wanted,
        models=[one.model for one in answered],
        chosen=chosen,
        verdicts=VERDICTS if len(chosen) > 1 else VERDICTS[:-2],
        found=found,
        next=link_to(wanted.first + SHOWN) if wanted.first + SHOWN < found.of else "",
        before=link_to(max(0, wanted.first - SHOWN)) if wanted.first else "",
    )


def chosen_of(answered: Sequence[Part], wanted: Wanted) -> list[Part]:
    """The model whose verdicts are asked, and the one beside it. Raises Refused for one that has no answers."""
    by_name = {one.model: one for one in answered}
    names = [wanted.model or answered[-1].model, *([wanted.against] if wanted.against else [])]
    if strange := [name for name in names if name not in by_name]:
        raise Refused(404, f"The model {strange[0]} has no answers here; there are those of {', '.join(by_name)}.")
    if len(names) < 2 and wanted.verdict in ("lost", "won"):
        raise Refused(422, "Which items a model lost or won is known beside a second model; choose one.")
    return [by_name[name] for name in dict.fromkeys(names)]


def low(found: Report) -> list[str]:
    """Where so few answers were found that the score says little."""
    return [
        f"{model} on {name} ({rate:.1%})"
        for name, rates in found.extraction.items()
        for model, rate in rates.items()
        if rate < LEAST_EXTRACTED
    ]


def figure(found: Report) -> dict[str, Any]:
    """A panel for each ability, one below the other: a dot for each model, with its interval."""
    rows = [row for row in found.rows if row.benchmark is None]
    known = [[(model, one) for model, one in row.scores.items() if one] for row in rows]
    height = sum(GAP + LINE * len(one) for one in known) + GAP
    layout: dict[str, Any] = {
        "showlegend": False, "height": height, "margin": {"l": 110, "r": 24, "t": 0, "b": GAP}, "annotations": [],
    }  # fmt: skip
    data = []
    top = 0
    for at, (row, dots) in enumerate(zip(rows, known, strict=True), 1):
        end = "" if at == 1 else str(at)
        ends = 1 - (top + GAP) / height, 1 - (top + GAP + LINE * len(dots)) / height
        top += GAP + LINE * len(dots)
        names = [escape(model, quote=False) for model, _ in dots]
        data.append(
            {
                "type": "scatter", "mode": "markers", "marker": {"size": 10, "color": COLOUR}, "y": names,
                "x": [one.mean for _, one in dots],
                "error_x": {
                    "type": "data", "symmetric": False, "color": COLOUR,
                    "array": [one.high - one.mean for _, one in dots],
                    "arrayminus": [one.mean - one.low for _, one in dots],
                },
                "hovertemplate": "%{y}: %{x:.1%}<extra></extra>", "xaxis": f"x{end}", "yaxis": f"y{end}",
            }
        )  # fmt: skip
        layout[f"xaxis{end}"] = {"range": [-0.01, 1.01], "tickformat": ".0%", "anchor": f"y{end}", "fixedrange": True}
        layout[f"yaxis{end}"] = {
            "type": "category", "autorange": "reversed", "domain": [max(0, ends[1]), ends[0]], "anchor": f"x{end}",
            "fixedrange": True,
        }  # fmt: skip
        layout["annotations"].append(
            {
                "text": escape(row.ability, quote=False), "showarrow": False, "x": 0, "xshift": -100, "xref": "paper",
                "xanchor": "left", "y": ends[0], "yref": "paper", "yanchor": "bottom",
            }
        )  # fmt: skip
    return {"data": data, "layout": layout}
