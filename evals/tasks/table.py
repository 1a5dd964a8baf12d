"""Every benchmark, by name."""

from contract.errors import InputError
from evals.tasks import (
    bbh,
    code,
    commonsense,
    honesty,
    instructions,
    knowledge,
    maths,
    openqa,
    perplexity,
    retrieval,
    toxicity,
    written,
)
from evals.tasks.task import Task

ROOMS = (
    knowledge, commonsense, bbh, maths, code, openqa, honesty, toxicity, retrieval, written, instructions, perplexity,
)  # fmt: skip
TASKS: dict[str, Task] = {task.name: task for room in ROOMS for task in room.TASKS}


def task_named(name: str) -> Task:
    """The task of this name. Raises InputError for a name that there is not."""
    if name not in TASKS:
        raise InputError(f"there is no task {name!r}; there are {', '.join(sorted(TASKS))}")
    return TASKS[name]
