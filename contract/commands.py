"""The command line of each task of a run, so that a shell can do what Airflow does."""

import shlex
from collections.abc import Iterable
from pathlib import PurePosixPath

from contract import ablation
from contract.plan import Run, Task
from contract.stages import ALIGNING, STAGES, WHOLE


def tasks_of(run: Run) -> Iterable[tuple[Run, Task]]:
    """Each task after its inputs: of all variants if the run's recipe names some, otherwise from crawl to export."""
    if run.recipe.ablate.variants:
        return ablation.resolve(run).tasks()
    return [
        (run, task)
        for task in run.tasks().values()
        if STAGES[task.stage].dag not in ("ablate", "feedback") and not _left_out(run, task)
    ]


def _left_out(run: Run, task: Task) -> bool:
    """Whether the recipe has another stage in this one's place."""
    return task.stage in ALIGNING and task.stage != run.recipe.align


def command(run: Run, task: Task, python: str) -> str:
    """What does a task, as a shell takes it. `python` is the interpreter."""
    recipe = ["--recipe", run.uri]
    plane = STAGES[task.stage].plane
    if plane == "spark" or task.partition != WHOLE:
        recipe += ["--partition", task.partition]
    if plane == "spark":
        words = [python, "-m", "pipelines", task.stage, *recipe]
    elif plane == "gpu" and (processes := run.recipe.at(f"{task.stage}.engine.processes")) > 1:
        launcher = str(PurePosixPath(python).with_name("deepspeed"))
        where = ["--hostfile", "/dev/null", "--num_accelerators", str(processes), "--module"]
        words = [launcher, *where, "training", task.stage, *recipe]
    else:
        words = [python, "-m", "training", task.stage, *recipe]
    return shlex.join(words)
