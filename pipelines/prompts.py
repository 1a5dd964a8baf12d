"""Makes the prompts for PPO and GRPO from a file of their own: sifts them, and drops those that measure models.

Without a file it commits none, and these stages sample replies to the prompts of the training pairs.
"""

from collections import Counter
from dataclasses import asdict

import numpy as np

from contract import results
from contract.conversation import Example
from contract.errors import InputError
from contract.kinds import Kind
from contract.recipe import StageSettings
from contract.schema import PROMPTS, Drop
from contract.settings.examples import Prompts
from contract.tables import read_rows
from pipelines.decontaminate import leaks
from pipelines.examples.duplicates import Parts
from pipelines.examples.reading import inspect, listed, read_prompts
from pipelines.examples.shapes import PROMPTS as SHAPES
from pipelines.examples.shapes import allowed
from pipelines.examples.sieve import Shape, Sieve, prompt_key, shown, sides
from pipelines.spark.job import Job


def parts(example: Example) -> Parts:
    """The whole dialogue, as one text: two prompts are the same only if all their turns are."""
    return ("\n\n".join(f"{turn.role}: {turn.text}" for turn in example.turns),)


def row(example: Example) -> dict[str, object]:
    return {"prompt": [asdict(turn) for turn in example.turns], "answers": list(example.answers)}


def last(example: Example) -> str:
    """What is asked last."""
    return example.turns[-1].text


SHAPE: Shape[Example] = Shape(Kind.PROMPTS, Kind.PROMPTS, PROMPTS, row, parts, last, lambda example: example.task)


def measured_prompts(job: Job) -> set[int]:
    """The `prompt_key` of every user turn of the held-out pairs and chats, which measure every later model."""
    found: set[int] = set()
    for stage, kind, column in (
        ("preferences", Kind.HELDOUT_PAIRS, "prompt"),
        ("instructions", Kind.HELDOUT_CHATS, "turns"),
    ):
        for file in job.inputs(stage, kind):
            for example in read_rows(job.store, file, [column]):
                found.update(prompt_key(turn["text"]) for turn in example[column] if turn["role"] == "user")
    return found


def check(settings: StageSettings) -> None:
    """Raise InputError if the file is missing, damaged or of no known shape; say what it holds."""
    own: Prompts = settings.own
    if own.data is not None:
        shapes: Counter[str] = Counter()
        print(inspect("prompts.data", own.data, read_prompts(own, shapes), shapes, allowed(SHAPES)))


def run(job: Job) -> None:
    settings: Prompts = job.settings
    sieve = Sieve(job, SHAPE, None, leaks(job.setting("decontaminate")))
    shapes: Counter[str] = Counter()
    measured = measured_prompts(job) if settings.data else set()
    taken = sieve.take_read(read_prompts(settings, shapes), None)
    known = np.array([prompt_key(last(example)) in measured for example in taken], bool)
    if settings.data:
        print(f"prompts: read rows{listed(shapes)}", flush=True)
    sieve.unique()
    output = sieve.close(np.zeros(len(known), bool), {Drop.PROMPT_MEASURED: known})
    kept = int((~known).sum())
    if settings.data and not kept:
        raise InputError(f"prompts: {settings.data} leaves no prompt ({sieve.drop_reasons()}); name a larger file")
    told = results.Examples(
        data=settings.data or "none", training=kept, heldout=0, shapes=shown(shapes), tasks=sides(sieve.tasks)
    )
    job.commit(output, told)
