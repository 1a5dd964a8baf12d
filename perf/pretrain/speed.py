"""Speed of pretraining on the CPU, with all logging and checkpoints on.

`tokens_a_second_vs_trainer`: tokens a second of the stage with `engine.compile` over those of a plain loop of transformers' Trainer, with
the same model, data, optimizer and threads; both log every ten steps and save every twenty. The vocabulary is that of recipes/base.yaml.
Printed too: the stage that is not compiled, also with a vocabulary of few entries. There both do the same products of matrices, and
these take most of the time. All take turns, and each counts with its fastest turn.
`step_time_drift`: the median step among the last 200 of 1,000 over the one among the first 200 after a warm-up.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from contract.kinds import Kind
from contract.manifest import Attempt
from perf.bars import Bars
from perf.pretrain.corpus import make_job, make_run
from perf.pretrain.forked import forked
from training import pretrain
from training.chat.template import open_chat
from training.data.reading import TokenData
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.watching import watched
from training.models import llama

STEPS, WARM, BATCH, SEQ_LEN = 30, 8, 8, 256
TURNS = 2
ENTRIES, FEW = 32_000, 0
THREADS = len(os.sched_getaffinity(0))
LARGE = (
    f"pack.seq_len={SEQ_LEN}",
    "pretrain.model={layers: 4, d_model: 256, heads: 4, kv_heads: 4, d_ff: 688}",
    f"pretrain.steps={STEPS}",
    f"pretrain.batch={BATCH}",
    "pretrain.boundaries=false",  # Trainer knows none
    f"pretrain.engine={{micro_batch: {BATCH}, checkpoint_steps: 20, log_steps: 10}}",
)
DRIFT = ("pretrain.steps=1000", "pretrain.engine={micro_batch: 8, checkpoint_steps: 100}", "pretrain.eval_steps=250")


def run(bars: Bars, data: Path) -> None:
    with TemporaryDirectory() as folder:
        compared(Path(folder) / "few", FEW)
        bars.at_least("tokens_a_second_vs_trainer", compared(Path(folder) / "many", ENTRIES), 1.0)
        took = [later - earlier for earlier, later in pairwise(alone(stage_ends, Path(folder) / "drift", FEW, *DRIFT))]
        bars.at_most("step_time_drift", statistics.median(took[-200:]) / statistics.median(took[50:250]), 1.05)


def compared(folder: Path, entries: int) -> float:
    """The compiled stage's tokens a second over those of Trainer, with a vocabulary of so many entries.

    With 0 it has the few that the texts take, and nothing is compiled.
    """
    ways = {"transformers' Trainer": partial(trainer_ends, entries=entries), "not compiled": stage_of(entries, False)}
    if entries:
        ways["compiled"] = stage_of(entries, True)
    best = dict.fromkeys(ways, 0.0)
    for turn in range(TURNS):
        for way, ends in ways.items():
            best[way] = max(best[way], rate(alone(ends, folder / f"{turn} {way}")))
    theirs, *ours = best.values()
    said = ", ".join(f"{way} {one:,.0f} ({one / theirs:.3f})" for way, one in best.items())
    print(f"{entries or 'few'} entries, tokens/s: {said}; {THREADS} threads each")
    return ours[-1] / theirs


def stage_of(entries: int, compiles: bool) -> Callable[[Path], list[float]]:
    """The stage as a task of the recipe LARGE."""
    return lambda folder: stage_ends(folder, entries, *LARGE, f"pretrain.engine.compile={str(compiles).lower()}")


def alone(ends: Callable[..., list[float]], *given: Any) -> list[float]:
    """What a function returns in a process of its own: in the stage's process group, Trainer would split its batch."""
    with TemporaryFile("w+") as said:

        def say() -> int:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            json.dump(ends(*given), said)
            said.flush()
            return 0

        code = forked(say)
        assert code == 0, f"{ends.__name__} ended with {code}"
        said.seek(0)
        return list(json.load(said))


def rate(ends: list[float]) -> float:
    """Tokens a second after the warm-up, from the time at each step's end."""
    return (len(ends) - WARM) * BATCH * SEQ_LEN / (ends[-1] - ends[WARM - 1])


def stage_ends(folder: Path, entries: int, *overrides: str) -> list[float]:
    """Run the stage as a task does; the time at each step's end."""
    job = make_job(folder, *overrides, entries=entries)
    torch.set_num_threads(THREADS)
    ends: list[float] = []
    step = Engine.step

    def timed(engine: Engine) -> float:
        norm = step(engine)
        ends.append(time.perf_counter())
        return norm

    Engine.step = timed  # type: ignore[method-assign]
    with job.leading(job.attempt), job.scratch.held(), watched(job):
        pretrain.run(job)
    return ends


class Packed(Dataset[dict[str, torch.Tensor]]):
    """The packed sequences, as Trainer takes them."""

    def __init__(self, job: Job) -> None:
        self._data = TokenData(job, Kind.TOKENS, SEQ_LEN, boundaries=False)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = self._data.rows([index]).tokens[0, :SEQ_LEN]
        return {"input_ids": tokens, "labels": tokens}


class Ends(TrainerCallback):
    """Notes the time at each step's end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def trainer_ends(folder: Path, entries: int) -> list[float]:
    """Run Trainer on the stage's data; the time at each step's end."""
    made = make_run(folder, *LARGE, entries=entries)
    job = Job(made, made.task("pretrain"), Attempt(made, made.task("pretrain")))
    settings, chat, noted = job.settings, open_chat(job), Ends()
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=settings.optim.lr,
        weight_decay=settings.optim.weight_decay,
        max_grad_norm=settings.optim.clip,
        lr_scheduler_type="cosine",
        logging_steps=10,
        save_steps=20,
        save_total_limit=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    torch.set_num_threads(THREADS)
    module = llama.build(settings.model, chat.vocab_size, SEQ_LEN, 0)
    Trainer(module, arguments, train_dataset=Packed(job), callbacks=[noted]).train()
    return noted.ends
