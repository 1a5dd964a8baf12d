"""Speed of fine-tuning and of reward training on the CPU, beside TRL in an environment of its own.

`sft_vs_trl`, `reward_vs_trl`: tokens a second of our stage over those of TRL's SFTTrainer and RewardTrainer, with the same model, rows,
batch, optimizer and threads, in float32. Both log every ten steps. Each runs one epoch of the same rows in an order of its own; its first
WARM steps do not count. TRL gets the rows as tokens; our stage makes the tokens while it trains. All take turns, and each counts with its fastest.
Tokens are those of the rows, without padding, a pair being two rows: our chats share rows (`sft.packing`), and our replies share their prompt,
which changes no loss and no gradient. TRL pads each row; its own packing puts other rows into an update.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import torch

from contract.kinds import Kind
from contract.manifest import Attempt, find, need
from contract.plan import Run
from perf.bars import Bars
from perf.pretrain.corpus import make_run
from perf.pretrain.forked import forked
from pipelines import instructions, preferences
from pipelines.spark import job as spark_job
from training import pretrain, reward, sft
from training.chat.template import open_chat
from training.data.examples import read_chats, read_pairs
from training.data.rankings import Rankings
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.ranks import join
from training.engine.watching import watched

TRL = ("trl==1.16.0", "torch==2.13.0", "transformers==5.23.0", "datasets")
WHERE = Path(".bench")
ROWS, BATCH, WARM, TURNS, ENTRIES = 320, 8, 8, 3, 16_000
LR = {"sft": 2e-5, "reward": 1e-5}
THREADS = len(os.sched_getaffinity(0))
STAGES: dict[str, Any] = {"sft": sft, "reward": reward}


def recipe(data: Path) -> tuple[str, ...]:
    """Overrides: a model of 10 M parameters, real chats and pairs, one epoch."""
    more = {"sft": ", packing: true", "reward": ""}
    engine = f"{{micro_batch: {BATCH}, checkpoint_steps: 10000, log_steps: 10}}"
    optim = "{{lr: {lr}, weight_decay: 0.0, schedule: cosine, warmup_fraction: 0.0}}"
    return (
        "pack.seq_len=512",
        "pretrain.model={layers: 4, d_model: 256, heads: 4, kv_heads: 4, d_ff: 688}",
        "pretrain.steps=1",
        f"instructions.data={data}/sft/llama-factory/alpaca_en_demo.json",
        f"instructions.max_examples={ROWS}",
        f"preferences.data={data}/pref/hh-rlhf/helpful-base",
        f"preferences.max_examples={ROWS}",
        "judge.share=0",
        *(
            f"{stage}={{engine: {engine}, optim: {optim.format(lr=lr)}, epochs: 1, batch: {BATCH}, max_tokens: 512{more[stage]}}}"
            for stage, lr in LR.items()
        ),
    )


def run(bars: Bars, data: Path) -> None:
    peer = peer_python(WHERE)
    with TemporaryDirectory() as folder:
        os.environ["GRISTMILL_SCRATCH"] = f"{folder}/scratch"
        made = alone(lambda: prepare(Path(folder), data))
        for stage in STAGES:
            bars.at_least(f"{stage}_vs_trl", compared(made, stage, peer, Path(folder)), 1.0)


def compared(given: dict[str, Any], stage: str, peer: Path, folder: Path) -> float:
    """Our stage's tokens a second over TRL's."""
    rows, tokens = given[stage]["rows"], given[stage]["tokens"]
    ways: dict[str, Callable[[int], list[float]]] = {
        "TRL": lambda turn: theirs(peer, folder / f"{stage}-{turn}.json", stage, given["model"], rows),
        "ours": lambda turn: alone(partial(ours, given["uri"], stage)),
    }
    best = dict.fromkeys(ways, 0.0)
    for turn in range(TURNS):
        for way, ends in ways.items():
            best[way] = max(best[way], rate(ends(turn), tokens))
    said = ", ".join(f"{way} {one:,.0f}" for way, one in best.items())
    print(f"{stage}, tokens/s: {said}; {THREADS} threads each", flush=True)
    return best["ours"] / best["TRL"]


def rate(ends: list[float], tokens: int) -> float:
    """Tokens a second after the warm-up, from the time at each step's end; rows of all lengths are in every step."""
    steps = len(ends) - WARM
    return tokens * steps / len(ends) / (ends[-1] - ends[WARM - 1])


