"""How many bad batches a run of two processes survives: one of NaN, one whose gradients are a thousand times too large.

The first start dies after the NaN, without a warning. The second meets both in one go: it resumes from the checkpoint
before the NaN, so it must skip the same update again, and go on to the end.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from contract.manifest import need
from contract.metrics import load_points
from contract.plan import Run, resolve
from perf.bars import Bars
from tests.training.conftest import RECIPE, commit_corpus

NAN, SPIKE, STEPS = 26, 32, 40  # the updates, counted from 0; a running median exists after 20
DIED = 9
SPOILED = f"""
import os, sys, torch
from training.__main__ import main
from training.engine.engine import Engine

backward, step = Engine.backward, Engine.step

def spoil(self, loss):
    bad = torch.distributed.get_rank() == 1 and {{{NAN}: torch.nan, {SPIKE}: 1e4}}.get(self.steps_done, 0)
    backward(self, loss * bad if bad else loss)

def die(self):
    if os.environ.get("DIES") and self.steps_done == {NAN} + 1:
        os._exit({DIED})
    return step(self)

Engine.backward, Engine.step = spoil, die
code = main(sys.argv[1:])
sys.stdout.flush()
os._exit(code)
"""


def run(bars: Bars, data: Path) -> None:
    """`nan_survived`: of the two bad batches, those that the run skipped, said, kept the rows of, and went on after."""
    with TemporaryDirectory() as folder:
        made = _prepare(Path(folder))
        died = _start(made, Path(folder, "first"), DIES="1")
        assert DIED in died, f"the first run was to die after its bad batch; its processes ended with {died}"
        ended = _start(made, Path(folder, "second"))
        assert ended == [0, 0], f"the second run was to end well; its processes ended with {ended}"
        manifest = need(made.store, made.task("pretrain"))
        [metrics] = manifest.of("metrics")
        points = load_points(made.store.read_bytes(metrics.path))
        rows = [
            sum(one.name.startswith("skipped_row") and one.step == bad + 1 for one in points) for bad in (NAN, SPIKE)
        ]
        learned = manifest.metrics["heldout_loss_after"]
        print(f"skipped in steps {manifest.metrics['skipped_steps']}, held-out loss {learned:.3f} after {STEPS} steps")
        whole = manifest.metrics["skipped_updates"] == 2 and isinstance(learned, float) and learned < 5
        bars.at_least("nan_survived", sum(count == 8 for count in rows) if whole else 0, 2)


def _prepare(folder: Path) -> Run:
    (folder / "crawl").mkdir()
    (folder / "crawl" / "part.warc.gz").write_bytes(b"WARC")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE + f"crawl: {{source: {folder}/crawl}}\n")
    engine = "pretrain.engine={micro_batch: 4, processes: 2, zero_stage: 2, checkpoint_steps: 10}"
    made = resolve(str(recipe), "survival", (f"store={folder}/store", f"pretrain.steps={STEPS}", engine))
    commit_corpus(made)
    return made


def _start(made: Run, scratch: Path, **environment: str) -> list[int]:
    """Run both processes to their end and return their exit codes.

    They get a new scratch folder, because ranks that died leave their meeting file in the old one.
    """
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SPOILED, "pretrain", "--recipe", made.uri],
            env={
                **os.environ, "WORLD_SIZE": "2", "LOCAL_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
                "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "GRISTMILL_SCRATCH": str(scratch), **environment,
            },
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        return [rank.wait(timeout=120) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
