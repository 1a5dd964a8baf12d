"""Run one stage of the GPU plane: `deepspeed --num_accelerators N --module training STAGE --recipe URI`, or
`python -m training STAGE --recipe URI` for one process."""

import argparse
import importlib
import os
import shutil
import socket
import sys
from collections.abc import Sequence

from contract.errors import GristmillError
from contract.manifest import Attempt, find
from contract.plan import Run, Task, open_run
from contract.stages import STAGES
from training.job import Job, StopFlag


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
                print(f"done {task.stage} {task.partition}: {run.store.full(done.path)} exists, skipped", flush=True)
            return 0
        _run(run, task, stop)
    except GristmillError as error:
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:  # one line a machine
            print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _run(run: Run, task: Task, stop: StopFlag) -> None:
    module = f"training.{task.stage}"
    attempt = Attempt(run, task)
    if STAGES[task.stage].plane == "local":
        job = Job(run, task, attempt, stop=stop)
        importlib.import_module(module).run(job)
    else:
        job = Job(run, task, attempt, *join(), stop=stop)
        importlib.import_module(module).run(job)
        _leave(job)
        from training import checkpoint  # imports torch, which a local stage does without

        if job.rank == 0:
            checkpoint.clear(job)
    if job.rank == 0:
        print(f"committed {task.stage} {task.partition}: {run.store.full(task.prefix)}/manifest.json", flush=True)
    if job.local_rank == 0:
        shutil.rmtree(job.workdir, ignore_errors=True)


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
    sys.exit(main())
