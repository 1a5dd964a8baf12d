"""What a run would do before it starts: the tasks that run and those that are done, and how long they may take.

Times come from earlier tasks of the same stage. Of a task with w times the work of one that took t seconds we know only
that its time lies between t, if all of it was start-up, and w x t, if none of it was. So a forecast is a range; it is
narrow where an earlier task had about as much to do. A task that was killed and resumed says only the time of its last
attempt.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from contract import ablation
from contract.errors import InputError, RecipeError
from contract.headline import omitted
from contract.plan import Run, Task, varied
from contract.stages import ALIGNING, STAGES
from contract.store import Store
from reports.done import Done, Unreadable, look_up
from reports.workload import crawl_bytes, entered, place, work

RUNS = 12  # so many earlier runs are looked at, the newest first
SAMPLES = 5  # of each stage
SEGMENTS = 3  # of one run's stage
NEAREST = 3  # the samples whose work is nearest make the range
READ = 64  # manifests of a stage; of more tasks only their existence is asked
THREADS = 16  # that wait for the store
MOST_SEGMENTS = 1024  # of a run: what Airflow maps at once by default
MOST_MODELS = 30  # of an ablation that is forecast
DOCUMENTS_FROM = {"dedup_fuzzy": ("dedup_url", "curate")}
"""Where the documents of a stage come from, if not from the first stage that it reads."""

Pairs = Sequence[tuple[Run, Task]]


@dataclass(frozen=True)
class Sample:
    """An earlier task. `work` is in the stage's unit; `kept` are the documents that it left, by those that entered, or
    by byte of the crawl.
    """

    stage: str
    place: tuple[object, ...]
    work: float
    seconds: float
    kept: float | None = None


@dataclass(frozen=True)
class Seen:
    """A task with a manifest. `left`: documents that it left, None if it was not asked. `damage`: why it is no use."""

    left: float | None = None
    damage: str = ""
    closed: bool = False
    """Of the gate: PPO may not start."""


@dataclass(frozen=True)
class Step:
    """One stage of a run: how many of its tasks there are and are done, and the seconds that the others may take.

    The seconds are those of one task after the other; None if nothing is known to compare with, or nothing is to do.
    """

    stage: str
    tasks: int
    done: int
    low_s: float | None = None
    high_s: float | None = None
    compared: int = 0
    """Earlier tasks that the seconds come from."""
    note: str = ""
    """Why it is left out, damaged, or has no forecast."""
    left_out: bool = False
    needs: tuple[str, ...] = ()
    """Stages of other DAGs that must run first."""

    @property
    def to_run(self) -> int:
        return 0 if self.left_out else self.tasks - self.done


NOTHING = "no earlier run to compare with"


@dataclass(frozen=True)
class Forecast:
    """The steps of a DAG in the order of the stage table, and what the whole of them takes."""

    dag: str
    steps: tuple[Step, ...]
    crawls: tuple[str, ...] = ()
    files: int = 0
    needs: tuple[str, ...] = ()

    @property
    def low_s(self) -> float:
        return sum(step.low_s or 0 for step in self.steps)

    @property
    def high_s(self) -> float:
        return sum(step.high_s or 0 for step in self.steps)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Stages that run and of which nothing says how long."""
        return tuple(step.stage for step in self.steps if step.to_run and step.low_s is None)


def tasks_in(run: Run, dag: str) -> list[tuple[Run, Task]]:
    """The tasks of a run that a DAG runs, each with its run; the models of an ablation have runs of their own."""
    if len(run.segments) > MOST_SEGMENTS:
        raise InputError(
            f"{len(run.segments):,} segments are more than the {MOST_SEGMENTS:,} that Airflow maps at once by default; "
            "raise crawl.files_per_segment, or set crawl.max_files"
        )
    if dag != "ablate":
        return [
            (run, task)
            for (stage, partition), task in run.tasks().items()
            if STAGES[stage].dag == dag or (STAGES[stage].scope == "model" and partition in run.mapped(stage, dag))
        ]
    settings = run.recipe.ablate
    if len(settings.variants) * len(settings.seeds) > MOST_MODELS:
        raise RecipeError(f"ablate.variants: more than {MOST_MODELS} models are not forecast here")
    return [*ablation.resolve(run, lambda base, _, overrides: varied(base, overrides)).tasks()]


