"""What a run's page says of it: its funnel, its stages, its recipe, and what differs in another run."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, TypeAdapter

from contract import ablation
from contract.funnel import Level, entered, summed
from contract.headline import omitted
from contract.live import written
from contract.masking import masked
from contract.plan import Run
from contract.recipe import DEFAULTS, Recipe
from contract.stages import ALIGNING, STAGES
from reports import refinedweb
from reports.curves import SILENT_S
from reports.done import Done, Found, Unreadable, name_of, of_run
from reports.older import Older, older

CHARS = 300  # of a setting's value
MODELS = (
    *("tokenizer", "pretrain", "sft", "reward", "gate", *ALIGNING, "judge"),
    *("export", "evaluate", "sample", "probe", "ablate"),
)
"""The stages whose result is a model or a figure of one."""
LIVE = ("pretrain", "sft", "reward", *ALIGNING, "judge")
"""The stages that show their curves while they run."""
PLAIN = TypeAdapter(Any)


@dataclass(frozen=True)
class StageRow:
    """One stage of a run, over all of its tasks.

    state: `done`, `not run`, `3 of 8 done`, `damaged`, `left out`, `running`, `interrupted`, or `older version`; why
    explains it. earlier: how many of the results an earlier run had made. seconds: of work, summed over tasks. amount:
    of documents or tokens, `unit`. said: its headline.
    """

    stage: str
    dag: str
    state: str
    why: str
    tasks: int
    done: int
    earlier: int
    seconds: float | None
    amount: float | None
    unit: str
    bytes: int
    peak_bytes: int | None
    said: str
    warnings: tuple[str, ...]

    @property
    def rate(self) -> float | None:
        """Documents or tokens a second."""
        return self.amount / self.seconds if self.amount and self.seconds else None


@dataclass(frozen=True)
class Setting:
    """One setting of a recipe, and its default, as JSON; secrets of addresses are masked."""

    key: str
    value: str
    default: str

    @property
    def changed(self) -> bool:
        return self.value != self.default


@dataclass(frozen=True)
class Overview:
    """A run in figures. levels: the funnel; examples: the same for examples of chat models."""

    name: str
    recipe: str
    crawls: tuple[str, ...]
    levels: tuple[Level, ...]
    examples: tuple[Level, ...]
    stages: tuple[StageRow, ...]
    changed: tuple[Setting, ...]
    """The settings that differ from the defaults."""
    results: Mapping[str, tuple[str, ...]]
    """Stage -> the prefixes of its results, by which two runs' results are the same or not."""
    older: Mapping[str, Older]
    """Stage -> its result that an older version of the stage made, where this version has none."""

    @property
    def steps(self) -> list[refinedweb.Step]:
        """The funnel in RefinedWeb's steps."""
        return refinedweb.funnel(self.levels)

    def share(self, level: Level) -> float:
        """The share of all documents that a level has kept."""
        everything = entered(self.levels, level)
        return level.kept / everything if everything else 0.0

    def of(self, stage: str) -> StageRow:
        return next(row for row in self.stages if row.stage == stage)


def overview(run: Run) -> Overview:
    """Read what the manifests of a run say. A manifest that is missing or damaged shows as a stage's state."""
    found, by_stage = of_run(run), _prefixes(run)
    gate = next((one for one in map(found.get, by_stage["gate"]) if isinstance(one, Done)), None)
    is_open = bool(gate.figures.get("open")) if gate else None
    name = name_of(run.uri)
    rows = [
        stage_row(stage, [found.get(prefix) for prefix in prefixes], name, omitted(run.recipe, stage, is_open))
        for stage, prefixes in by_stage.items()
    ]
    before = older(run) if any(row.state == "not run" for row in rows) else {}
    return Overview(
        name,
        run.recipe.name,
        run.recipe.snapshots,
        tuple(_levels(found, by_stage, "documents")),
        tuple(_levels(found, by_stage, "examples")),
        tuple(
            _not_done(run, row, before.get(row.stage), asked={*found} & {*by_stage[row.stage]} != set())
            if row.state == "not run"
            else row
            for row in rows
        ),
        tuple(one for one in settings(run.recipe) if one.changed),
        {stage: tuple(prefixes) for stage, prefixes in by_stage.items()},
        before,
    )


def _not_done(run: Run, row: StageRow, before: Older | None, asked: bool) -> StageRow:
    """The row of a stage without a result: it may be running, or have the result of an older version.

    asked: whether its inputs are done, so that it may be running.
    """
    if before:
        return replace(row, state="older version", why=before.said)
    shown = written(run.store, run.task(row.stage).prefix) if asked and row.stage in LIVE else None
    if shown is None:
        return row
    silent = time.time() - shown
    if silent <= SILENT_S:
        return replace(row, state="running")
    return replace(row, state="interrupted", why=f"its last figures are {silent / 60:,.0f} minutes old")


def funnel(run: Run) -> tuple[Level, ...]:
    """The levels of the funnel alone."""
    return tuple(_levels(of_run(run), _prefixes(run), "documents"))


def _prefixes(run: Run) -> dict[str, list[str]]:
    """Stage -> the prefixes of its tasks."""
    by_stage: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for task in run.tasks().values():
        by_stage[task.stage].append(task.prefix)
    return by_stage


