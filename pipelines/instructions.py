"""Makes the chats for instruction tuning: reads or makes them, sifts them, and holds some prompts out.

It runs in one process without Spark, because the largest public sets have a few million chats. The texts stay in
files; `pipelines.examples.sieve` says what is held in memory.
"""

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from contract import results
from contract.conversation import Conversation, opening
from contract.errors import InputError
from contract.examples import ALPACA, inspect, read
from contract.kinds import Kind
from contract.recipe import StageSettings
from contract.schema import CHATS
from contract.settings.examples import MAX_SYNTHETIC, Instructions
from pipelines.decontaminate import leaks
from pipelines.examples.duplicates import Parts
from pipelines.examples.sieve import Flags, Shape, Sieve, prompt_key
from pipelines.examples.synthetic import documents, synthetic_instructions
from pipelines.spark.job import Job
from pipelines.text.mixing import Hashes

KEY = "instructions.data"


def parts(chat: Conversation) -> Parts:
    """The prompt, which is all turns but the last, and the reply."""
    return "\n\n".join(turn.text for turn in chat[:-1]), chat[-1].text


SHAPE: Shape[Conversation] = Shape(
    Kind.CHATS, Kind.HELDOUT_CHATS, CHATS, lambda chat: {"turns": [asdict(turn) for turn in chat]}, parts, opening
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


def from_file(settings: Instructions, sieve: Sieve[Conversation]) -> Flags:
    """Take the chats of the recipe's file; returns which of those that were taken are held out."""
    taken = sieve.take_read(read(KEY, settings.data, ALPACA), settings.max_examples)
    prompts = np.array([prompt_key(opening(chat), settings.seed) for chat in taken], np.uint64)
    unique = sieve.unique()
    heldout = np.zeros(len(prompts), bool)
    heldout[unique] = hold_out(prompts[unique], settings.heldout_fraction, settings.max_heldout)
    return heldout


def from_mixture(job: Job, settings: Instructions, sieve: Sieve[Conversation]) -> Flags:
    """Take chats made of the mixture's training documents, and chats to hold out made of its held-out documents."""

    def made(kind: Kind) -> Iterator[tuple[str, Conversation]]:
        return synthetic_instructions(documents(job.store, job.inputs("mix", kind)), settings.seed)

    return sieve.take_both(made, settings.max_examples or MAX_SYNTHETIC, settings.max_heldout, set())


def check(settings: StageSettings) -> None:
    """Raise InputError if the file is missing, damaged or of another format; say what it holds."""
    own: Instructions = settings.own
    if own.data != "synthetic":
        print(inspect(KEY, own.data, ALPACA, own.max_examples))


def run(job: Job) -> None:
    settings: Instructions = job.settings
    sieve = Sieve(job, SHAPE, settings.min_jaccard, leaks(job.setting("decontaminate")))
    made = settings.data == "synthetic"
    heldout = from_mixture(job, settings, sieve) if made else from_file(settings, sieve)
    output = sieve.close(heldout)
    train, held = sieve.rows(output)
    if not train:
        raise InputError(
            f"instructions: {settings.data} data leaves no chat to learn from ({sieve.drop_reasons()}); "
            f"name a larger file in {KEY}"
        )
    job.commit(output, results.Examples(data=settings.data, training=train, heldout=held))
