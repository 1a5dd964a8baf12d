"""A benchmark's items with the examples before them, and how each is asked: for the commands and for the stage."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contract.errors import InputError
from evals.tasks import bbh, toxicity
from evals.tasks.prompts import Prompt, prompt, shots_for
from evals.tasks.published import read_items, read_names, with_names
from evals.tasks.table import TASKS, task_named
from evals.tasks.task import Item, Task


@dataclass(frozen=True)
class Asking:
    """A task's items and how each is asked. pool: the examples; count: at most so many of them stand before an item.

    shots: how many really do, before the item with the fewest.
    """

    task: Task
    items: list[Item]
    pool: list[Item]
    count: int
    style: str | None
    dialogue: bool
    shots: int = 0

    def prompt(self, item: Item) -> Prompt:
        shots = shots_for(item, self.pool, self.count) if self.pool else []
        return prompt(self.task, item, shots, self.style, self.dialogue)


@dataclass(frozen=True)
class Files:
    """Where a benchmark's files lie. split and shots_split: words in the names of those that count.

    words: the list that `realtoxicityprompts` needs.
    """

    items: Path
    split: str | None = None
    shots: Path | None = None
    shots_split: str | None = None
    names: Path | None = None
    words: Path | None = None


def read_asking(
    name: str,
    files: Files,
    *,
    limit: int | None = None,
    k: int | None = None,
    style: str | None = None,
    dialogue: bool = False,
) -> Asking:
    """A task's items and examples, read from its published files.

    limit: at most so many items, evenly of all subjects. k: examples before an item; by default the task's usual
    number. Raises InputError for an unknown task or style, before anything is read, for files that are not the task's,
    and if there are fewer examples than the `k` that is given.
    """
    task = task_named(name)
    task.style(style)
    if k and not files.shots:
        raise InputError(f"{name}: k is {k}, and there are no examples; name their file as shots, or set k to 0")
    items = read_items(task, files.items, files.split, limit)
    pool: list[Item] = []
    if files.shots:
        of_bbh = task is bbh.BBH
        pool = bbh.read_shots(files.shots) if of_bbh else read_items(task, files.shots, files.shots_split)
    if files.names:
        items = with_names(items, read_names(files.names))
    if task.needs_words:
        items = toxicity.with_words(items, files.words)
    count = task.shots if k is None else k
    shots, of = min((len(shots_for(one, pool, count)), one.id) for one in items)
    if k and shots < k:
        raise InputError(f"{name}: k is {k}, and item {of} has only {shots} examples; give more of them, or lower k")
    return Asking(task, items, pool, count, style, dialogue, shots)


def add_asking(parser: ArgumentParser) -> None:
    """The options of a command that say what is asked and how; `asking_of` reads them."""
    add: Callable[..., object] = parser.add_argument
    add("task", help=f"one of {', '.join(sorted(TASKS))}")
    add("--items", type=Path, required=True, help="file, folder or archive of the published items")
    add("--split", help="of a folder or an archive: only files with this word in their name, such as val")
    add("--limit", type=int, help="at most so many items, evenly of all subjects or files")
    add(
        "--shots", type=Path, help="file, folder or archive of examples; bbh reads only the unpacked folder cot-prompts"
    )
    add("--shots-split", help="as --split, of the examples; such as dev")
    add("--k", type=int, help="how many examples; default: the task's usual number")
    add("--style", help="one of the task's ways to ask; default: the usual one")
    add("--dialogue", action="store_true", help="ask as turns of a dialogue instead of one text")
    add("--names", type=Path, help="mapping.json of the subjects' names in prompts")
    add("--words", type=Path, help="of realtoxicityprompts: a word or phrase a line, or a folder of such")


def asking_of(given: Namespace) -> Asking:
    """What the options of a command name. Raises InputError as `read_asking` does."""
    files = Files(given.items, given.split, given.shots, given.shots_split, given.names, given.words)
    return read_asking(given.task, files, limit=given.limit, k=given.k, style=given.style, dialogue=given.dialogue)
