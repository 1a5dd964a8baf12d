"""The plan of a run: every task of a recipe and its segments, with its fingerprint, before any task has run.

The same recipe over the same files gives the same fingerprints, so a task whose manifest exists is done
(`contract.identity` says what a fingerprint holds). A file in a folder is identified by its name below the source and
by its content, so a crawl folder that was copied, moved or touched is the same crawl. A mirror's file is identified by
its URI without secrets.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from contract import deployment
from contract import recipe as recipes
from contract.benchmarks import Measured, measured
from contract.digest import with_digest
from contract.errors import InputError, RecipeError
from contract.facts import FACTS
from contract.fetch import PATIENCE_S
from contract.identity import Identity, Input
from contract.recipe import Recipe
from contract.settings.base import Settings
from contract.sources import (
    Segment,
    check_crawl_files,
    dump_inputs,
    list_outside,
    list_segments,
    load_inputs,
    outside_digest,
)
from contract.stages import ALIGNING, STAGES, Stage, reads_setting
from contract.stages import WHOLE as WHOLE
from contract.store import Store


@dataclass(frozen=True)
class Task:
    """One stage over one partition: a segment of a crawl, a model and a benchmark, or `all`."""

    stage: str
    partition: str
    fingerprint: str
    identity: Identity = field(repr=False)
    inputs: tuple["Task", ...] = field(repr=False)
    segment: Segment | None = field(default=None, repr=False)
    elsewhere: tuple[Input, ...] = field(default=(), repr=False)
    """Results of other runs that it reads; only their addresses are known."""

    @property
    def prefix(self) -> str:
        """The folder of the task's attempts and manifest, relative to the store."""
        return f"{self.stage}/{self.fingerprint}/{self.partition}"

    def of(self, stage: str) -> list["Task"]:
        """The inputs that are tasks of one stage, in segment order."""
        return [task for task in self.inputs if task.stage == stage]

    def read(self, stage: str) -> list[Input]:
        """The addresses of all results of one stage that are read: the run's own in segment order, then other runs'."""
        return [one for one in (*map(as_input, self.inputs), *self.elsewhere) if one.stage == stage]


@dataclass(frozen=True)
class Run:
    """A resolved recipe with the crawl files and the outside files that it was resolved against.

    `outside` is what `contract.sources.list_outside` returned then: `stage.key` -> digest.
    """

    uri: str
    recipe: Recipe
    segments: tuple[Segment, ...]
    outside: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def store(self) -> Store:
        return Store(self.recipe.store)

    @cached_property
    def _tasks(self) -> dict[tuple[str, str], Task]:
        return plan(self.recipe, self.segments, self.outside)

    def tasks(self) -> dict[tuple[str, str], Task]:
        """Every task by (stage, partition), ordered so that each task comes after its inputs."""
        return self._tasks

    def mapped(self, stage: str, dag: str) -> list[str]:
        """The partitions over which a DAG maps a stage, in its order; none of a corpus stage.

        The DAG that makes a model runs its benchmarks, and that of `benchmark` all.
        """
        if STAGES[stage].scope == "model":
            found = measured(self.recipe.benchmark)
            return [one.partition for one in found if dag in (one.dag, STAGES[stage].dag)]
        return [one.partition for one in self.segments] if STAGES[stage].scope == "snapshot" else []

    def check_inputs(self, task: Task) -> None:
        """Raise InputError if a file that the task reads from outside the store changed since the run was resolved."""
        if task.segment and not task.inputs:
            check_crawl_files(task.segment)
        self._check_files(task.identity.outside)

    def check_outside(self, stage: str) -> None:
        """Raise InputError if a file that the stage's settings name changed since the run was resolved.

        The digests of all of these files are computed anew. Crawl files are not checked.
        """
        self._check_files(filter(partial(reads_setting, stage), self.outside))

    def _check_files(self, keys: Iterable[str]) -> None:
        for key in keys:
            if outside_digest(self.recipe, key) != self.outside[key]:
                raise InputError(f"{key}: the file changed since the run was resolved; start a new run")

    def task(self, stage: str, partition: str = WHOLE) -> Task:
        """One task. Raises RecipeError if the stage or the partition does not exist."""
        if stage not in STAGES:
            raise RecipeError(f"stage {stage!r} does not exist; there are {', '.join(STAGES)}")
        tasks = self.tasks()
        if (stage, partition) not in tasks:
            known = [name for owner, name in tasks if owner == stage]
            shown = ", ".join(known[:5]) + (f", ... {known[-1]}" if len(known) > 5 else "")
            raise RecipeError(f"stage {stage} has no partition {partition!r}; there are {shown}")
        return tasks[stage, partition]


