"""How long training waits for its checkpoints, on a store that takes 50 MB a second.

A model of some 20 million parameters trains on; a checkpoint of its weights and moments is uploaded meanwhile. `checkpoint_hold` is
the time for which the loop stands still, over the time that the upload takes. The median times of a step with an upload beside it and
without one are printed too: copies and checksums take the processor from the steps on a machine with few cores.
"""

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from contract.settings.training import Engine as EngineSettings
from contract.settings.training import Model, Optim
from contract.store import Store
from perf.bars import Bars
from perf.pretrain.corpus import make_job
from training.engine import checkpoint
from training.engine.engine import Engine
from training.models import llama

RATE = 50e6
CHUNK = 1 << 20
SHAPE = Model(layers=4, d_model=512, heads=8, kv_heads=8, d_ff=1536)
SAVES = 2
ALONE = 10


class Throttle:
    """Lets all writers together have `rate` bytes a second."""

    def __init__(self, rate: float = RATE) -> None:
        self._lock, self._free, self._rate = threading.Lock(), time.monotonic(), rate

    def take(self, size: int) -> None:
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size / self._rate
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))


def slow_write(rate: float) -> Callable[[Store, str, bytes], None]:
    """A `Store.write_bytes` for which all files together get `rate` bytes a second."""
    throttle = Throttle(rate)

    def write_slowly(store: Store, path: str, content: bytes) -> None:
        with store.open_output(path) as sink:
            for start in range(0, len(content), CHUNK):
                throttle.take(len(content[start : start + CHUNK]))
                sink.write(content[start : start + CHUNK])

    return write_slowly


def run(bars: Bars, data: Path) -> None:
    with TemporaryDirectory() as folder:
        job = make_job(Path(folder))
        module = llama.build(SHAPE, 8192, 64, 0)
        engine = Engine(job, module, Optim(), EngineSettings(micro_batch=2), 2, 1_000)
        Store.write_bytes = slow_write(RATE)  # type: ignore[method-assign]
        batch = torch.randint(0, 8192, (2, 64), generator=torch.Generator().manual_seed(0))

        def step() -> float:
            began = time.monotonic()
            engine.backward(engine(input_ids=batch, labels=batch).loss)
            engine.step()
            return time.monotonic() - began

        alone = [step() for _ in range(ALONE + 1)][1:]  # the first one also makes the moments
        held, uploaded, beside = 0.0, 0.0, list[float]()
        for _ in range(SAVES):
            began = time.monotonic()
            checkpoint.begin(job, engine.steps_done, {"model": engine}, {})
            held += time.monotonic() - began
            while job.behind.busy:
                took = step()
                beside += [took] if job.behind.busy else []
            job.behind.wait()
            uploaded += job.behind.took_s
        print(
            f"{len(beside)} steps were made during {uploaded:.1f} s of uploads; the loop stood still for {held:.2f} s"
        )
        alone += [step() for _ in range(ALONE)]  # on both sides of the uploads, for a machine that others use
        with_one, without = statistics.median(beside), statistics.median(alone)
        print(
            f"a step takes {with_one * 1000:.0f} ms beside an upload, {without * 1000:.0f} ms without: {with_one / without:.2f} times"
        )
        bars.at_most("checkpoint_hold", held / uploaded, 0.05)
