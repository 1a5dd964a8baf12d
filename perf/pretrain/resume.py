"""Pretraining that is killed (SIGKILL) and started again ends with the very bits of one that nobody killed.

Each of ten runs over three epochs is killed at a step of its own, drawn from a seed: between the backward pass and the update, whatever
is being uploaded. It then goes on from the checkpoint that it finds. Weights and curves are compared with those of a run that was not
killed. In every second run, the store takes the last checkpoint before the kill so slowly that the kill surely meets its upload;
`killed_while_uploading` counts the kills that met one.
"""

import hashlib
import math
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from contract.kinds import Kind
from contract.manifest import find, need
from contract.metrics import load_points
from contract.plan import Run
from contract.shards import shards_of
from contract.store import Store
from perf.bars import Bars
from perf.pretrain.checkpoint import slow_write
from perf.pretrain.corpus import make_run
from perf.pretrain.forked import forked

RUNS = 10
EPOCHS = 3
BATCH = 8
EVERY = 5  # steps between two checkpoints
SLOW = 1000.0  # bytes a second, of some hundred thousand
TIMED = ("tokens_per_s", "memory_bytes", "mfu")


def run(bars: Bars, data: Path) -> None:
    from training import pretrain  # noqa: F401 - what is imported before the fork is not imported ten times

    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GRISTMILL_SCRATCH"] = str(folder / "scratch")
        os.environ["OMP_NUM_THREADS"] = "1"
        packed = make_run(folder / "size")
        shards = shards_of(need(packed.store, packed.task("pack")), Kind.TOKENS)
        sequences = sum(shard.rows[packed.recipe.pack.seq_len].rows for shard in shards)
        steps = math.ceil(EPOCHS * sequences / BATCH)
        settings = (f"pretrain.steps={steps}", f"pretrain.engine.checkpoint_steps={EVERY}", "pretrain.eval_steps=10")
        whole = make_run(folder / "whole", *settings)
        assert train(whole) == 0
        expected = result(whole)
        same = uploading = 0
        for number, step in enumerate(random.Random(12).sample(range(6, steps), RUNS)):
            broken = make_run(folder / f"broken-{number}", *settings)
            noted = folder / f"killed-{number}"
            killed = train(broken, Kill(step, number % 2 == 0, noted))
            assert killed == -signal.SIGKILL, killed
            uploading += (busy := noted.read_text() == "True")
            assert find(broken.store, broken.task("pretrain")) is None
            again = train(broken)
            same += again == 0 and result(broken) == expected
            met = "during an upload" if busy else "between uploads"
            print(
                f"killed in step {step} of {steps}, {met}: {'the same' if result(broken) == expected else 'ANOTHER'} result"
            )
        bars.at_least("resume_bit_identical", same, RUNS)
        bars.at_least("killed_while_uploading", uploading, RUNS / 2)


@dataclass(frozen=True)
class Kill:
    """In which step a run is killed, whether surely during an upload, and the file that says if it was."""

    step: int
    surely: bool
    noted: Path


def train(run: Run, kill: Kill | None = None) -> int:
    """Run the stage in a process of its own; its exit code, negative if a signal ended it."""
    return forked(lambda: _train(run, kill))


def _train(run: Run, kill: Kill | None) -> int:
    from training.__main__ import main
    from training.engine.engine import Engine

    step: Callable[[Engine], float] = Engine.step

    def step_or_die(engine: Engine) -> float:
        if kill and kill.surely and engine.steps_done + 1 == kill.step - EVERY:  # one more checkpoint until the kill
            Store.write_bytes = slow_write(SLOW)  # type: ignore[method-assign]
        if kill and engine.steps_done + 1 == kill.step:
            kill.noted.write_text(str(engine._job.behind.busy))
            os.kill(os.getpid(), signal.SIGKILL)
        return step(engine)

    Engine.step = step_or_die  # type: ignore[method-assign]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return main(["pretrain", "--recipe", run.uri])


def result(run: Run) -> tuple[object, ...]:
    """Digest of the weights, and every curve but those of speed and memory."""
    manifest = need(run.store, run.task("pretrain"))
    weights = [hashlib.sha256(run.store.read_bytes(one.path)).hexdigest() for one in manifest.of(Kind.MODEL)]
    points = [point for one in manifest.of(Kind.METRICS) for point in load_points(run.store.read_bytes(one.path))]
    return *weights, *sorted((point.name, point.step, point.value) for point in points if point.name not in TIMED)
