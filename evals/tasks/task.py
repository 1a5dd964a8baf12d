"""What a benchmark is: items that are read from published rows, asked in a prompt, and outputs that are graded.

Outputs are written by models and may hold anything: every function that reads one first cuts it to `MOST_CHARS`, takes
time linear in its length, and never evaluates it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import eq
from typing import Any

from contract.benchmarks import Ability
from contract.errors import InputError

MOST_CHARS = 20_000  # of an output; a chain of thought of 4,000 tokens fits
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Item:
    """One question of a published file.

    id: unique in its set. source: what it has in common with others, for example its subject: items of one source are
    alike, and intervals take them as a cluster. choices: what may be chosen, in order. answers: every answer that is
    right; of a choice its letter. subject: examples are taken from the same one, where there are any. fields: what one
    task alone knows. where: the file and the row that it was read from, as `contract.evalset` says it of the same row.
    """

    id: str
    source: str
    question: str
    choices: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    subject: str = ""
    where: str = ""

    @property
    def right(self) -> int:
        """The place of the right choice, from 0."""
        return LETTERS.index(self.answers[0])


@dataclass(frozen=True)
class Verdict:
    """What was found in one output. extracted: the answer, None where none was found. score: from 0 to 1."""

    extracted: str | None
    score: float


NOTHING = Verdict(None, 0.0)


@dataclass(frozen=True)
class Style:
    """How an item is written and continued. `ask` ends where the model goes on; `answer` is what a shot goes on with.

    intro: stands once before everything. stop: an output ends before the first of these texts.
    """

    ask: Callable[[Item], str]
    answer: Callable[[Item], str]
    intro: Callable[[Item], str] = lambda item: ""
    stop: tuple[str, ...] = ()
    between: str = "\n\n"
    continuations: Callable[[Item], Sequence[tuple[str, str]]] | None = None
    """Of a task that is scored by likelihood: for each choice (what replaces `ask`, what is scored after it)."""


@dataclass(frozen=True)
class Task:
    """One benchmark.

    read: a published row and its place -> Item; raises KeyError, ValueError or TypeError if the row has another shape.
    rows: a published row -> the rows it holds, for files that nest questions. grade: item and output -> Verdict.
    styles: the first is the usual one. columns: of a CSV or TSV file without a header.
    program: item and output -> the program whose passing is the grade, None without code in the output; for code tasks.
    grade_likelihoods: item and log-likelihoods -> Verdict, where that is not whether the right choice is the likeliest.
    needs_words: items are graded by a word list, which whoever asks must name. same_answer: whether two answers that
    were found in outputs are one, where outputs vote; None where what is found is a verdict, as of code that was run.
    """

    name: str
    ability: Ability
    read: Callable[[Mapping[str, Any], str], Item]
    grade: Callable[[Item, str], Verdict]
    styles: Mapping[str, Style]
    shots: int = 0
    columns: tuple[str, ...] = ()
    rows: Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]] = lambda row: (row,)
    program: Callable[[Item, str], str | None] | None = None
    grade_likelihoods: Callable[[Item, Sequence[float]], Verdict] | None = None
    needs_words: bool = False
    same_answer: Callable[[str, str], bool] | None = eq

    def style(self, name: str | None = None) -> Style:
        """The style of this name, or the usual one. Raises InputError for a name that it has not."""
        if name is None:
            return next(iter(self.styles.values()))
        if name not in self.styles:
            raise InputError(f"task {self.name} has no style {name!r}; it has {', '.join(self.styles)}")
        return self.styles[name]


def cut_tail(output: str) -> str:
    """The last MOST_CHARS characters, where the answer of a chain of thought stands, behind what was only thought."""
    return output[-MOST_CHARS:].rpartition("</think>")[2]


def cut_stop(output: str, stop: Sequence[str]) -> str:
    """The output before the first stop text: a base model goes on with questions of its own."""
    ends = [at for text in stop if (at := output.find(text)) >= 0]
    return output[: min(ends)] if ends else output
