"""What a model of ours answered as a judge: a row for each question, from which its votes are made afterwards.

The stage `sample` has the model and asks it everything; it keeps the questions and the answers. The votes lie in a
round, which is opened later, where no model is at hand. There the same questions are made again, and the rows answer.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from contract.conversation import Conversation, Turn
from contract.errors import InputError
from contract.feedback import Item
from contract.kinds import Kind
from contract.manifest import File, Manifest
from contract.store import Store
from contract.tables import read_rows, written
from evals.judging import AskAll, Comparison, Judge, comparisons, principle_of, revised, revisions

Step = Literal["comparison", "critique", "revision", "choice"]


@dataclass(frozen=True)
class Answer:
    """A question to a judge and its answer.

    item: of the round's items; of a choice, the one whose reply was revised. showing: which of the two orders. ranks:
    of the replies, or of the reply and its revision; empty of an answer that could not be read, and of other steps.
    """

    item: str
    step: Step
    showing: int
    principle: str
    prompt: Conversation
    answer: str
    ranks: tuple[int, ...] = ()


def ask_everything(judge: Judge, items: Sequence[Item], principles: Sequence[str] = ()) -> list[Answer]:
    """Every answer of a judge on a round's items: comparisons in both orders and, with principles, all else."""
    found = _compared(judge, comparisons(items, judge.model, lambda _: ""), "comparison", {})
    if not principles:
        return found
    by_item = {
        one.item.id: one
        for one in revisions(judge.ask, items, lambda item: principle_of(item, principles), len(items) or 1)
    }
    pairs: dict[str, Item] = {}
    of: dict[str, str] = {}
    for item in items:
        one = by_item[item.id]
        found.append(Answer(item.id, "critique", 0, one.principle, one.asked, one.critique))
        found.append(Answer(item.id, "revision", 0, one.principle, one.asked_anew, one.text))
        if pair := revised(item, one.text, judge.model):
            pairs[pair.id], of[pair.id] = pair, item.id
    asked = comparisons(pairs.values(), judge.model, lambda pair: by_item[of[pair.id]].principle)
    return found + _compared(judge, asked, "choice", of)


def _compared(judge: Judge, asked: Sequence[Comparison], step: Step, of: dict[str, str]) -> list[Answer]:
    answers = dict(judge.ask([one.prompt for one in asked]))
    return [
        Answer(
            of.get(one.item.id, one.item.id), step, one.showing, one.principle, one.prompt, answers[at],
            one.ranks(answers[at]),
        )
        for at, one in enumerate(asked)
    ]  # fmt: skip


def write(store: Store, path: str, model: str, answers: Iterable[Answer]) -> File:
    """Write answers as Parquet, columns as `contract.schema.JUDGED`, and return the file as a manifest lists it."""
    from contract.schema import JUDGED

    rows = [
        {**vars(one), "model": model, "prompt": [vars(turn) for turn in one.prompt], "ranks": list(one.ranks) or None}
        for one in answers
    ]
    return written(store, path, Kind.JUDGED, rows, JUDGED)


@dataclass(frozen=True)
class Kept:
    """The answers of the judge of a finished `sample`, which is asked by them. principles: item -> its principle."""

    judge: Judge
    principles: dict[str, str]

    def principle(self, item: Item) -> str:
        return self.principles[item.id]


def read(store: Store, made: Manifest) -> Kept:
    """The judge whose answers a result of `sample` lists. Raises InputError if no chat model judged there."""
    answers: dict[Conversation, str] = {}
    principles: dict[str, str] = {}
    model = ""
    for file in made.of(Kind.JUDGED):
        for row in read_rows(store, file):
            model = row["model"]
            answers[tuple(Turn(**turn) for turn in row["prompt"])] = row["answer"]
            if row["step"] == "critique":
                principles[row["item"]] = row["principle"]
    if not model:
        raise InputError(f"{store.full(made.path)}: lists no answers of a judge; delete it and run sample again")
    return Kept(Judge(model, by(answers, store.full(made.path))), principles)


def by(answers: dict[Conversation, str], where: str) -> AskAll:
    """What asks a judge by the answers that it gave. Asked anything else, it raises InputError, which names `where`."""

    def ask(prompts: Sequence[Conversation]) -> Iterator[tuple[int, str]]:
        for number, prompt in enumerate(prompts):
            if prompt not in answers:
                raise InputError(
                    f"{where}: its judge was asked other questions, by another version; resolve the recipe again"
                )
            yield number, answers[prompt]

    return ask