def plan(
    recipe: Recipe, segments: Sequence[Segment], outside: Mapping[str, str] | None = None
) -> dict[tuple[str, str], Task]:
    """Every task of a run by (stage, partition), each after its inputs.

    `outside` identifies the content of the files that settings name (see `contract.sources.list_outside`).
    """
    done: dict[str, list[Task]] = {}
    for stage in STAGES.values():
        made = done[stage.name] = []
        known: _Known | None = None
        for part in _parts(stage, recipe, segments):
            if known is None or stage.scope == "model":  # the segments of a crawl differ only in their inputs
                known = _known(stage, recipe, part.name, outside or {})
            made.append(_task(known, part, recipe, done))
    return {(task.stage, task.partition): task for tasks in done.values() for task in tasks}


@dataclass(frozen=True)
class _Part:
    """One partition of a stage: of which segment, the how many-th, or of which model and benchmark."""

    name: str
    place: int = 0
    segment: Segment | None = None
    measured: Measured | None = None


def _parts(stage: Stage, recipe: Recipe, segments: Sequence[Segment]) -> list[_Part]:
    if stage.scope == "snapshot":
        return [_Part(segment.partition, place, segment) for place, segment in enumerate(segments)]
    if stage.scope == "model":
        return [_Part(one.partition, measured=one) for one in measured(recipe.benchmark)]
    return [_Part(WHOLE)]


@dataclass(frozen=True)
class _Known:
    """What is known of a task before its inputs. stage: its row. others: the results of other runs that it reads.

    replaced: the stages whose results in this run it does not read.
    """

    stage: Stage
    identity: Identity
    others: tuple[Input, ...]
    replaced: frozenset[str]


def _known(stage: Stage, recipe: Recipe, partition: str, outside: Mapping[str, str]) -> _Known:
    section = recipe.section(stage.name).of_partition(partition)
    elsewhere = section.results()
    named = (*elsewhere.items(), *section.beside().items())
    identity = Identity(
        stage=stage.name,
        version=stage.version,
        settings=recipe.identity(stage.name, partition),
        facts={name: FACTS[name](recipe) for name in stage.facts},
        outside={key: value for key, value in sorted(outside.items()) if _names(stage, section, key)},
    )
    others = tuple(Input(stage=of, partition=WHOLE, fingerprint=one) for of, found in named for one in found)
    return _Known(stage, identity, others, frozenset(elsewhere))


def _task(known: _Known, part: _Part, recipe: Recipe, done: Mapping[str, Sequence[Task]]) -> Task:
    """The task of a partition. done: the tasks of the stages before."""
    reads = [
        name
        for name in (part.measured.reads if part.measured else known.stage.reads)
        if name not in known.replaced and (name not in ALIGNING or name == recipe.align)
    ]
    own = slice(part.place, part.place + 1) if part.segment else slice(None)
    inputs = tuple(task for name in reads for task in done[name][own])
    more: dict[str, object] = {"inputs": (*map(as_input, inputs), *known.others)}
    if part.segment and not inputs:
        files = tuple(file.identity for file in part.segment.files)
        more |= {"segment": part.segment.partition, "crawl_files": files}
    identity = known.identity.model_copy(update=more)
    return Task(known.stage.name, part.name, identity.fingerprint(), identity, inputs, part.segment, known.others)


def _names(stage: Stage, section: Settings, key: str) -> bool:
    """Whether a task reads the outside file at a dotted key. section: what decides its partition."""
    owner, _, own = key.partition(".")
    if stage.scope == "model" and owner == stage.name:
        return own in section.outside()
    return reads_setting(stage.name, key)


