"""Perplexity of texts: how well a model predicts them, in bits per byte, which needs no common tokenizer.

Rows are {"text", "id", "source"}, or a plain text file is one row. A score must lie between 0 and 1 and be better when
it is higher, so it is the mean probability of a byte, 2 to the minus bits per byte, as a geometric mean over a text.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evals.tasks.task import NOTHING, Item, Style, Task, Verdict


def read(row: Mapping[str, Any], place: str) -> Item:
    """{"text"}. Raises ValueError for an empty one."""
    text = str(row["text"])
    if not text:
        raise ValueError("its text is empty")
    name = str(row.get("id") or place)
    return Item(name, str(row.get("source") or name), text, (), (str(len(text.encode("utf-8", "replace"))),))


def bits_per_byte(logprob: float, count: int) -> float:
    """Of a text of `count` bytes with this log-likelihood in nats."""
    return -logprob / math.log(2) / count


def grade_likelihood(item: Item, logprobs: Sequence[float]) -> Verdict:
    """From the log-likelihood of the whole text. Raises ValueError for more than one."""
    if len(logprobs) != 1:
        raise ValueError(f"item {item.id} is one text, and its output has {len(logprobs)} log-likelihoods")
    bits = bits_per_byte(logprobs[0], int(item.answers[0]))
    if not math.isfinite(bits):
        return NOTHING
    return Verdict(f"{bits:.6g} bits per byte", min(1.0, 2.0**-bits))


def grade(item: Item, output: str) -> Verdict:
    """A text that a model wrote says nothing of how well it predicts this one."""
    return NOTHING


WHOLE = Style(lambda item: "", lambda item: item.question, continuations=lambda item: [("", item.question)])
PERPLEXITY = Task(
    "perplexity", "language", read, grade, {"whole": WHOLE}, grade_likelihoods=grade_likelihood, same_answer=None
)  # fmt: skip
TASKS = (PERPLEXITY,)
