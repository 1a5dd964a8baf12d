"""BIG-Bench Hard: 27 tasks whose answers are letters, numbers, words or brackets, asked with chains of thought.

The examples with their chains are the published files `cot-prompts/TASK.txt` (Suzgun et al. 2022).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.errors import InputError
from evals.tasks import numbers
from evals.tasks.answers import announced, letter, number, word
from evals.tasks.task import LETTERS, NOTHING, Item, Style, Task, Verdict, cut_tail

OPTION = re.compile(r"^\(([A-Z])\) ?(.*)$", re.MULTILINE)
LETTERED = re.compile(r"\(([A-Z])\)\Z")
NUMERIC = re.compile(r"-?[0-9]+(?:\.[0-9]+)?\Z")
STOPS = ("\n\nQ:", "\nQ:")
CUE = "A: Let's think step by step."
PAIRED = (("yes", "no"), ("true", "false"), ("valid", "invalid"))
BRACKETS = frozenset("[]{}()<> ")


def read(row: Mapping[str, Any], place: str) -> Item:
    """{"input", "target"} of a file that is named like its task, in a list `examples`."""
    question, target = str(row["input"]), str(row["target"]).strip()
    listed = OPTION.findall(question)
    in_order = [one for one, _ in listed] == [*LETTERS[: len(listed)]]
    choices = tuple(text.strip() for _, text in listed) if listed and in_order and LETTERED.match(target) else ()
    task = place.rpartition("/")[0]
    return Item(place, task, question, choices, (target,), subject=task)


def read_shots(folder: Path) -> list[Item]:
    """The examples of every `TASK.txt` of a folder, or of one such file. Raises InputError if there are none."""
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else [folder]
    found = []
    for file in files:
        try:
            text = file.read_text()
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error}") from None
        except UnicodeDecodeError:
            raise InputError(f"{file}: is not text; unpack the archive and name its folder cot-prompts") from None
        description, *examples = text.rpartition("-----\n")[2].strip().split("\n\nQ: ")
        for place, example in enumerate(examples):
            question, _, chain = example.partition(f"\n{CUE}\n")
            fields = {"description": description, "chain": chain.strip()}
            name = f"{file.stem}/shot{place}"
            found.append(Item(name, file.stem, question.strip(), (), ("",), fields, subject=file.stem))
    if not found:
        raise InputError(f"{folder}: holds no examples; name the folder cot-prompts of BIG-Bench Hard")
    return found


def graded_part(output: str) -> str:
    return cut_tail(output, STOPS)


def grade(item: Item, output: str) -> Verdict:
    """The answer in the form of the right one: a letter, a number, one of two words, or words in their order."""
    text = graded_part(output)
    target = item.answers[0]
    found = _found(item, text, target)
    return NOTHING if found is None else Verdict(found[:500], float(same(found, target)))


def same(one: str, other: str) -> bool:
    """Whether two answers have the same words in their order."""
    return _folded(one) == _folded(other)


def _found(item: Item, text: str, target: str) -> str | None:
    if LETTERED.match(target):
        choices = item.choices or tuple(one for _, one in OPTION.findall(item.question)) or (" ",) * 18
        found = letter(text, choices)
        return f"({found})" if found else None
    if pair := next((one for one in PAIRED if target.lower() in one), None):
        return word(text, pair)
    if NUMERIC.match(target):
        value = number(text)
        return None if value is None else numbers.written(value)
    if set(target) <= BRACKETS:
        parts = [*announced(text), text.strip().rpartition("\n")[2]]
        return next((" ".join(bare) for part in parts if (bare := [one for one in part if one in "[]{}()<>"])), None)
    return next((part.strip(" .*\"'`$") for part in announced(text) if part.strip(" .*\"'`$")), None) or _last_line(
        text
    )


def _last_line(text: str) -> str | None:
    return text.strip().rpartition("\n")[2].strip(" .*\"'`") or None


def _folded(text: str) -> str:
    return " ".join(re.sub(r"[,;]", " ", text).casefold().split())


def description(item: Item) -> str:
    """What a task's file of examples opens with; nothing without one."""
    text = item.fields.get("description")
    return f"{text}\n\n" if text else ""


def chain(item: Item) -> str:
    """What a shot goes on with: a chain that ends in the answer."""
    return str(item.fields.get("chain") or f"So the answer is {item.answers[0]}.")


BBH = Task(
    "bbh", "reasoning", read, grade, shots=3, part=graded_part, same=same,
    styles={"steps": Style(lambda item: f"Q: {item.question}\n{CUE}\n", chain, description, STOPS)},
)  # fmt: skip
TASKS = (BBH,)
