"""Makes the chats for instruction tuning: reads or makes them, sifts them, and holds some prompts and tasks out.

It runs in one process without Spark, because the largest public sets have a few million chats. The texts stay in
files; `pipelines.examples.sieve` says what is held in memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from contract import results
from contract.conversation import Example, opening
from contract.errors import InputError
from contract.kinds import Kind
from contract.recipe import StageSettings
from contract.schema import CHATS, Drop
from contract.settings.examples import MAX_SYNTHETIC, Instructions
from pipelines.decontaminate import leaks
from pipelines.examples.choosing import FEATURES, best, features, over_cap
from pipelines.examples.duplicates import Parts
from pipelines.examples.reading import Row, inspect, limited, listed, read_chats
from pipelines.examples.shapes import CHATS as SHAPES
from pipelines.examples.shapes import allowed
from pipelines.examples.sieve import Flags, Shape, Sieve, key_of, named, prompt_key, shown, sides
from pipelines.examples.synthetic import documents, synthetic_instructions
from pipelines.spark.job import Job
from pipelines.text.mixing import Hashes


def parts(example: Example) -> Parts:
    """The prompt, which is all turns but the last, and the reply."""
    return "\n\n".join(turn.text for turn in example.turns[:-1]), example.turns[-1].text


def asked(example: Example) -> str:
    """The first thing that is really asked: worked examples before it decide on no side of the split."""
    return opening(tuple(turn for turn in example.turns if turn.role != "system")[example.shots :])


SHAPE: Shape[Example] = Shape(
    Kind.CHATS,
    Kind.HELDOUT_CHATS,
    CHATS,
    lambda example: {"turns": [asdict(turn) for turn in example.turns]},
    parts,
    asked,
    lambda example: example.task,
)


def hold_out(prompts: Hashes, fraction: float, most: int) -> Flags:
    """Which chats are held out: about `fraction` of them, and at most `most`. Shape (chats,).

    prompts: each chat's `prompt_key`. Chats with the same prompt stay on one side. Prompts are drawn by their keys, so
    that a few further chats change little. A prompt that more chats share than there is room for is for training: all
    rows may share one instruction.
    """
    keys, place, counts = np.unique(prompts, return_inverse=True, return_counts=True)
    room = min(most, round(len(prompts) * fraction))
    chosen = np.zeros(len(keys), bool)
    for at, count in enumerate(counts.tolist()):
        if count <= room:
            chosen[at] = True
            room -= count
    return chosen[place]


@dataclass(frozen=True)
class Taken:
    """What is remembered of the examples that were taken, to choose among them. Each has one row.

    prompts: each one's `prompt_key`. scores: more is better. sizes: characters of the last reply.
    """

    prompts: Hashes
    scores: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.int64]
    features: npt.NDArray[np.float32]


def remember(taken: Iterable[Example], settings: Instructions) -> Taken:
    """The figures of each example; features only where examples are selected."""
    by_quality, selecting = settings.select.quality_key is not None, settings.select.examples is not None
    prompts, scores, sizes, words = [], [], [], []
    for example in taken:
        prompts.append(prompt_key(asked(example), settings.seed))
        sizes.append(len(example.turns[-1].text))
        quality = float("nan") if example.quality is None else example.quality
        scores.append(quality if by_quality else float(sizes[-1]))
        if selecting:
            words.append(features(asked(example)))
    known = np.stack(words) if words else np.zeros((0, FEATURES), np.float32)
    return Taken(np.array(prompts, np.uint64), np.array(scores, np.float64), np.array(sizes, np.int64), known)


def split(
    taken: Taken, unique: Flags, tasks: npt.NDArray[np.int64], apart: Flags, settings: Instructions
) -> tuple[Flags, dict[Drop, Flags]]:
    """(Which examples are held out, reason -> which of them go), each of shape (examples,).

    unique: those that are no near duplicates. apart: those of the tasks of which nothing is learned; of each at most
    `max_heldout` stay, and none whose prompt a learned task has, too.
    """
    own = unique & ~apart
    heldout = np.zeros(len(unique), bool)
    heldout[own] = hold_out(taken.prompts[own], settings.heldout_fraction, settings.max_heldout)
    training = own & ~heldout
    capped = over_cap(tasks, taken.prompts, training, settings.max_per_task)
    training &= ~capped
    kept = training
    if settings.select.examples is not None:
        usable = training & (taken.sizes >= settings.select.min_reply_chars)
        kept = best(taken.scores, taken.features, usable, settings.select.examples, settings.select.max_similarity)
    known = apart & unique & np.isin(taken.prompts, taken.prompts[kept])
    others = apart & unique & ~known
    many = over_cap(tasks, taken.prompts, others, settings.max_heldout)
    dropped = {
        Drop.OVER_CAP: capped,
        Drop.NOT_SELECTED: training & ~kept,
        Drop.PROMPT_LEARNED: known,
        Drop.HELDOUT_TASK: many,
    }
    return heldout | (others & ~many), dropped


class Seen:
    """Which tasks the rows of files have, and whether any has a number at `select.quality_key`."""

    def __init__(self) -> None:
        self.tasks: set[str] = set()
        self.rated = False

    def watch(self, rows: Iterable[Row[Example]]) -> Iterator[Row[Example]]:
        """The same rows, looked at while they pass."""
        for row in rows:
            if isinstance(row.found, Example):
                self.tasks.add(row.found.task)
                self.rated |= row.found.quality is not None
            yield row


def check_choice(settings: Instructions, seen: Seen) -> None:
    """Raise InputError if the recipe chooses examples by what no row has."""
    wrong = sorted({*settings.heldout_tasks} - seen.tasks)
    if wrong:
        known = ", ".join(sorted(filter(None, seen.tasks))[:SHOWN_TASKS])
        raise InputError(
            f"instructions.heldout_tasks: no row is of the task {wrong[0]!r}; "
            + (f"there are {known}" if known else "the rows name no tasks, see docs/examples.md")
        )
    if settings.synthetic:
        if settings.max_per_task or settings.select.examples:
            key = "max_per_task" if settings.max_per_task else "select.examples"
            raise InputError(f"instructions.{key}: chooses among the rows of files; name some in instructions.data")
    elif settings.select.quality_key and not seen.rated:
        raise InputError(f"instructions.select.quality_key: no row has a number at {settings.select.quality_key!r}")


SHOWN_TASKS = 20


def from_files(settings: Instructions, sieve: Sieve[Example], shapes: Counter[str]) -> tuple[Flags, dict[Drop, Flags]]:
    """Take the chats of the recipe's files; returns what `split` does."""
    seen = Seen()
    taken = remember(sieve.take_read(seen.watch(read_chats(settings, shapes)), settings.max_examples), settings)
    check_choice(settings, seen)
    unique = sieve.unique()
    return split(taken, unique, sieve.task_codes(), sieve.of_tasks(settings.heldout_tasks), settings)