def as_input(task: Task) -> Input:
    return Input(stage=task.stage, partition=task.partition, fingerprint=task.fingerprint)


def resolve(uri: str, run: str, overrides: Sequence[str] = (), snapshots: Sequence[str] = ()) -> Run:
    """Turn a recipe and its overrides into a run: validate it, check the store, list the crawl, write `runs/<run>/`.

    The folder gets recipe.yaml and inputs.json. If it has them already with the same content, the run is opened. Raises
    RecipeError if their content differs.
    """
    recipe = _asked(recipes.load(uri, overrides), snapshots)
    Store(recipe.store).check()
    return _written(_over(recipe, list_segments(recipe)), run)


def draft(recipe: Recipe, snapshots: Sequence[str] = (), patience_s: float = PATIENCE_S) -> Run:
    """The run that `resolve` would write, with an empty URI: the crawl is listed, and nothing is written.

    patience_s: how long to retry a source that cannot be reached.
    """
    recipe = _asked(recipe, snapshots)
    return _over(recipe, list_segments(recipe, patience_s))


def vary(base: Run, run: str, overrides: Sequence[str]) -> Run:
    """A run of the same store whose recipe is that of `base` with overrides, written as `resolve` does.

    The crawl is not listed again if the overrides leave it alone, so its files are the same even if it has grown.
    """
    return _written(varied(base, overrides), run)


def varied(base: Run, overrides: Sequence[str]) -> Run:
    """The run that `vary` would write, with an empty URI: nothing is written."""
    recipe = recipes.change(base.recipe, base.uri or "of a run that is not resolved yet", overrides)
    same = (recipe.crawl, recipe.snapshots) == (base.recipe.crawl, base.recipe.snapshots)
    return _with_outside(recipe, base.segments if same else list_segments(recipe))


def _asked(recipe: Recipe, snapshots: Sequence[str]) -> Recipe:
    """The recipe with the crawls that were asked for and its store's full URI."""
    named = {"snapshots": tuple(snapshots)} if snapshots else {}
    return recipe.model_copy(update={**named, "store": Store(recipe.store).uri})


def _over(recipe: Recipe, segments: Sequence[Segment]) -> Run:
    """The run of a recipe over the segments that were listed for it; the recipe names their crawls."""
    recipe = recipe.model_copy(update={"snapshots": tuple(dict.fromkeys(segment.snapshot for segment in segments))})
    return _with_outside(recipe, segments)


def _with_outside(recipe: Recipe, segments: Sequence[Segment]) -> Run:
    _check_files(segments)
    return Run("", recipe, tuple(segments), list_outside(recipe))


def _written(drafted: Run, run: str) -> Run:
    """The run, once `runs/<run>/` holds its recipe and its inputs. Raises RecipeError if it holds others."""
    store = drafted.store
    inputs, text = dump_inputs([*drafted.segments], {**drafted.outside}), recipes.dump(drafted.recipe).encode()
    for path, data in ((f"runs/{run}/inputs.json", inputs), (f"runs/{run}/recipe.yaml", text)):
        if not store.create(path, data) and store.read_bytes(path) != data:
            raise RecipeError(
                f"{store.full(path)} exists with other content; a run's recipe never changes, start a new run"
            )
    return replace(drafted, uri=with_digest(store.full(f"runs/{run}/recipe.yaml"), text, inputs))


def open_run(uri: str) -> Run:
    """Open a run by the URI of its resolved recipe, `<store>/runs/<run>/recipe.yaml`, with or without a digest.

    The returned run's `uri` has the digest, so that a later task that opens it gets the same run or an error. Raises
    RecipeError if the digest in `uri` is not that of the run's files.
    """
    recipe, inputs, uri = recipes.load_run(uri)
    segments, outside = load_inputs(inputs)
    _check_files(segments)
    return Run(uri, recipe, tuple(segments), outside)


def _check_files(segments: Sequence[Segment]) -> None:
    if fixed := deployment.current():
        fixed.check_files(file.uri for segment in segments for file in segment.files)
