"""Run one stage of the Spark plane: `python -m pipelines STAGE --recipe URI [--partition PARTITION]`.

`check` is not a stage: before the first stage runs, it refuses what a later stage would refuse.
"""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

from contract.errors import GristmillError, RecipeError, not_installed
from contract.headline import headline, warnings
from contract.manifest import Attempt, find, need
from contract.plan import Run, Task, open_run
from contract.stages import STAGES
from pipelines.spark.job import Job


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    names = [stage.name for stage in STAGES.values() if stage.plane == "spark"]
    parser.add_argument("stage", choices=["check", *names])
    parser.add_argument(
        "--recipe", required=True, help="URI of a resolved run's recipe.yaml; make one with: python -m contract resolve"
    )
    parser.add_argument(
        "--partition",
        help="segment of a snapshot stage, for example CC-MAIN-2024-10.00000; default: every segment, or all",
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run = open_run(options.recipe)
        if options.stage == "check":
            importlib.import_module("pipelines.check").check(run)  # imported here because it loads every stage
            print(f"checked {options.recipe}: no stage refuses its settings")
            return 0
        tasks = (
            [run.task(options.stage, options.partition)]
            if options.partition
            else [task for (stage, _), task in run.tasks().items() if stage == options.stage]
        )
        if not tasks:
            raise RecipeError(f"{options.recipe} has no segments")
        for task in tasks:
            print(execute(run, task))
    except ModuleNotFoundError as error:
        print(f"error: {(lacks := not_installed(error, 'spark'))}", file=sys.stderr)
        return lacks.exit_code
    except GristmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def execute(run: Run, task: Task) -> str:
    """Run a task unless it is already done. Returns one line about the result."""
    label, done = f"{task.stage} {task.partition}: ", find(run.store, task)
    if done:
        return f"done {label}{headline(done)}; {run.store.full(done.path)} exists, skipped"
    run.check_inputs(task)
    attempt = Attempt(run, task)
    with attempt.running():
        importlib.import_module(f"pipelines.{task.stage}").run(Job(run, task, attempt))
    committed = need(run.store, task)
    if committed.attempt != attempt.id:
        return f"done {label}{committed.attempt} was faster, {run.store.full(committed.path)} is its result"
    for warning in warnings(committed):
        print(f"warning: {warning}", flush=True)
    return f"committed {label}{headline(committed)}; {run.store.full(committed.path)}"


if __name__ == "__main__":
    sys.exit(main())
