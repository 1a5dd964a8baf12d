"""The settings of the stages that make examples for chat models: instructions, preferences and prompts."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from contract.settings.base import BelowOne, Count, Fraction, Real, Rows, Seed, Settings, Text, Uri, Weight

MAX_SYNTHETIC = 100_000
"""Examples made from the corpus, if the recipe does not say how many: more of them teach a model little."""

PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]{0,79})\}")
"""Where a template takes a value of the row."""


def _worded(text: str) -> str:
    """Refuse a template that takes nothing, or has a control character other than a line end or tab."""
    if not PLACE.search(text):
        raise ValueError("should name a key of the row in braces, for example {question}")
    if any(not one.isprintable() and one not in "\n\t" for one in text):
        raise ValueError("should hold no control characters but line ends and tabs")
    return text


Wording = Annotated[str, Field(max_length=10_000), AfterValidator(_worded)]
SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]


class Template(Settings):
    """One wording of a task. `{key}` stands for the row's value at the key, a list for its items, one a line.

    A chain of thought is a reply that takes the row's reasoning: `{rationale}\\n\\nSo the answer is {answer}.`
    """

    prompt: Wording
    reply: Wording


class Source(Settings):
    """One file or folder of examples."""

    data: Uri
    task: Text | None = None
    """The task of its rows. If unset: a row's own `task` or `task_name`, else the source's name in the recipe."""
    max_examples: Rows | None = None
    """Read only so many usable examples of it."""

    def outside(self) -> dict[str, str]:
        return {"data": self.data}


class ChatSource(Source):
    """One file or folder of chats."""

    templates: tuple[Template, ...] = ()
    """Wordings of its rows, which are then not told by their shape. Each row draws one of those whose keys it has."""
    shots: tuple[Annotated[int, Field(ge=0, le=8, strict=True)], ...] = (0,)
    """How many worked examples stand before the question, as turns. Each row draws one of these numbers.

    The worked examples are the first rows of the same task of the source, four times as many as the largest number.
    They are used for nothing else, so that none of them is held out.
    """

    @model_validator(mode="after")
    def _has_a_number(self) -> "ChatSource":
        if not self.shots:
            raise ValueError("shots should name a number at least; 0 is none")
        return self


class Examples(Settings):
    """Where examples come from, and which of them are the same."""

    data: Literal["synthetic"] | Uri = "synthetic"
    """A file or folder of examples, or `synthetic`: examples that rules make from the corpus.

    Of a folder, the task of a row that names none is the subfolder in which its file stands.
    """
    sources: dict[SourceName, Source] = {}
    """Name -> a file or folder. In place of `data`, for a mixture of several."""
    max_examples: Rows | None = None
    """Read only so many usable examples. If unset: all of a file, or 100,000 synthetic ones.

    Above 2^24 it is refused: each process that sifts or trains keeps a record of every example in memory, and the
    largest public collection, FLAN's, has some 15 million.
    """
    max_per_task: Rows | None = None
    """Of each task at most so many examples are learned from, drawn by lot: examples-proportional mixing with a cap
    (Raffel et al. 2020, section 3.5.2), so that no large task drowns the small ones."""
    min_jaccard: Annotated[Real, Field(gt=0, le=1)] | None = 0.8
    """Two examples are near duplicates if their prompts and their replies each share this part of their shingles.

    Shingles are runs of five words, in which numbers count, and the similarity is estimated from 112 MinHash values. If
    unset, only exact duplicates are dropped.
    """
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_origin(self) -> "Examples":
        if self.sources and self.data != "synthetic":
            raise ValueError("data and sources both name files; put the file of `data` among the sources")
        return self

    def outside(self) -> dict[str, str]:
        if self.sources:
            return {f"sources.{name}.data": source.data for name, source in self.sources.items()}
        return {} if self.data == "synthetic" else {"data": self.data}

    @property
    def synthetic(self) -> bool:
        """Whether rules make the examples from the corpus."""
        return self.data == "synthetic" and not self.sources


class Selection(Settings):
    """A few good chats instead of many (LIMA, Zhou et al. 2023)."""

    examples: Rows | None = None
    """Keep at most so many training chats, the best first: those with the longest replies (Zhao et al. 2024)."""
    quality_key: Text | None = None
    """The best are instead those with the highest number at this key of a row, such as a reward model's score."""
    min_reply_chars: Count = 0
    """Shorter last replies are not selected."""
    max_similarity: Fraction = 0.9
    """A chat is not selected if its prompt is closer to that of a better one: the cosine of their weighted words."""


class Instructions(Examples):
    """Chats for instruction tuning, from JSONL, JSON or Parquet in any of the shapes of docs/examples.md."""

    sources: dict[SourceName, ChatSource] = {}  # type: ignore[assignment]
    heldout_fraction: BelowOne = 0.05
    """Share of a file's chats that is held out by prompt. Synthetic ones are held out with their documents."""
    max_heldout: Count = 256
    """More chats are not held out; of a held-out task, too."""
    heldout_tasks: tuple[Text, ...] = ()
    """Tasks of which nothing is learned: their held-out loss tells what carries over to tasks not tuned on."""
    select: Selection = Selection()


class RoundOfVotes(Settings):
    """The votes of people in one round, as `python -m reports freeze` wrote them down."""

    votes: Uri
    """The file of frozen votes."""
    weight: Weight = 1.0
    """Of the round's pairs in the loss of the reward model; that of other pairs is 1."""


class Preferences(Examples):
    """Preference pairs for the reward model, from JSONL, JSON or Parquet in any of the shapes of docs/examples.md."""

    rounds: dict[SourceName, RoundOfVotes] = {}
    """Name -> a round of feedback. Its pairs come beside those of `data` and `sources`, and in place of synthetic ones.

    Of each two replies of an item that the votes do not tie, a pair with the weight of the round times the margin of
    the votes, which are weighted by their annotators. `max_examples` leaves out pairs of files first, and then those of
    the oldest rounds.
    """
    heldout_fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.2
    """Share of the prompts, or of the synthetic pairs, that is held out.

    A prompt that `instructions` learns from is never held out.
    """
    criteria: dict[Text, Weight] = {}
    """Weights of the criteria of rated replies, whose mean is the score. If unset: those of which more is known to be
    better, such as helpfulness and correctness, count the same; verbosity and complexity do not."""
    max_pairs: Annotated[int, Field(gt=0, le=4950, strict=True)] = 36
    """Of one ranking at most so many pairs are made: all pairs of InstructGPT's nine replies."""

    def outside(self) -> dict[str, str]:
        return super().outside() | {f"rounds.{name}.votes": one.votes for name, one in self.rounds.items()}

    @property
    def read(self) -> bool:
        """Whether pairs are read from files of examples."""
        return self.data != "synthetic" or bool(self.sources)

    @property
    def synthetic(self) -> bool:
        return not self.read and not self.rounds


class Prompts(Settings):
    """Prompts for PPO that no pair has. Without a file, PPO samples replies to the prompts of the training pairs."""

    data: Uri | None = None
    """A file or folder of prompts, in any of the shapes of docs/examples.md; what replies they have is not read."""
    max_examples: Rows | None = None
    """Read only so many usable prompts."""

    def outside(self) -> dict[str, str]:
        return {} if self.data is None else {"data": self.data}
