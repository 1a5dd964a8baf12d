"""The models of runs: what each one is, its checkpoints, and its files to download.

A page asks for the models of a few runs that its reader may see. Every model is looked for where the run's plan says
that it lies, so nothing is listed but the checkpoints of one training. Manifests never change: what the table needs of
each is read once and kept, for at most CACHED of them.
"""

import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from contract.errors import InputError, NotReadyError, StoreError
from contract.headline import headline, number, omitted
from contract.kinds import Kind
from contract.manifest import File, Manifest, lies_below, need, read
from contract.plan import Run
from contract.stages import ALIGNING, STAGES
from contract.store import Store
from reports.older import Older, older

MODELS = ("pretrain", "sft", "reward", *ALIGNING, "judge")
"""The stages that train a model, in the order of the stage table."""
STAGES_READ = (*MODELS, "evaluate", "export")
CURVES = frozenset({Kind.METRICS, Kind.CURVES, Kind.EVENTS})
OFFERED = frozenset({Kind.MODEL, Kind.CRITIC, Kind.EXPORT, Kind.CHECKPOINT, Kind.REPORT}) | CURVES
"""The kinds of file that may be downloaded: those of models, what they can do, and the curves of their training.

No text of the web."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Names of files that go into a header and a command as they are."""
STEP = re.compile(r"step-([0-9]{1,12})")
CACHED = 4096
READERS = ThreadPoolExecutor(8, "models")  # they wait for the store; none is started before the first page
FRESH_S = 5.0  # for so long a table is taken for true, so that many readers at once cost one
TABLES = 64
PIECE = 1 << 20
CHECKPOINTS = 50  # most of one model that are told, the newest
Number = int | float


@dataclass(frozen=True)
class Seen:
    """A DAG run that the reader may see, and where the run of the store that it worked on has its results.

    Several DAG runs may share one run of the store. prefixes: of the stages that train, measure and export models, in
    the order of `STAGES_READ`.
    """

    dag_id: str
    run_id: str
    store: Store
    prefixes: tuple[str, ...]
    older: tuple[Older, ...] = ()
    """What older versions of the stages that train made for this run."""
    left_out: frozenset[str] = frozenset()
    """The stages that train a model in other recipes and not in this one."""

    @classmethod
    def of(cls, dag_id: str, run_id: str, run: Run) -> "Seen":
        before = older(run)
        return cls(
            dag_id,
            run_id,
            run.store,
            tuple(run.task(stage).prefix for stage in STAGES_READ),
            tuple(before[stage] for stage in MODELS if stage in before),
            frozenset(stage for stage in MODELS if omitted(run.recipe, stage, None)),
        )

    def prefix(self, stage: str) -> str:
        """Where the result of a stage lies."""
        return self.prefixes[STAGES_READ.index(stage)]


@dataclass(frozen=True)
class Figure:
    """One measured figure, with its 95 % interval if one is known."""

    name: str
    value: Number
    low: Number | None = None
    high: Number | None = None

    @property
    def said(self) -> str:
        """`0.964 (0.91 to 0.986)`."""
        interval = f" ({number(self.low)} to {number(self.high)})" if self.low is not None else ""
        return f"{number(self.value)}{interval}"


@dataclass(frozen=True)
class Model:
    """What one training stage of a run made. If it is not done, or its manifest cannot be read, `state` says so.

    dag_id, run_id: a DAG run that the reader may see, of the DAG that trains it if there is one. shared: how many of
    the DAG runs seen have it. finished: in UTC, empty if it is not. parameters: those of the pretrained model that it
    was trained from. tokens: that it was trained on; of instruction tuning those of replies. bytes: of all its files.
    exported: whether a run that was seen exports it.
    """

    dag_id: str
    run_id: str
    stage: str
    fingerprint: str
    shared: int
    finished: str = ""
    headline: str = ""
    parameters: int | None = None
    tokens: int | None = None
    figure: Figure | None = None
    bytes: int = 0
    exported: bool = False
    state: str = ""

    @property
    def name(self) -> str:
        """How an address names it. Ids of Airflow hold no slash."""
        return f"{self.dag_id}/{self.run_id}/{self.stage}"


@dataclass(frozen=True)
class Kept:
    """What stays of a manifest in memory. `inputs` are the prefixes of what it was made from."""

    finished: str
    headline: str
    metrics: Mapping[str, Any]
    bytes: int
    inputs: frozenset[str]

    @classmethod
    def of(cls, manifest: Manifest) -> "Kept":
        return cls(
            f"{manifest.finished:%Y-%m-%d %H:%M:%S}",
            headline(manifest),
            {key: value for key, value in manifest.metrics.items() if not isinstance(value, dict)},
            sum(file.bytes for file in manifest.files),
            frozenset(one.prefix for one in manifest.inputs),
        )

    def number(self, name: str) -> Number | None:
        value = self.metrics.get(name)
        return value if isinstance(value, Number) and not isinstance(value, bool) else None

    def whole(self, name: str) -> int | None:
        value = self.number(name)
        return value if isinstance(value, int) else None


