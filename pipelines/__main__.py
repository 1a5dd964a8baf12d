"""Run one stage of the Spark plane: `python -m pipelines STAGE --recipe URI [--partition PARTITION]`."""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

from contract.errors import GristmillError, RecipeError
from contract.manifest import Attempt, find
from contract.plan import WHOLE, open_run
from contract.stages import STAGES
from pipelines.job import Job


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    parser.add_argument("stage", choices=[stage.name for stage in STAGES.values() if stage.plane == "spark"])
    parser.add_argument(
        "--recipe", required=True, help="URI of a resolved run's recipe.yaml; make one with: python -m contract resolve"
    )
    parser.add_argument(
        "--partition",
        help="segment of a snapshot stage, for example CC-MAIN-2024-10.00000; default: every segment, or all",
    )
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run = open_run(given.recipe)
        stage = STAGES[given.stage]
        partitions = (
            [given.partition]
            if given.partition
            else [WHOLE]
            if stage.scope == "corpus"
            else [one.partition for one in run.segments]
        )
        if not partitions:
            raise RecipeError(f"{given.recipe} has no segments")
        for partition in partitions:
            task = run.task(stage.name, partition)
            done = find(run.store, task)
            if done:
                print(f"done {stage.name} {partition}: {run.store.full(done.path)} exists, skipped")
                continue
            job = Job(run, task, Attempt(run, task))
            importlib.import_module(f"pipelines.{stage.name}").run(job)
            print(f"committed {stage.name} {partition}: {run.store.full(task.prefix)}/manifest.json")
    except GristmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
