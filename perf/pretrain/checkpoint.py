"""How long training waits for its checkpoints, on a store that takes 50 MB a second.

A model of some 20 million parameters trains on; a checkpoint of its weights and moments is uploaded meanwhile. `checkpoint_hold` is
the time for which the loop stands still, over the time that the upload takes.
"""

import threading
import time
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


class Throttle:
    """Lets all writers together have RATE bytes a second."""

    def __init__(self) -> None:
        self._lock, self._free = threading.Lock(), time.monotonic()

    def take(self, size: int) -> None:
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size / RATE
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))


def run(bars: Bars, data: Path) -> None:
    with TemporaryDirectory() as folder:
        job = make_job(Path(folder))
        module = llama.build(SHAPE, 8192, 64, 0)
        engine = Engine(job, module, Optim(), EngineSettings(micro_batch=2), 2, 1_000)
        throttle = Throttle()

        def write_slowly(store: Store, path: str, content: bytes) -> None:
            with store.open_output(path) as sink:
                for start in range(0, len(content), CHUNK):
                    throttle.take(len(content[start : start + CHUNK]))
                    sink.write(content[start : start + CHUNK])

        Store.write_bytes = write_slowly  # type: ignore[method-assign]
        batch = torch.randint(0, 8192, (2, 64), generator=torch.Generator().manual_seed(0))
        step, held, uploaded, beside = 0, 0.0, 0.0, 0
        for _ in range(SAVES):
            began = time.monotonic()
            checkpoint.begin(job, step + 1, {"model": engine}, {})
            held += time.monotonic() - began
            while job.behind.busy or step == 0:
                engine.backward(engine(input_ids=batch, labels=batch).loss)
                engine.step()
                step += 1
                beside += job.behind.busy
            job.behind.wait()
            uploaded += job.behind.took_s
        print(f"{beside} steps were made during {uploaded:.1f} s of uploads; the loop stood still for {held:.2f} s")
        bars.at_most("checkpoint_hold", held / uploaded, 0.05)