Look = Callable[[Store, str], Kept | str | None]
"""What is known of the result under a prefix; None if it is not done, and a sentence if it cannot be read."""


@lru_cache(CACHED)
def _kept(store: Store, prefix: str) -> Kept:
    return Kept.of(read(store, prefix))  # a result that is not there raises, and is asked for again the next time


def cached(store: Store, prefix: str) -> Kept | str | None:
    """A `Look` that reads each manifest once. It still tells of one that was deleted since."""
    return _looked(lambda: _kept(store, prefix))


def fresh(store: Store, prefix: str) -> Kept | str | None:
    """A `Look` that reads the manifest now."""
    return _looked(lambda: Kept.of(read(store, prefix)))


def _looked(reading: Callable[[], Kept]) -> Kept | str | None:
    try:
        return reading()
    except FileNotFoundError:
        return None
    except StoreError as error:
        return str(error)


def table(seen: Sequence[Seen]) -> tuple[Model, ...]:
    """Every model of these runs: those not finished first, then the newest. One that several runs share stands once.

    Costs a read of each manifest that was not read before, and a listing of each training that is not done. What was
    found is told again for FRESH_S seconds.
    """
    return _table(tuple(seen), int(time.monotonic() / FRESH_S))


@lru_cache(TABLES)
def _table(seen: tuple[Seen, ...], _: int) -> tuple[Model, ...]:
    users: dict[tuple[Store, str], list[Seen]] = {}
    for one in seen:
        for stage in (stage for stage in MODELS if stage not in one.left_out):
            users.setdefault((one.store, one.prefix(stage)), []).append(one)
    others = ((one.store, one.prefix(stage)) for one in seen for stage in ("evaluate", "export"))
    asked = tuple(dict.fromkeys((*users, *others)))  # each once, also where several models need it
    known = dict(zip(asked, READERS.map(lambda place: cached(*place), asked), strict=True))

    def look(store: Store, prefix: str) -> Kept | str | None:
        return known[store, prefix]

    exported = {prefix for one in seen for prefix in _exported(one, look)}
    made = READERS.map(lambda item: _model(item[1], item[0][1].partition("/")[0], exported, look), users.items())
    models = [one for one in made if one]
    return tuple(sorted(models, key=lambda one: (one.finished or "~", MODELS.index(one.stage)), reverse=True))


def model(seen: Seen, stage: str) -> Model:
    """One model of a run, as in `table`, read now. Raises NotReadyError if there is neither a result nor a checkpoint.

    Raises InputError if the stage trains no model.
    """
    if stage not in MODELS:
        raise InputError(f"{stage} trains no model; {', '.join(MODELS)} do")
    found = _model([seen], stage, _exported(seen, fresh), fresh)
    if found is None:
        raise NotReadyError(f"{stage} of this run has made nothing yet: no model and no checkpoint")
    return found


def _model(users: Sequence[Seen], stage: str, exported: set[str], look: Look) -> Model | None:
    """The model of a stage that these DAG runs share, or None if there is nothing of it."""
    seen = next((one for one in users if one.dag_id == STAGES[stage].dag), users[0])
    prefix = seen.prefix(stage)
    what = (seen.dag_id, seen.run_id, stage, prefix.split("/")[1], len(users))
    kept = look(seen.store, prefix)
    if isinstance(kept, str):
        return Model(*what, state=kept)
    if kept is None:
        steps = _steps(seen.store, prefix)
        if steps:
            return Model(*what, state=f"not finished; its newest checkpoint is of step {steps[0]:,}")
        before = next((one for one in seen.older if one.stage == stage), None)
        return Model(*what, state=before.said) if before else None
    base = kept if stage == "pretrain" else _there(look(seen.store, seen.prefix("pretrain")))
    evaluated = _there(look(seen.store, seen.prefix("evaluate"))) if stage in ALIGNING else None
    if evaluated and evaluated.metrics.get("aligned_by", "ppo") != stage:
        evaluated = None
    return Model(
        *what,
        finished=kept.finished,
        headline=kept.headline,
        parameters=base.whole("parameters") if base else None,
        tokens=kept.whole("tokens") if stage == "pretrain" else kept.whole("response_tokens"),
        figure=main_figure(stage, kept, evaluated),
        bytes=kept.bytes,
        exported=prefix in exported,
    )


def _there(found: Kept | str | None) -> Kept | None:
    return found if isinstance(found, Kept) else None


def _exported(seen: Seen, look: Look) -> set[str]:
    """The prefix of the model that a run exports, if it has done so."""
    found = _there(look(seen.store, seen.prefix("export")))
    if found is None:
        return set()
    return {prefix for prefix in found.inputs if prefix.partition("/")[0] == found.metrics.get("stage")}