def from_mixture(job: Job, settings: Instructions, sieve: Sieve[Example]) -> Flags:
    """Take chats made of the mixture's training documents, and chats to hold out made of its held-out documents."""

    def made(kind: Kind) -> Iterator[tuple[str, Example]]:
        chats = synthetic_instructions(documents(job.store, job.inputs("mix", kind)), settings.seed)
        return ((source, Example(turns)) for source, turns in chats)

    return sieve.take_both(made, settings.max_examples or MAX_SYNTHETIC, settings.max_heldout, set())


def check(settings: StageSettings) -> None:
    """Raise InputError if a file is missing, damaged or of no known shape, or lacks what the recipe chooses by.

    Says what the files hold.
    """
    own: Instructions = settings.own
    seen = Seen()
    if not own.synthetic:
        shapes: Counter[str] = Counter()
        rows = seen.watch(limited(read_chats(own, shapes), own.max_examples))
        print(inspect(key_of("instructions", own), named(own), rows, shapes, allowed(SHAPES)))
    check_choice(own, seen)


def run(job: Job) -> None:
    settings: Instructions = job.settings
    sieve = Sieve(job, SHAPE, settings.min_jaccard, leaks(job.setting("decontaminate")))
    shapes: Counter[str] = Counter()
    dropped: Mapping[Drop, Flags] = {}
    if settings.synthetic:
        heldout = from_mixture(job, settings, sieve)
    else:
        heldout, dropped = from_files(settings, sieve, shapes)
        print(f"instructions: read rows{listed(shapes)}", flush=True)
    output = sieve.close(heldout, dropped)
    train, held = sieve.rows(output)
    if not train:
        raise InputError(
            f"instructions: {named(settings)} leaves no chat to learn from ({sieve.drop_reasons()}); "
            f"name a larger file in {key_of('instructions', settings)}"
        )
    job.commit(
        output,
        results.Examples(
            data=named(settings),
            training=train,
            heldout=held,
            shapes=shown(shapes),
            tasks=sides(sieve.tasks),
        ),
    )
