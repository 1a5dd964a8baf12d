"""Makes the preference pairs for the reward model: reads or makes them, sifts them, and holds some prompts out.

PPO samples its replies to the prompts of the training pairs; the held-out pairs measure the reward model, and their
prompts every later model. So no prompt that `instructions` trains on is among them.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from contract import results
from contract.conversation import Preference, opening
from contract.errors import InputError
from contract.examples import HH_RLHF, inspect, read
from contract.kinds import Kind
from contract.recipe import StageSettings
from contract.schema import PAIRS
from contract.settings.examples import MAX_SYNTHETIC, Preferences
from contract.tables import read_rows
from pipelines.decontaminate import leaks
from pipelines.examples.duplicates import Parts
from pipelines.examples.sieve import Flags, Shape, Sieve, prompt_key
from pipelines.examples.synthetic import documents, synthetic_preferences
from pipelines.spark.job import Job

KEY = "preferences.data"


def row(pair: Preference) -> dict[str, Any]:
    return {
        "task": pair.task,
        "prompt": [asdict(turn) for turn in pair.prompt],
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "chosen_score": pair.chosen_score,
        "rejected_score": pair.rejected_score,
    }


def parts(pair: Preference) -> Parts:
    """The prompt, the better and the worse reply."""
    return "\n\n".join(turn.text for turn in pair.prompt), pair.chosen, pair.rejected


def prompt(pair: Preference) -> str:
    return opening(pair.prompt)


SHAPE: Shape[Preference] = Shape(Kind.PAIRS, Kind.HELDOUT_PAIRS, PAIRS, row, parts, prompt)


def is_heldout(prompt: str, fraction: float) -> bool:
    """Whether the pairs whose dialogue opens with this prompt are held out. A larger fraction only adds prompts."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8]) < fraction * 2**64


def learned_prompts(job: Job) -> set[int]:
    """The `prompt_key` of every user turn that instruction tuning learns to answer."""
    return {
        prompt_key(turn["text"])
        for file in job.inputs("instructions", Kind.CHATS)
        for chat in read_rows(job.store, file, ["turns"])
        for turn in chat["turns"]
        if turn["role"] == "user"
    }


def asked(pair: Preference) -> set[int]:
    """The `prompt_key` of every user turn of a pair's dialogue."""
    return {prompt_key(turn.text) for turn in pair.prompt if turn.role == "user"}


def from_file(settings: Preferences, sieve: Sieve[Preference], learned: set[int]) -> Flags:
    """Take the pairs of the recipe's file; returns which of those that were taken are held out."""
    taken = sieve.take_read(read(KEY, settings.data, HH_RLHF), settings.max_examples)
    heldout = [
        is_heldout(prompt(pair), settings.heldout_fraction) and learned.isdisjoint(asked(pair)) for pair in taken
    ]
    sieve.unique()
    return np.array(heldout, bool)


def from_mixture(job: Job, settings: Preferences, sieve: Sieve[Preference], learned: set[int]) -> Flags:
    """Take pairs made of the mixture's training documents, and pairs to hold out made of its held-out documents."""

    def made(kind: Kind) -> Iterator[tuple[str, Preference]]:
        return synthetic_preferences(documents(job.store, job.inputs("mix", kind)), settings.seed)

    most = settings.max_examples or MAX_SYNTHETIC
    wanted = max(1, round(most * settings.heldout_fraction))
    return sieve.take_both(made, most - wanted, wanted, learned)


def check(settings: StageSettings) -> None:
    """Raise InputError if the file is missing, damaged or of another format; say what it holds."""
    own: Preferences = settings.own
    if own.data != "synthetic":
        print(inspect(KEY, own.data, HH_RLHF, own.max_examples))


def run(job: Job) -> None:
    settings: Preferences = job.settings
    sieve = Sieve(job, SHAPE, settings.min_jaccard, leaks(job.setting("decontaminate")))
    learned = learned_prompts(job)
    synthetic = settings.data == "synthetic"
    heldout = from_mixture(job, settings, sieve, learned) if synthetic else from_file(settings, sieve, learned)
    output = sieve.close(heldout)
    train, held = sieve.rows(output)
    if not train or not held:
        more = "raise mix.heldout_fraction or use more pages" if synthetic else "give it more prompts"
        raise InputError(
            f"preferences: {settings.data} data leaves {train:,} pairs to learn from and {held:,} to judge by "
            f"({sieve.drop_reasons()}); name a larger file in {KEY}, or {more}"
        )
    job.commit(output, results.Examples(data=settings.data, training=train, heldout=held))