def look(pairs: Pairs) -> dict[str, Seen]:
    """Which of the tasks, and of the tasks that they read, are done: prefix -> what their manifests say."""
    if not pairs:
        return {}
    store = pairs[0][0].store
    wanted: dict[str, dict[str, Task]] = {}
    for _, task in pairs:
        for one in (task, *task.inputs):
            wanted.setdefault(one.stage, {})[one.prefix] = one
    here = [one for stage, tasks in wanted.items() for one in _there(store, stage, tasks.values())]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda one: _done(store, *one), here)
        return {task.prefix: done for (task, _), done in zip(here, found, strict=True) if done}


def _there(store: Store, stage: str, tasks: Iterable[Task]) -> list[tuple[Task, bool]]:
    """The tasks whose folders are in the store, and whether each one's manifest is to be read."""
    folders = set(store.folders(stage))
    there = [task for task in tasks if task.fingerprint in folders]
    return [(task, index < READ) for index, task in enumerate(there)]


def _done(store: Store, task: Task, reads: bool) -> Seen | None:
    if store.entry(f"{task.prefix}/manifest.json") is None:  # `look_up` may remember one that was deleted since
        return None
    if not reads:
        return Seen()
    found = look_up(store, task.prefix)
    if isinstance(found, Unreadable):
        return Seen(damage=found.why)
    return Seen(_left(found), closed=task.stage == "gate" and found.figures.get("open") is False) if found else None


def _left(found: Done) -> float:
    """Documents that a task left for the next."""
    return float(found.rows.kept) if found.rows.read else entered(found)


def samples(runs: Iterable[Run], stages: Iterable[str]) -> list[Sample]:
    """Finished tasks of earlier runs, the newest runs first: at most SAMPLES of each stage.

    A run or a manifest that cannot be read is left out.
    """
    missing, seen = dict.fromkeys(stages, SAMPLES), set[str]()
    found: list[Sample] = []
    for number, run in enumerate(runs):
        if number == RUNS or not any(missing.values()):
            break
        for stage in [name for name, count in missing.items() if count]:
            tasks = [task for (name, _), task in run.tasks().items() if name == stage and task.prefix not in seen]
            for task in tasks[: min(SEGMENTS, missing[stage])]:
                seen.add(task.prefix)
                if sample := _sample(run, task):
                    found.append(sample)
                    missing[stage] -= 1
    return found


def _sample(run: Run, task: Task) -> Sample | None:
    found = look_up(run.store, task.prefix)
    if not isinstance(found, Done):
        return None
    documents = entered(found)
    done = work(run.recipe, task, documents)
    if done is None:
        return None
    by = crawl_bytes(run.recipe, task) if task.stage == "crawl" else documents
    return Sample(task.stage, place(run.recipe, task.stage), done, found.seconds, _left(found) / by if by else None)


def forecast(pairs: Pairs, dag: str, done: Mapping[str, Seen], earlier: Sequence[Sample]) -> Forecast:
    """What a DAG would do. `done` is what `look` found, `earlier` what `samples` found."""
    leaving: dict[str, float | None] = {}
    kept = {stage: _share([one for one in earlier if one.stage == stage]) for stage in STAGES}
    works: dict[str, float | None] = {}
    for run, task in pairs:
        documents = _entering(task, leaving, done)
        works[task.prefix] = work(run.recipe, task, documents)
        found = done.get(task.prefix)
        by = crawl_bytes(run.recipe, task) if task.stage == "crawl" else documents
        share = kept[task.stage]
        expected = by * share if by is not None and share is not None else None
        leaving[task.prefix] = expected if found is None or found.left is None else found.left
    steps = tuple(
        step
        for stage in STAGES
        if (step := _step(stage, [pair for pair in pairs if pair[1].stage == stage], done, earlier, works, dag))
    )
    first = pairs[0][0] if pairs else None
    return Forecast(
        dag,
        steps,
        first.recipe.snapshots if first else (),
        sum(len(segment.files) for segment in first.segments) if first else 0,
        tuple(dict.fromkeys(name for step in steps for name in step.needs)),
    )


def _share(found: Sequence[Sample]) -> float | None:
    """The documents that a stage leaves, by those that enter."""
    shares = [one.kept for one in found if one.kept is not None]
    return sum(shares) / len(shares) if shares else None


