"""Run one stage of the GPU plane: `deepspeed --num_accelerators N --module training STAGE --recipe URI`, or
`python -m training STAGE --recipe URI` for one process."""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from contract.errors import EXIT_FAILED, GristmillError, not_installed
from contract.headline import headline, warnings
from contract.manifest import Attempt, find, need
from contract.plan import Run, Task, open_run
from contract.private import private_folder
from contract.stages import STAGES
from training.engine.job import Job, StopFlag, clear_checkpoints, scratch_base


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
        # One rank may fail alone, so each rank reports its own error.
        rank = f" (rank {_rank()})" if _rank() else ""
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
    job = Job(run, task, attempt, stop=stop) if alone else Job(run, task, attempt, *join(), stop=stop)
    if job.rank == 0 and not alone:
        print(f"{task.stage} {task.partition}: {job.world} process(es) on {job.device.type}", flush=True)
    with job.leading(attempt), job.scratch():
        importlib.import_module(f"training.{task.stage}").run(job)
        if not alone:
            _leave(job)
    if job.rank == 0:
        made = need(run.store, task)
        for warning in warnings(made):
            print(f"warning: {warning}", flush=True)
        print(f"committed {task.stage} {task.partition}: {headline(made)}; {run.store.full(made.path)}", flush=True)


def join() -> tuple[int, int, int]:
    """Join the DeepSpeed group: (rank, local rank, processes). Without a launcher, this process is the only member."""
    for key, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_SIZE": "1"}.items():
        os.environ.setdefault(key, value)
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // int(os.environ.get("LOCAL_SIZE", "1")))))
    # With threads that spin while they wait, two busy cores used four times the processor time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch  # after the thread count is set

    cuda = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cuda else "cpu")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel("WARNING")
    # A shared-memory all-reduce for inference, compiled from C++ at the first start; gloo does not need it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    local_rank = int(os.environ["LOCAL_RANK"])
    if cuda:
        torch.cuda.set_device(local_rank)
    backend, world = "nccl" if cuda else "gloo", int(os.environ["WORLD_SIZE"])
    if world > int(os.environ.get("LOCAL_SIZE", "1")):
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
        return _rank(), local_rank, world
    # On one machine only loopback is open: torch's default rendezvous would listen on every interface.
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    meeting = f"file://{_meeting_place(os.getppid() if world > 1 else os.getpid())}"
    deepspeed.init_distributed(backend, False, verbose=False, init_method=meeting, rank=_rank(), world_size=world)
    return _rank(), local_rank, world


def _meeting_place(starter: int) -> Path:
    """The file through which the ranks of one launcher find each other; torch removes it when the last rank leaves.

    Its name holds the machine's boot id, the container, and the launcher's process id and start time, because process
    ids are used again.
    """
    folder = private_folder(scratch_base() / f"ranks-{os.getuid()}")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    here = f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"  # process ids of other containers mean nothing here
    for left in folder.glob(f"{here}-*"):  # files of ranks that were killed
        if left.name.removeprefix(f"{here}-") != _started(left.name.split("-")[2]):
            left.unlink(missing_ok=True)
    return folder / f"{here}-{_started(str(starter))}"


def _started(process: str) -> str:
    """A process's id and start time; the id alone if the process does not exist."""
    try:
        return f"{process}-{Path('/proc', process, 'stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return process


def _leave(job: Job) -> None:
    import torch

    job.barrier()
    torch.distributed.destroy_process_group()


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # results are committed; in an ordinary exit, threads of the libraries have aborted the process
