"""Long-context retrieval: a sentence with a number is hidden at some depth of a long text, and the number is asked for.

Items are made of any text by `make`, the same from the same text and numbers, and are JSONL as those of other tasks.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evals.tasks.maths import exact, grade_number, number_part
from evals.tasks.task import Item, Style, Task

NEEDLE = "Remember that the access number of {name} is {number}."  # one sentence, so that no other is put into it
QUESTION = "What is the access number of {name}?"
NAMES = ("the harbour", "the library", "the observatory", "the old mill", "the station", "the archive")


def make(
    text: str, lengths: Sequence[int], depths: Sequence[float], each: int = 1, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Rows {"id", "context", "question", "answer", "length", "depth"}: each length, in characters, with each depth.

    A depth is a share of the text before the needle, from 0 to 1. Other places have numbers as well, so that the number
    that stands out is not the answer. Raises ValueError if the text is shorter than a length.
    """
    if not lengths or len(text) < max(lengths):
        raise ValueError(f"the text has {len(text):,} characters, {max(lengths, default=1):,} are needed")
    for length in lengths:
        for depth in depths:
            for number in range(each):
                drawn = random.Random(f"{seed} {length} {depth} {number}")  # noqa: S311 (no secret)
                yield _row(text, length, depth, number, drawn)


def _row(text: str, length: int, depth: float, number: int, drawn: random.Random) -> dict[str, Any]:
    asked, other = drawn.sample(NAMES, 2)
    answers = drawn.sample(range(10_000, 100_000), 2)
    start = drawn.randrange(len(text) - length + 1)
    context = text[start : start + length]
    for name, answer, place in ((asked, answers[0], depth), (other, answers[1], drawn.random())):
        at = _between_sentences(context, int(place * len(context)))
        context = f"{context[:at]} {NEEDLE.format(name=name, number=answer)} {context[at:]}"
    return {
        "id": f"{length}/{depth}/{number}", "context": context, "question": QUESTION.format(name=asked),
        "answer": answers[0], "length": length, "depth": depth,
    }  # fmt: skip


def _between_sentences(text: str, at: int) -> int:
    """The end of the sentence before a place, or of the text's beginning."""
    return max(
        (text.rfind(end, 0, at) + len(end) for end in (". ", ".\n", "。", "\n") if text.rfind(end, 0, at) >= 0),
        default=0,
    )


def read(row: Mapping[str, Any], place: str) -> Item:
    """What `make` makes. Items of one length are one source, since a model fails by length."""
    fields = {"context": str(row["context"]), "length": row.get("length"), "depth": row.get("depth")}
    name = str(row.get("id", place))
    return Item(name, str(row.get("length", name)), str(row["question"]), (), (exact(str(row["answer"])),), fields)


PASSAGE = Style(
    lambda item: f"{item.fields['context']}\n\nQuestion: {item.question}\nAnswer:",
    lambda item: item.answers[0],
    stop=("\n",),
)
RETRIEVAL = Task("retrieval", "reasoning", read, grade_number, {"passage": PASSAGE}, part=number_part)
TASKS = (RETRIEVAL,)