def _levels(found: Mapping[str, Found], by_stage: Mapping[str, Sequence[str]], counts: str) -> Iterator[Level]:
    """The funnel's levels, as `contract.funnel.levels` gives them, of what has been read already."""
    for stage in STAGES.values():
        if stage.drops and stage.counts == counts:
            done = [one for prefix in by_stage[stage.name] if isinstance(one := found.get(prefix), Done)]
            if any(one.rows.read or one.rows.losses for one in done):
                yield summed(stage.name, (one.rows for one in done))


def stage_row(stage: str, found: Sequence[Found], run: str, why: str) -> StageRow:
    """Sum up the tasks of a stage. run: the name of the run that is shown; why: for what reason it leaves them out."""
    done = [one for one in found if isinstance(one, Done)]
    broken = [one.why for one in found if isinstance(one, Unreadable)]
    if broken:
        state, why = "damaged", broken[0]
    elif found and len(done) == len(found):
        state, why = "done", ""
    elif done:
        state, why = f"{len(done):,} of {len(found):,} done", ""
    else:
        state = "left out" if why else "not run"
    amounts = [_amount(one) for one in done]
    peaks = [one.peak_bytes for one in done if one.peak_bytes]
    level = summed(stage, (one.rows for one in done))
    several = f"{level.kept:,} of {level.read:,} {STAGES[stage].counts} kept" if level.read else ""
    return StageRow(
        stage,
        STAGES[stage].dag,
        state,
        why,
        len(found),
        len(done),
        sum(one.run != run for one in done),
        sum(one.seconds for one in done) if done else None,
        sum(amount for amount, _ in amounts) or None,
        next((unit for _, unit in amounts), ""),
        sum(one.bytes for one in done),
        max(peaks, default=None),
        done[0].said if len(done) == 1 else several,
        tuple(dict.fromkeys(said for one in done for said in one.warnings)),
    )


def _amount(done: Done) -> tuple[float, str]:
    """How much a task has worked through, and what that is counted in."""
    tokens = done.figures.get("tokens")
    if isinstance(tokens, int | float) and tokens:
        return float(tokens), "tokens"
    return float(done.rows.read), STAGES[done.stage].counts


def settings(recipe: Recipe) -> Iterator[Setting]:
    """Every setting of a recipe beside its default, in the recipe's order."""
    yield from _settings(recipe, DEFAULTS, "")


def _settings(given: BaseModel, usual: Any, above: str) -> Iterator[Setting]:
    for name in type(given).model_fields:
        value: Any = getattr(given, name)
        default: Any = getattr(usual, name, None)
        if isinstance(value, BaseModel) and type(value) is type(default):
            yield from _settings(value, default, f"{above}{name}.")
        else:
            yield Setting(f"{above}{name}", _shown(value), _shown(default))


def _shown(value: Any) -> str:
    """A value as JSON, cut where it is long, without the secrets of addresses."""
    text = masked(json.dumps(PLAIN.dump_python(value, mode="json"), ensure_ascii=False))
    return text if len(text) <= CHARS else f"{text[:CHARS]}... ({len(text):,} characters)"


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs. settings: (key, here, there); funnel: (stage, here, there), None without one.

    results: (stage, here, there, whether both are the same result).
    """

    settings: tuple[tuple[str, str, str], ...]
    funnel: tuple[tuple[str, Level | None, Level | None], ...]
    results: tuple[tuple[str, StageRow, StageRow, bool], ...]


def compare(here: Overview, there: Overview) -> Comparison:
    """What changed in recipe, funnel and models from `there` to `here`."""
    after, before = ({setting.key: setting for setting in one.changed} for one in (here, there))
    both = dict.fromkeys([*after, *before])  # what neither has changed is the same
    pairs = [(key, _value(after, before, key), _value(before, after, key)) for key in both]
    ours, theirs = ({level.stage: level for level in one.levels} for one in (here, there))
    return Comparison(
        tuple(pair for pair in pairs if pair[1] != pair[2]),
        tuple((stage, ours.get(stage), theirs.get(stage)) for stage in STAGES if stage in ours or stage in theirs),
        tuple(
            (stage, here.of(stage), there.of(stage), here.results[stage] == there.results[stage])
            for stage in MODELS
            if here.of(stage).done or there.of(stage).done
        ),
    )


def _value(own: Mapping[str, Setting], others: Mapping[str, Setting], key: str) -> str:
    """A run's value of a setting that it, or the other run, has changed."""
    return own[key].value if key in own else others[key].default


def variants(run: Run) -> dict[str, str]:
    """The runs of an ablation's variants and of their comparison: label -> path of the recipe in the run's store.

    Empty for a recipe that names no variants.
    """
    named = {
        f"{variant}, seed {seed}": ablation.name_of(run, variant, seed)
        for variant in run.recipe.ablate.variants
        for seed in run.recipe.ablate.seeds
    }
    if named:
        named[ablation.COMPARISON] = ablation.name_of(run, ablation.COMPARISON)
    return {label: f"runs/{name}/recipe.yaml" for label, name in named.items()}
