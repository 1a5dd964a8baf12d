"""The processes of a stage: which one this is, what they tell each other, and how they meet.

Every process calls the same methods in the same order. torch is imported where it is used, so that a stage without a
model starts quickly.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from contract.errors import RecipeError
from contract.private import private_folder
from training.engine.scratch import scratch_base

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")


class StopFlag:
    """Set by SIGTERM or SIGINT; the second SIGINT ends the process at once."""

    def __init__(self) -> None:
        self.raised = False

    def install(self) -> "StopFlag":
        signal.signal(signal.SIGTERM, self._raise)
        signal.signal(signal.SIGINT, self._raise)
        return self

    def _raise(self, number: int, _: object) -> None:
        if number == signal.SIGINT and self.raised:
            raise KeyboardInterrupt
        self.raised = True


@dataclass
class Ranks:
    """One process among all of a stage. `rank` counts over all machines, `local_rank` on this one."""

    rank: int = 0
    local_rank: int = 0
    world: int = 1
    stop: StopFlag = field(default_factory=StopFlag)
    processors: Any = None
    """The group in which the processes reach each other without their GPUs; None: the default group does that."""
    group: int = 1
    """Neighbouring processes that hold one copy of the model together, and so read the same rows."""

    @property
    def replica(self) -> int:
        """The copy of the model in which this process has a part."""
        return self.rank // self.group

    @property
    def replicas(self) -> int:
        """The copies of the model, between which rows are split."""
        return self.world // self.group

    @property
    def place(self) -> int:
        """The place of this process in its group, from 0."""
        return self.rank % self.group

    @property
    def speaks(self) -> bool:
        """Whether this process speaks for its group in sums over rows: the last, because a pipeline ends there."""
        return self.place == self.group - 1

    def share_model(self, group: int) -> None:
        """From now on, so many neighbours hold one copy of the model. Raises RecipeError if it does not work out."""
        if self.world % group:
            raise RecipeError(
                f"{self.world} process(es) run, and {group} share one copy of the model, by engine.tensor_parallel or "
                "engine.pipeline_stages; start a multiple of these"
            )
        self.group = group

    def sum_rows(self, *values: float) -> list[float]:
        """Each value, which a process has of its rows, added up over all rows: each group counts once."""
        return self.sum(*(value if self.speaks else 0.0 for value in values))

    @cached_property
    def device(self) -> "torch.device":
        import torch

        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def sum(self, *values: float) -> list[float]:
        """Each value added up over all processes, in float64.

        The processors do it, because a GPU that had to answer would have to finish all its work first.
        """
        if self.world == 1:
            return list(values)
        import torch

        total = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(total, group=self.processors)
        return total.tolist()

    def total(self, values: "torch.Tensor") -> list[float]:
        """Each value of a tensor on the device added up over all processes. Waits for all that the device has to do."""
        if self.world > 1:
            import torch

            torch.distributed.all_reduce(values)
        return values.tolist()

    def stopping(self) -> bool:
        """Whether any process was asked to stop. All get the same answer, so all stop after the same step."""
        # Asked at every step: a sum takes 0.5 ms between two processes, gathered objects take 1.7 ms.
        return self.sum(float(self.stop.raised))[0] > 0

    def barrier(self) -> None:
        self.sum(0.0)

    def share(self, value: Value) -> Value:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        import torch

        # The values are pickled: ranks run one user's code on one network, and bytes of the store are never unpickled.
        shared = [value]
        torch.distributed.broadcast_object_list(shared, 0)
        return shared[0]

    def gather(self, value: Value) -> list[Value]:
        """Each rank's value, in the order of the ranks, on every rank."""
        if self.world == 1:
            return [value]
        import torch

        values = [value] * self.world
        torch.distributed.all_gather_object(values, value)  # pickled, as in `share`
        return values

    def rows(self, own: Mapping[int, Value]) -> list[Value]:
        """The values of all ranks' rows, in the order of the row numbers, on every rank.

        `own` maps the numbers of this rank's rows to their values.
        """
        values = {row: value for part in self.gather(own) for row, value in part.items()}
        return [values[row] for row in sorted(values)]

    def leave(self) -> None:
        """Leave the group when all are done."""
        import torch

        self.barrier()
        torch.distributed.destroy_process_group()


def own_rank() -> int:
    """The rank that the launcher gave this process; 0 without a launcher."""
    return int(os.environ.get("RANK", 0))


def join(stop: StopFlag | None = None) -> Ranks:
    """Join the DeepSpeed group. Without a launcher, this process is the only member."""
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
    ranks = Ranks(own_rank(), local_rank, world, stop or StopFlag())
    if world > int(os.environ.get("LOCAL_SIZE", "1")):
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
        ranks.processors = torch.distributed.new_group(backend="gloo") if cuda else None
        return ranks
    # On one machine only loopback is open: torch's default rendezvous would listen on every interface.
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    meeting = f"file://{_meeting_place(os.getppid() if world > 1 else os.getpid())}"
    deepspeed.init_distributed(backend, False, verbose=False, init_method=meeting, rank=ranks.rank, world_size=world)
    ranks.processors = torch.distributed.new_group(backend="gloo") if cuda and world > 1 else None
    return ranks


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
