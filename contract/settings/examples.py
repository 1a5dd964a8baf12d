"""The settings of the stages that make examples for chat models: instructions and preferences."""

from typing import Annotated, Literal

from pydantic import Field

from contract.settings.base import BelowOne, Count, Real, Rows, Seed, Settings, Uri

MAX_SYNTHETIC = 100_000
"""Examples made from the corpus, if the recipe does not say how many: more of them teach a model little."""


class Examples(Settings):
    """Where examples come from, and which of them are the same."""

    data: Literal["synthetic"] | Uri = "synthetic"
    """A file or folder of examples, or `synthetic`: examples that rules make from the corpus."""
    max_examples: Rows | None = None
    """Read only so many usable examples. If unset: all of a file, or 100,000 synthetic ones.

    Above 2^24 it is refused: each process that sifts or trains keeps a record of every example in memory, and the
    largest public collection, FLAN's, has some 15 million.
    """
    min_jaccard: Annotated[Real, Field(gt=0, le=1)] | None = 0.8
    """Two examples are near duplicates if their prompts and their replies each share this part of their shingles.

    Shingles are runs of five words, in which numbers count, and the similarity is estimated from 112 MinHash values. If
    unset, only exact duplicates are dropped.
    """
    seed: Seed = 0

    def outside(self) -> dict[str, str]:
        return {} if self.data == "synthetic" else {"data": self.data}


class Instructions(Examples):
    """Chats for instruction tuning, from JSONL or JSON in the Alpaca format."""

    heldout_fraction: BelowOne = 0.05
    """Share of a file's chats that is held out by prompt. Synthetic ones are held out with their documents."""
    max_heldout: Count = 256
    """More chats are not held out."""


class Preferences(Examples):
    """Preference pairs for the reward model, from JSONL with `chosen` and `rejected` (hh-rlhf)."""

    heldout_fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.2
    """Share of the prompts, or of the synthetic pairs, that is held out.

    A prompt that `instructions` learns from is never held out.
    """
