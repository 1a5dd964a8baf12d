"""Writes prompts: the question of an item behind examples, as one text or as turns of a dialogue."""

from collections.abc import Sequence
from dataclasses import dataclass

from contract.conversation import Turn
from evals.tasks.task import Item, Style, Task


@dataclass(frozen=True)
class Prompt:
    """What a model is given. turns: as a dialogue; empty where it is asked as one text.

    pairs: of a task that is scored by likelihood, for each choice its context and the text that is scored after it.
    stop: the output ends before the first of these texts. A dialogue has none: its reply ends with a token, and what a
    base model would go on with, as a fence or a blank line, is part of what a chat model says.
    """

    text: str
    turns: tuple[Turn, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    stop: tuple[str, ...] = ()


def prompt(
    task: Task, item: Item, shots: Sequence[Item] = (), style: str | None = None, dialogue: bool = False
) -> Prompt:
    """The prompt of an item behind these examples, in one of the task's styles."""
    chosen = task.style(style)
    if dialogue:
        return Prompt("", _turns(chosen, item, shots))
    before = _intro(chosen, item, shots) + "".join(
        f"{chosen.ask(one)}{joined(chosen.ask(one), chosen.answer(one))}{chosen.between}" for one in shots
    )
    text = before + chosen.ask(item)
    if chosen.continuations is None:
        return Prompt(text, (), (), chosen.stop)
    pairs = tuple((before + context, scored) for context, scored in chosen.continuations(item))
    return Prompt(text, (), pairs, chosen.stop)


def _intro(style: Style, item: Item, shots: Sequence[Item]) -> str:
    """The item's intro, or that of its examples: BBH publishes a task's description beside them."""
    return next(filter(None, map(style.intro, (item, *shots))), "")


def joined(asked: str, answer: str) -> str:
    """The answer with a space before it, unless the question ends in white space or the answer begins with it."""
    return answer if asked[-1:].isspace() or answer[:1].isspace() else f" {answer}"


def _turns(style: Style, item: Item, shots: Sequence[Item]) -> tuple[Turn, ...]:
    """A user and an assistant turn for each example, and a user turn that asks; the intro opens the first user turn."""
    turns: list[Turn] = []
    for one in shots:
        turns += [Turn("user", style.ask(one)), Turn("assistant", style.answer(one).strip())]
    turns.append(Turn("user", style.ask(item)))
    return (Turn("user", _intro(style, item, shots) + turns[0].text), *turns[1:])


def shots_for(item: Item, pool: Sequence[Item], count: int) -> list[Item]:
    """The first examples of the item's own subject; of the whole pool if it has none there. Never the item itself."""
    others = [one for one in pool if one.question != item.question]
    own = [one for one in others if item.subject and one.subject == item.subject]
    return (own or others)[:count]