def alone(work: Callable[[], Any]) -> Any:
    """What a function returns in a process of its own: threads and process groups stay out of this one."""
    with TemporaryFile("w+") as said:

        def say() -> int:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            json.dump(work(), said)
            said.flush()
            return 0

        code = forked(say)
        assert code == 0, f"ended with {code}"
        said.seek(0)
        return json.load(said)


def prepare(folder: Path, data: Path) -> dict[str, Any]:
    """Commit all that the two stages read; their rows as tokens for TRL, and how many tokens these are."""
    made = make_run(folder / "run", *recipe(data), entries=ENTRIES)
    for stage, module in {"instructions": instructions, "preferences": preferences}.items():
        task = made.task(stage)
        module.run(spark_job.Job(made, task, Attempt(made, task)))
    join()
    pretraining = train(made, "pretrain", pretrain)
    chat = open_chat(job_of(made, "sft"))
    model = folder / "model"
    for file in need(made.store, pretraining.task).files:
        if file.kind == Kind.MODEL:
            (model / Path(file.path).name).parent.mkdir(exist_ok=True)
            (model / Path(file.path).name).write_bytes(made.store.read_bytes(file.path))
    chats = [chat.encode(turns, 512) for turns in read_chats(job_of(made, "sft"), Kind.CHATS)]
    train(made, "sft", sft)
    job = job_of(made, "reward")
    sifted = reward.sift(job, job.settings, chat, Rankings(read_pairs(job, Kind.PAIRS)), "pairwise")
    found = [reward.ranked(chat, one, 512) for one in sifted.kept]
    pairs = [(one.chats[better], one.chats[worse]) for one in found for better, worse in one.pairs]
    return {
        "uri": made.uri,
        "model": str(model),
        "sft": written(folder, "sft", ({"input_ids": ids, "assistant_masks": mask} for ids, mask in chats)),
        "reward": written(folder, "reward", ({"chosen_ids": one, "rejected_ids": two} for one, two in pairs)),
    }


def written(folder: Path, stage: str, rows: Iterable[dict[str, list[int]]]) -> dict[str, Any]:
    """TRL's file of a stage's rows, and how many tokens run through the model in an epoch, without padding."""
    kept = [*rows]
    file = folder / f"{stage}.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    tokens = sum(len(ids) for row in kept for name, ids in row.items() if name.endswith("_ids"))
    return {"rows": str(file), "tokens": tokens}


def job_of(made: Run, stage: str) -> Job:
    task = made.task(stage)
    return Job(made, task, Attempt(made, task))


def train(made: Run, stage: str, module: Any) -> Job:
    """Run a stage of the GPU plane as a task does."""
    torch.set_num_threads(THREADS)
    job = job_of(made, stage)
    with job.leading(job.attempt), job.scratch.held(), watched(job):
        module.run(job)
    return job


def ours(uri: str, stage: str) -> list[float]:
    """Run our stage, whose result is deleted first; the time at each step's end."""
    from contract.plan import open_run

    made = open_run(uri)
    if done := find(made.store, made.task(stage)):
        made.store.delete(done.path)
    join()
    ends: list[float] = []
    step = Engine.step

    def timed(engine: Engine) -> float:
        norm = step(engine)
        ends.append(time.perf_counter())
        return norm

    Engine.step = timed  # type: ignore[method-assign]
    train(made, stage, STAGES[stage])
    return ends


def theirs(peer: Path, result: Path, stage: str, model: str, rows: str) -> list[float]:
    """What perf/peers/trl_train.py measured."""
    script = Path(__file__).parents[1] / "peers" / "trl_train.py"
    command = [peer, script, result, stage, model, rows, str(BATCH), str(LR[stage]), str(THREADS)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return list(json.loads(result.read_text()))


def peer_python(where: Path) -> Path:
    """TRL's own environment, made on first use."""
    python, ready = where / "trl" / "bin" / "python", where / "trl" / ".ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", where / "trl"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *TRL], check=True)
        ready.touch()
    return python.absolute()