def _entering(task: Task, leaving: Mapping[str, float | None], done: Mapping[str, Seen]) -> float | None:
    """Documents that enter a task, from the tasks before it; None if one of them cannot say."""
    sources = DOCUMENTS_FROM.get(task.stage) or STAGES[task.stage].reads[:1]
    total = 0.0
    for before in (one for one in task.inputs if one.stage in sources):
        left = leaving[before.prefix] if before.prefix in leaving else done.get(before.prefix, Seen()).left
        if left is None and before.stage != "curate":
            return None
        total += left or 0.0
    return total


def _step(
    stage: str,
    pairs: Pairs,
    done: Mapping[str, Seen],
    earlier: Sequence[Sample],
    works: Mapping[str, float | None],
    dag: str,
) -> Step | None:
    if not pairs:
        return None
    to_do = [(run, task) for run, task in pairs if task.prefix not in done]
    ended = len(pairs) - len(to_do)
    damage = next(
        (done[task.prefix].damage for _, task in pairs if task.prefix in done and done[task.prefix].damage), ""
    )
    if damage:
        return Step(stage, len(pairs), ended, note=damage)
    if not to_do:
        return Step(stage, len(pairs), ended)
    if why := omitted(to_do[0][0].recipe, stage, False if _gate_is_closed(to_do[0][1], done) else None):
        return Step(stage, len(pairs), ended, note=f"left out: {why}", left_out=True)
    alike = [one for one in earlier if one.stage == stage and one.place == place(to_do[0][0].recipe, stage)]
    ranges = [seconds(works[task.prefix], alike) for _, task in to_do]
    known = [one for one in ranges if one]
    note = "if the gate opens" if stage in ALIGNING else ""
    needs = _needs([task for _, task in to_do], done, dag)
    if len(known) < len(ranges):
        why = "its size is not known beforehand" if alike else NOTHING
        return Step(stage, len(pairs), ended, note="; ".join(filter(None, (note, why))), needs=needs)
    low, high = sum(one[0] for one in known), sum(one[1] for one in known)
    return Step(stage, len(pairs), ended, low, high, min(len(alike), NEAREST), note, needs=needs)


def _gate_is_closed(task: Task, done: Mapping[str, Seen]) -> bool:
    return any(gate.prefix in done and done[gate.prefix].closed for gate in task.of("gate"))


def _needs(tasks: Sequence[Task], done: Mapping[str, Seen], dag: str) -> tuple[str, ...]:
    """Stages of other DAGs whose results the tasks read and that are not done. Only PPO may be missing."""
    inputs = (one for task in tasks for one in task.inputs)
    absent = (
        one.stage
        for one in inputs
        if STAGES[one.stage].dag != dag and dag != "ablate" and one.stage not in ALIGNING and one.prefix not in done
    )
    return tuple(dict.fromkeys(absent))


def seconds(work: float | None, found: Sequence[Sample]) -> tuple[float, float] | None:
    """The range of seconds for some work, from the samples that are nearest to it; None without work or samples."""
    if work is None or not found:
        return None

    def factor(sample: Sample) -> float:
        """How many times the sample's work this is; 1 if both are nothing."""
        return (work or 1e-9) / (sample.work or 1e-9)

    nearest = sorted(found, key=lambda one: max(factor(one), 1 / factor(one)))[:NEAREST]
    ends = [end for one in nearest for end in (one.seconds, one.seconds * factor(one))]
    return min(ends), max(ends)


UNITS = ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def duration(low_s: float, high_s: float) -> str:
    """A range of seconds in words: `about 2 min`, `2 to 20 min`, `40 s to 3 h`; under a second, `under 1 s`."""
    if high_s < 1:
        return "under 1 s"
    (low, of_low), (high, of_high) = _rounded(low_s), _rounded(high_s)
    if (low, of_low) == (high, of_high) or high_s <= 1.25 * low_s:
        return f"about {high} {of_high}"
    return f"{low} to {high} {of_high}" if of_low == of_high else f"{low} {of_low} to {high} {of_high}"


def _rounded(count: float) -> tuple[str, str]:
    """A number of seconds in the largest unit of which there are two or more."""
    size, name = next(((size, name) for size, name in UNITS if count >= 2 * size), UNITS[-1])
    return f"{count / size:,.0f}", name
