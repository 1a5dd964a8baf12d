"""Questions with choices: how they are written, continued and graded, for all benchmarks of this kind.

Three ways to ask: `letter` lists the choices and wants a letter, `cloze` lists none and continues the question with
each choice, `blank` puts each choice into a gap and scores what follows it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evals.tasks.answers import letter
from evals.tasks.task import LETTERS, NOTHING, Item, Style, Verdict

ENGLISH, CHINESE = "Answer:", "答案："


def letter_style(
    intro: Callable[[Item], str] = lambda item: "",
    cue: str = ENGLISH,
    question: Callable[[Item], str] = lambda item: item.question.strip(),
) -> Style:
    """The question, a line `A. text` for each choice, and a cue behind which the letter stands."""

    def ask(item: Item) -> str:
        listed = "".join(f"\n{LETTERS[at]}. {choice}" for at, choice in enumerate(item.choices))
        return f"{question(item)}{listed}\n{cue}"

    def continuations(item: Item) -> Sequence[tuple[str, str]]:
        return [(ask(item), f" {LETTERS[at]}") for at in range(len(item.choices))]

    return Style(ask, lambda item: item.answers[0], intro, ("\n\n",), continuations=continuations)


def cloze_style(ask: Callable[[Item], str], stop: tuple[str, ...] = ("\n\n",)) -> Style:
    """The question alone; each choice is scored as its continuation."""

    def continuations(item: Item) -> Sequence[tuple[str, str]]:
        return [(ask(item), f" {choice}") for choice in item.choices]

    return Style(ask, lambda item: item.choices[item.right], stop=stop, continuations=continuations)


def grade(item: Item, output: str) -> Verdict:
    """Whether an output takes the right choice."""
    found = letter(output, item.choices)
    return NOTHING if found is None else Verdict(found, float(found in item.answers))


def grade_likelihoods(item: Item, logprobs: Sequence[float], by_byte: bool = False) -> Verdict:
    """Whether the right choice is the likeliest; `by_byte` divides each log-likelihood by the choice's bytes.

    Of choices that are equally likely the first is taken, as numpy's argmax does. Raises ValueError for another number
    of values than choices.
    """
    if len(logprobs) != len(item.choices):
        raise ValueError(f"item {item.id} has {len(item.choices)} choices and {len(logprobs)} log-likelihoods")
    if any(value != value for value in logprobs):
        return NOTHING
    sizes = [len(choice.encode()) if by_byte else 1 for choice in item.choices]
    each = [value / max(size, 1) for value, size in zip(logprobs, sizes, strict=True)]
    found = LETTERS[each.index(max(each))]
    return Verdict(found, float(found in item.answers))


def by_letter(row: Mapping[str, Any], key: str, count: int) -> str:
    """The letter of the right choice in a row that gives it as a letter. Raises ValueError for anything else."""
    value = str(row[key]).strip().upper()
    if len(value) != 1 or value not in LETTERS[:count]:
        raise ValueError(f"{key} is {value!r}, not a letter from A to {LETTERS[count - 1]}")
    return value


def by_number(row: Mapping[str, Any], key: str, count: int, first: int = 0) -> str:
    """The letter of the right choice in a row that gives its number. Raises ValueError if there is no such choice."""
    at = int(row[key]) - first
    if not 0 <= at < count:
        raise ValueError(f"{key} is {row[key]!r}, not a number from {first} to {first + count - 1}")
    return LETTERS[at]
