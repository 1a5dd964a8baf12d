"""Makes the preference pairs for the reward model: reads or makes them, sifts them, and holds some prompts out.

PPO samples its replies to the prompts of the training pairs; the held-out pairs measure the reward model, and their
prompts every later model. So no prompt that `instructions` trains on is among them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np

from contract import results
from contract.conversation import Preference, opening
from contract.errors import InputError
from contract.kinds import Kind
from contract.recipe import StageSettings
from contract.schema import PAIRS, Drop
from contract.settings.examples import MAX_SYNTHETIC, Preferences
from contract.tables import read_rows
from pipelines.decontaminate import leaks
from pipelines.examples.choosing import over_cap
from pipelines.examples.comparisons import comparisons
from pipelines.examples.duplicates import Parts
from pipelines.examples.reading import Row, inspect, limited, listed, read_pairs
from pipelines.examples.shapes import allowed
from pipelines.examples.sieve import Flags, Shape, Sieve, key_of, named, prompt_key, shown, sides
from pipelines.examples.synthetic import documents, synthetic_preferences
from pipelines.examples.votes import read_votes, vote_uris
from pipelines.spark.job import Job


def row(pair: Preference) -> dict[str, Any]:
    return {
        "prompt": [asdict(turn) for turn in pair.prompt],
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "chosen_score": pair.chosen_score,
        "rejected_score": pair.rejected_score,
        "weight": pair.weight,
    }


def parts(pair: Preference) -> Parts:
    """The prompt, the better and the worse reply."""
    return "\n\n".join(turn.text for turn in pair.prompt), pair.chosen, pair.rejected


def prompt(pair: Preference) -> str:
    return opening(pair.prompt)


SHAPE: Shape[Preference] = Shape(Kind.PAIRS, Kind.HELDOUT_PAIRS, PAIRS, row, parts, prompt, lambda pair: pair.task)


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


def rows_of(settings: Preferences, shapes: Counter[str]) -> Iterator[Row[Preference]]:
    """The pairs of the recipe's rounds, the newest first, then those of its files, which are less dear."""
    return chain(read_votes(settings, shapes), read_pairs(settings, shapes) if settings.read else ())


def from_files(
    settings: Preferences, sieve: Sieve[Preference], learned: set[int], shapes: Counter[str]
) -> tuple[Flags, dict[Drop, Flags]]:
    """Take the pairs of the recipe's files and rounds; returns which of those taken are held out, and which go."""
    heldout, lots = [], []
    for pair in sieve.take_read(rows_of(settings, shapes), settings.max_examples):
        heldout.append(is_heldout(prompt(pair), settings.heldout_fraction) and learned.isdisjoint(asked(pair)))
        lots.append(prompt_key(prompt(pair), settings.seed))
    flags, unique = np.array(heldout, bool), sieve.unique()
    capped = over_cap(sieve.task_codes(), np.array(lots, np.uint64), unique & ~flags, settings.max_per_task)
    return flags, {Drop.OVER_CAP: capped}


def from_mixture(job: Job, settings: Preferences, sieve: Sieve[Preference], learned: set[int]) -> Flags:
    """Take pairs made of the mixture's training documents, and pairs to hold out made of its held-out documents."""

    def made(kind: Kind) -> Iterator[tuple[str, Preference]]:
        return synthetic_preferences(documents(job.store, job.inputs("mix", kind)), settings.seed)

    most = settings.max_examples or MAX_SYNTHETIC
    wanted = max(1, round(most * settings.heldout_fraction))
    return sieve.take_both(made, most - wanted, wanted, learned)


def check(settings: StageSettings) -> None:
    """Raise InputError if a file is missing, damaged or of no known shape; say what the files hold."""
    own: Preferences = settings.own
    if not own.synthetic:
        shapes: Counter[str] = Counter()
        rows = limited(rows_of(own, shapes), own.max_examples)
        described = allowed(comparisons(own.criteria))
        print(inspect(key_of("preferences", own), named(own), rows, shapes, described))
    elif own.max_per_task:
        raise InputError(
            "preferences.max_per_task: chooses among the rows of files; name some in preferences.data or .sources"
        )


def run(job: Job) -> None:
    settings: Preferences = job.settings
    sieve = Sieve(job, SHAPE, settings.min_jaccard, leaks(job.setting("decontaminate")))
    learned = learned_prompts(job)
    shapes: Counter[str] = Counter()
    dropped: Mapping[Drop, Flags] = {}
    if settings.synthetic:
        heldout = from_mixture(job, settings, sieve, learned)
    else:
        heldout, dropped = from_files(settings, sieve, learned, shapes)
        print(f"preferences: read rows{listed(shapes)}", flush=True)
    output = sieve.close(heldout, dropped)
    train, held = sieve.rows(output)
    if not train or not held:
        more = "raise mix.heldout_fraction or use more pages" if settings.synthetic else "give it more prompts"
        if not held and not settings.synthetic:
            more += f", or raise preferences.heldout_fraction from {settings.heldout_fraction:g}"
        raise InputError(
            f"preferences: {named(settings)} leaves {train:,} pairs to learn from and {held:,} to judge by "
            f"({sieve.drop_reasons()}); name a larger file in {key_of('preferences', settings)}, or {more}"
        )
    told = results.Examples(
        data=named(settings), training=train, heldout=held, shapes=shown(shapes), tasks=sides(sieve.tasks)
    )
    job.commit(output, told, vote_uris(settings))