def main_figure(stage: str, kept: Kept, evaluated: Kept | None = None) -> Figure | None:
    """The figure by which a person knows a model of this stage; None if its task committed none.

    evaluated: of `evaluate`, for PPO's win rate.
    """
    tried = {
        "pretrain": (("bits per byte", "bits_per_byte"), ("held-out perplexity", "heldout_perplexity_after")),
        "sft": (("held-out perplexity of replies", "heldout_perplexity_after"),),
        "reward": (("held-out accuracy", "accuracy"),),
        "judge": (("held-out accuracy", "accuracy"),),
        "ppo": (("reward at the end", "reward_last"),),
        "dpo": (("held-out accuracy", "accuracy"),),
        "grpo": (("reward at the end", "reward_last"),),
    }[stage]
    if evaluated and evaluated.number("win_rate") is not None:
        # By the judge where there is one: PPO has learned to please its own reward model.
        by = "judge_win_rate" if evaluated.number("judge_win_rate") is not None else "win_rate"
        name = "win rate by the judge" if by != "win_rate" else "win rate by its own reward model"
        low, high = evaluated.number(f"{by}_low"), evaluated.number(f"{by}_high")
        return Figure(name, evaluated.number(by) or 0.0, low, high)
    for name, key in tried:
        if (value := kept.number(key)) is not None:
            return Figure(name, value, kept.number(f"{key}_low"), kept.number(f"{key}_high"))
    return None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that a training left behind, or that it may go on from. `state` says why its figures are missing."""

    step: int
    finished: str = ""
    bytes: int = 0
    heldout_loss: Number | None = None
    state: str = ""


def checkpoints(seen: Seen, stage: str) -> list[Checkpoint]:
    """The newest CHECKPOINTS checkpoints of one training of a run, the last step first."""
    prefix = seen.prefix(stage)

    def told(step: int) -> Checkpoint | None:
        kept = cached(seen.store, _of_step(prefix, step))
        if isinstance(kept, str):
            return Checkpoint(step, state=kept)
        return Checkpoint(step, kept.finished, kept.bytes, kept.number("heldout_loss")) if kept else None

    return [one for one in READERS.map(told, _steps(seen.store, prefix)[:CHECKPOINTS]) if one]


def _steps(store: Store, prefix: str) -> list[int]:
    """The steps of which a training has folders of checkpoints, the last first."""
    found = map(STEP.fullmatch, store.folders(prefix.rpartition("/")[0]))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def _of_step(prefix: str, step: int) -> str:
    return f"{prefix.rpartition('/')[0]}/step-{step:08d}"


def committed(run: Run, stage: str, step: int | None = None) -> Manifest:
    """The manifest of a stage's result, or of its checkpoint of one step, read now.

    Raises NotReadyError if it is not there.
    """
    task = run.task(stage)
    if step is None:
        return need(run.store, task)
    try:
        return read(run.store, _of_step(task.prefix, step))
    except FileNotFoundError:
        raise NotReadyError(f"{stage} of this run has no checkpoint of step {step:,}") from None


@dataclass(frozen=True)
class Download:
    """A file of a committed result. `name` is its name below the attempt; `offered` says whether it can be fetched."""

    name: str
    kind: str
    bytes: int
    sha256: str
    offered: bool
    file: File


def downloads(manifest: Manifest) -> list[Download]:
    """The files that the task wrote itself, by name. Offered are those of models, whose names need no quotes."""
    folder = f"{manifest.prefix}/{manifest.attempt}"
    own = sorted((file for file in manifest.files if lies_below(file.path, folder)), key=lambda file: file.path)
    named = [(file.path.removeprefix(f"{folder}/"), file) for file in own]
    return [
        Download(name, file.kind, file.bytes, file.sha256, file.kind in OFFERED and bool(NAME.fullmatch(name)), file)
        for name, file in named
    ]


def chosen(manifest: Manifest, name: str) -> Download:
    """The file of this name that a manifest lists and that is offered. Raises InputError if there is none."""
    for one in downloads(manifest):
        if one.name == name and one.offered:
            return one
    raise InputError(f"{manifest.stage} offers no file of this name; its page lists those that it has")


def stream(store: Store, file: File) -> Iterator[bytes]:
    """The bytes of a committed file in pieces of PIECE bytes. It is opened and its size compared before this returns.

    Raises DamagedError if the file is gone or its size is not the committed one.
    """
    source = file.open(store)

    def pieces() -> Iterator[bytes]:
        with source:
            for start in range(0, file.bytes, PIECE):
                yield store.read_range(file.path, source, start, min(PIECE, file.bytes - start))

    return pieces()


def fetch_command(store: Store, manifest: Manifest) -> str:
    """A shell command that copies all files of a result from the store to a new folder below the current one."""
    folder = store.full(f"{manifest.prefix}/{manifest.attempt}")
    end = "" if manifest.partition == "all" else f"-{manifest.partition}"
    target = shlex.quote(f"{manifest.stage}-{manifest.fingerprint[:12]}{end}")
    if store.is_s3:
        return f"aws s3 cp --recursive {shlex.quote(folder)}/ {target}/"
    return f"cp -r {shlex.quote(folder.removeprefix('file://'))} {target}"
