"""Run one stage of the GPU plane: `deepspeed --num_accelerators N --module training STAGE --recipe URI`, or
`python -m training STAGE --recipe URI` for one process."""

import argparse
import errno
import importlib
import os
import socket
import sys
from collections.abc import Sequence

from contract.errors import EXIT_FAILED, GristmillError
from contract.headline import headline, warnings
from contract.manifest import Attempt, find, need
from contract.plan import Run, Task, open_run
from contract.stages import STAGES
from training.job import Job, StopFlag, clear_checkpoints


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("stage", choices=[stage.name for stage in STAGES.values() if stage.plane != "spark"])
    parser.add_argument(
        "--recipe", required=True, help="URI of a resolved run's recipe.yaml; make one with: python -m contract resolve"
    )
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    given = parser.parse_args(arguments)
    stop = StopFlag().install()
    try:
        run = open_run(given.recipe)
        task = run.task(given.stage)
        done = find(run.store, task)
        if done:
            if _rank() == 0:
                clear_checkpoints(run.store, task)
                said = f"{headline(done)}; {run.store.full(done.path)} exists, skipped"
                print(f"done {task.stage} {task.partition}: {said}", flush=True)
            return 0
        run.check_inputs(task)
        _run(run, task, stop)
    except GristmillError as error:
        # One rank may fail alone, so each speaks for itself.
        rank = f" (rank {_rank()})" if _rank() else ""
        print(f"error: {error}{rank}", file=sys.stderr, flush=True)
        return error.exit_code
    except Exception as error:
        advice = _advice(error, given.stage)
        if advice is None:
            raise
        print(f"error: {advice}", file=sys.stderr, flush=True)
        return EXIT_FAILED
    return 0


def _advice(error: Exception, stage: str) -> str | None:
    """What to do about a machine that is too small, or None for anything else, which is a defect."""
    if type(error).__name__ == "OutOfMemoryError":
        return f"{stage}: the GPU's memory is full; lower {stage}.engine.micro_batch, raise .zero_stage, or set .activation_checkpointing"
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
        return f"{stage}: the disk is full; free space, or name another folder in GRISTMILL_SCRATCH ({error})"
    return None


def _run(run: Run, task: Task, stop: StopFlag) -> None:
    module = f"training.{task.stage}"
    attempt = Attempt(run, task)
    if STAGES[task.stage].plane == "local":
        job = Job(run, task, attempt, stop=stop)
        with job.scratch():
            importlib.import_module(module).run(job)
    else:
        job = Job(run, task, attempt, *join(), stop=stop)
        if job.rank == 0:
            print(f"{task.stage} {task.partition}: {job.world} process(es) on {job.device.type}", flush=True)
        with job.scratch():
            importlib.import_module(module).run(job)
            _leave(job)
    if job.rank == 0:
        made = need(run.store, task)
        for warning in warnings(made):
            print(f"warning: {warning}", flush=True)
        print(f"committed {task.stage} {task.partition}: {headline(made)}; {run.store.full(made.path)}", flush=True)


def join() -> tuple[int, int, int]:
    """Make this process one of a DeepSpeed group: (rank, local rank, processes). Without a launcher's environment it is the only one."""
    for key, value in {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
    }.items():
        os.environ.setdefault(key, value)
    if "MASTER_PORT" not in os.environ:
        os.environ["MASTER_PORT"] = str(_free_port())
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // int(os.environ.get("LOCAL_SIZE", "1")))))
    # Threads that spin while they wait took four times the processor time on two busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch  # after the thread count is set

    cuda = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel("WARNING")
    # A shared-memory all-reduce for inference that a C++ compiler would build at every first start; gloo does without.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    local_rank = int(os.environ["LOCAL_RANK"])
    if cuda:
        torch.cuda.set_device(local_rank)
    deepspeed.init_distributed("nccl" if cuda else "gloo", auto_mpi_discovery=False, verbose=False)
    return _rank(), local_rank, int(os.environ["WORLD_SIZE"])


def _leave(job: Job) -> None:
    import torch

    job.barrier()
    torch.distributed.destroy_process_group()


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what counts is committed; threads of the libraries have aborted an ordinary exit
