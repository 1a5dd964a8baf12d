"""Is the memory that `python -m training estimate` says the memory that training takes: `python -m perf.pretrain --only estimate`.

Models of several sizes make real steps of pretraining on the CPU, each in a process of its own: the model is built, DeepSpeed
wraps it, and three batches go forward, backward and into an update. Measured is the peak of the process's resident memory, which
the kernel keeps (VmHWM, set back through clear_refs), above what it held before the model was built. A small model has been trained
before, so that libraries and threads are in the memory before; the C library returns what is freed at once.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from contract.settings.training import Engine, Model, Optim
from contract.sizes import Work, parameters, training_peak
from perf.bars import Bars

VOCABULARY = 32_000
STEPS = 3
MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Case:
    """One run. `batch` is the sequences of a step."""

    model: Model
    engine: Engine
    seq_len: int
    batch: int
    boundaries: bool = True

    def estimated(self) -> float:
        """Bytes."""
        parts = self.batch // self.engine.micro_batch
        work = Work(self.engine.micro_batch, self.seq_len, self.seq_len, parts, self.boundaries)
        count = parameters(self.model, VOCABULARY)
        return training_peak(self.model, count, VOCABULARY, self.engine, work, cuda=False).total


SMALL = Model(layers=4, d_model=256, heads=8, kv_heads=2, d_ff=688)
MIDDLE = Model(layers=8, d_model=512, heads=8, kv_heads=4, d_ff=1376, tie_embeddings=False)
LARGE = Model()
SHARDED = Engine(dtype="bf16", zero_stage=2, micro_batch=2)
CASES = {
    "19M": Case(SMALL, Engine(micro_batch=4), 256, 4),  # most for logits
    "57M": Case(MIDDLE, Engine(micro_batch=2), 512, 4),  # most for activations
    "110M": Case(LARGE, Engine(micro_batch=1), 128, 2),  # most for weights, gradients and moments
    "57M_checkpointing": Case(MIDDLE, Engine(micro_batch=4, activation_checkpointing=True), 512, 4),
    "57M_bf16": Case(MIDDLE, SHARDED, 256, 4),
}


def run(bars: Bars, data: Path) -> None:
    """The bar is on the worst case; `data` is not needed."""
    off = {}
    for name, case in CASES.items():
        measured, estimated = measure(name), case.estimated()
        off[name] = abs(estimated / measured - 1)
        print(f"{name}: {estimated / MIB:,.0f} MiB estimated, {measured / MIB:,.0f} MiB measured, {off[name]:.1%} off")
    bars.at_most("estimate_off", max(off.values()), 0.10)


def measure(name: str) -> float:
    """The peak of a case, in bytes, measured in a process of its own."""
    command = [sys.executable, "-m", "perf.pretrain.estimate", name]
    # Without a limit of its own, glibc keeps freed memory for later; it would be counted as used.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak"])


def train(case: Case, job: Any, steps: int = STEPS) -> None:
    """Pretrain on random tokens, as the stage does between two checkpoints."""
    from training.data.batch import Row, collate
    from training.engine.engine import Engine as Trained
    from training.models import llama
    from training.models.lm import learn

    module = llama.build(case.model, VOCABULARY, case.seq_len, 0, case.engine.dtype)
    engine = Trained(job, module, Optim(), case.engine, case.batch, steps)
    for step in range(steps):
        random = np.random.default_rng(step)
        starts = np.arange(0, case.seq_len, 100)  # of documents
        rows = [Row(random.integers(VOCABULARY, size=case.seq_len + 1), starts) for _ in range(case.batch)]
        batch = collate(rows, case.seq_len, case.boundaries)
        shares = learn(job, engine, batch)
        job.curves.add_later(step + 1, shares, grad_norm=engine.step())
        job.curves.read(job.ranks)


def resident(name: str) -> int:
    """Bytes: VmRSS is what the process holds now, VmHWM the most since its start or since the last `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_of(case: Case) -> int:
    """Bytes above those before the model was built."""
    from contract.manifest import Attempt
    from contract.plan import resolve
    from training.engine.job import Job
    from training.engine.ranks import join

    with tempfile.TemporaryDirectory() as folder:
        crawl = Path(folder, "crawl")
        crawl.mkdir()
        (crawl / "part.warc.gz").write_bytes(b"WARC")
        run = resolve("recipes/tiny.yaml", "bench", (f"store={folder}/store", f"crawl.source={crawl}"))
        task = run.task("pretrain")
        job = Job(run, task, Attempt(run, task), join())
        small = Model(layers=1, d_model=64, heads=2, kv_heads=1, d_ff=64)
        train(dataclasses.replace(case, model=small, seq_len=32), job)
        forget_peak()
        before = resident("VmRSS")
        train(case, job)
        return resident("VmHWM") - before


if __name__ == "__main__":
    print(json.dumps({"peak": peak_of(CASES[sys.argv[1]])}), flush=True)
    os._exit(0)  # threads of the libraries have aborted ordinary exits
