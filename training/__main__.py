"""Run one stage of the GPU plane: `deepspeed --num_accelerators N --module training STAGE --recipe URI`, or
`python -m training STAGE --recipe URI` for one process.

`python -m training estimate --recipe R` says beforehand what a run takes; `python -m training chat-rewards` gives the
chats of a run the rewards of its reward model; `python -m training ask TASK` lets any model answer a benchmark.
"""

import argparse
import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from contract.errors import EXIT_FAILED, GristmillError, not_installed
from contract.headline import headline, warnings
from contract.manifest import Attempt, find, need
from contract.plan import Run, Task, open_run
from contract.stages import STAGES, WHOLE
from training import estimate
from training.engine.job import Job, settle_checkpoints
from training.engine.ranks import Ranks, StopFlag, join, own_rank
from training.engine.watching import watched

COMMANDS = {"chat-rewards": "training.chat_rewards", "ask": "training.ask"}
"""What is no stage -> its module, which takes seconds to import."""


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["estimate"]:
        return estimate.main(arguments[1:])
    if arguments and arguments[0] in COMMANDS:
        code: int = importlib.import_module(COMMANDS[arguments[0]]).main(arguments[1:])
        return code
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("stage", choices=[stage.name for stage in STAGES.values() if stage.plane != "spark"])
    parser.add_argument(
        "--recipe", required=True, help="URI of a resolved run's recipe.yaml; make one with: python -m contract resolve"
    )
    parser.add_argument("--partition", default=WHOLE, help="of `benchmark`: a model and a benchmark, such as sft.mmlu")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    given = parser.parse_args(arguments)
    stop = StopFlag().install()
    try:
        run = open_run(given.recipe)
        task = run.task(given.stage, given.partition)
        done = find(run.store, task)
        if done:
            if own_rank() == 0:
                run.store.delete(f"{done.prefix}/{done.attempt}/live")  # it may have been killed right after its commit
                settle_checkpoints(run.store, task, done, getattr(run.recipe.section(given.stage), "engine", None))
                said = f"{headline(done)}; {run.store.full(done.path)} exists, skipped"
                print(f"done {task.stage} {task.partition}: {said}", flush=True)
            return 0
        run.check_inputs(task)
        _run(run, task, stop)
    except GristmillError as error:
        # One rank may fail alone, so each rank reports its own error.
        rank = f" (rank {own_rank()})" if own_rank() else ""
        print(f"error: {error}{rank}", file=sys.stderr, flush=True)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(f"error: {(lacks := not_installed(error, 'train'))}", file=sys.stderr, flush=True)
        return lacks.exit_code
    except Exception as error:
        advice = _advice(error, given.stage)
        if advice is None:
            raise
        print(f"error: {advice}", file=sys.stderr, flush=True)
        return EXIT_FAILED
    return 0


def _advice(error: Exception, stage: str) -> str | None:
    """Advice for a machine whose memory or disk is full; None for any other error, which is a defect."""
    if type(error).__name__ == "OutOfMemoryError":
        return (
            f"{stage}: the GPU's memory is full; lower {stage}.engine.micro_batch, raise .zero_stage, "
            "or set .activation_checkpointing"
        )
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
        return f"{stage}: the disk is full; free space, or name another folder in GRISTMILL_SCRATCH ({error})"
    return None


def _run(run: Run, task: Task, stop: StopFlag) -> None:
    attempt = Attempt(run, task)
    alone = STAGES[task.stage].plane == "local"
    ranks = Ranks(stop=stop) if alone else join(stop)
    if ranks.rank == 0 and not alone:
        print(f"{task.stage} {task.partition}: {ranks.world} process(es) on {ranks.device.type}", flush=True)
    attempt.id = ranks.share(attempt.id)  # before anybody asks for the scratch folder, whose name holds it
    job = Job(run, task, attempt, ranks)
    if not alone:
        ranks.share_model(job.settings.engine.group)
    shown = contextlib.nullcontext() if alone else watched(job)
    with job.leading(attempt), job.scratch.held(), shown, job.behind.ended(job.grace_s):
        importlib.import_module(f"training.{task.stage}").run(job)
        if not alone:
            ranks.leave()
    if ranks.rank == 0:
        made = need(run.store, task)
        for warning in warnings(made):
            print(f"warning: {warning}", flush=True)
        print(f"committed {task.stage} {task.partition}: {headline(made)}; {run.store.full(made.path)}", flush=True)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # results are committed; in an ordinary exit, threads of the libraries have aborted the process
