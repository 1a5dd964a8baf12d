"""Stages that are killed (SIGKILL) and started again end with the very bits of a run that nobody killed.

SFT, the reward model, PPO, DPO and GRPO, and those that may learn adapters once more with them, if peft is installed.

Each of ten runs a stage is killed at an update of its own, drawn from a seed: between the backward pass and the update, whatever is being
uploaded. It then goes on from the checkpoint that it finds. Weights, curves and samples are compared with those of a run that was not killed.
`resume_bit_identical_<stage>` counts the runs that ended alike; `<stage>_adapters` is the stage with adapters.
"""

import hashlib
import os
import random
import signal
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from contract.kinds import Kind
from contract.manifest import find, need
from contract.metrics import Point, load_points
from contract.plan import Run
from perf.align.chain import make_chain
from perf.bars import Bars
from perf.pretrain.forked import forked
from tests.training.conftest import OF_MACHINE

KILLS = 10
SETTINGS = {
    "sft": ("sft.text_share=0.25", "sft.packing=true", "sft.patience=50", "sft.eval_steps=2", "sft.engine={micro_batch: 4, checkpoint_steps: 2}"),
    "reward": ("reward.epochs=1", "reward.engine={micro_batch: 8, checkpoint_steps: 2}", "preferences.max_examples=160"),
    "ppo": (
        "ppo.steps=5", "ppo.ptx_coef=0.5", "ppo.kl_target=0.05", "ppo.normalise_rewards=true", "ppo.value_warmup_steps=1", "ppo.eval_steps=2",
        "ppo.eval_prompts=4", "ppo.kl_stop=0.5", "ppo.max_response_tokens=12",
    ),
    "dpo": (
        "align=dpo", "dpo.max_tokens=64", "dpo.batch=16", "dpo.optim={lr: 1.0e-3, weight_decay: 0.0}", "preferences.max_examples=160",
        "dpo.engine={micro_batch: 8, checkpoint_steps: 2}",
    ),
    "grpo": (
        "align=grpo", "grpo.steps=6", "grpo.rollout_batch=16", "grpo.minibatch=8", "grpo.group_size=4", "grpo.max_prompt_tokens=24",
        "grpo.max_response_tokens=12", "grpo.optim={lr: 1.0e-3, weight_decay: 0.0}", "grpo.eval_steps=2", "grpo.eval_prompts=4",
        "grpo.engine={micro_batch: 8, checkpoint_steps: 2}",
    ),
}  # fmt: skip
ADAPTED = ("sft", "ppo", "dpo", "grpo")


def run(bars: Bars, data: Path) -> None:
    from training import dpo, grpo, ppo  # noqa: F401 - what is imported before the fork is not imported a hundred times

    with TemporaryDirectory() as name:
        os.environ["GRISTMILL_SCRATCH"] = str(Path(name) / "scratch")
        os.environ["OMP_NUM_THREADS"] = "1"
        for label, stage, settings in cases():
            made = make_chain(Path(name), *settings, name=label)
            bars.at_least(f"resume_bit_identical_{label}", survived(made, stage), KILLS)


def cases() -> list[tuple[str, str, tuple[str, ...]]]:
    """(The name of a bar, the stage, its settings) of all that is killed."""
    found = [(stage, stage, settings) for stage, settings in SETTINGS.items()]
    if find_spec("peft") is None:
        print("adapters: not measured, because peft is not installed")
        return found
    on = "lora={enabled: true, rank: 4}"
    return [*found, *((f"{stage}_adapters", stage, (*SETTINGS[stage], f"{stage}.{on}")) for stage in ADAPTED)]


def survived(made: Run, stage: str) -> int:
    """How many of the killed runs ended as the one that was not."""
    assert train(made, stage) == 0
    updates = updates_of(made, stage)
    expected, same, drawn = result(made, stage), 0, random.Random(7)
    for kill in (drawn.choice(range(2, updates)) for _ in range(KILLS)):
        forget(made, stage)
        killed = train(made, stage, kill)
        assert killed == -signal.SIGKILL, killed
        assert find(made.store, made.task(stage)) is None
        same += (alike := train(made, stage) == 0 and result(made, stage) == expected)
        print(f"{stage} killed before update {kill} of {updates}: {'the same' if alike else 'ANOTHER'} result")
    return same


def forget(made: Run, stage: str) -> None:
    """Delete all that a stage has left in the store, so that it starts from nothing."""
    made.store.delete(f"{made.task(stage).prefix}/manifest.json")
    made.store.delete(made.task(stage).prefix.rpartition("/")[0])


def train(made: Run, stage: str, kill: int | None = None) -> int:
    """Run the stage in a process of its own; its exit code, negative if a signal ended it.

    kill: the update of the policy before which it is killed.
    """
    return forked(lambda: _train(made, stage, kill))


def _train(made: Run, stage: str, kill: int | None) -> int:
    from training.__main__ import main
    from training.engine.engine import Engine

    step = Engine.step
    learners: list[Engine] = []

    def step_or_die(engine: Engine) -> float:
        if engine not in learners:
            learners.append(engine)
        if engine is learners[0] and engine.steps_done + 1 == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(engine)

    Engine.step = step_or_die  # type: ignore[method-assign]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return main([stage, "--recipe", made.uri])


def updates_of(made: Run, stage: str) -> int:
    """The updates of a finished run: of PPO those of the critic, which learns first."""
    points = points_of(made, stage)
    several = [point.value for point in points if point.name == "updates"]  # in one step
    return int(sum(several)) if several else sum(point.name == "loss" for point in points)


def points_of(made: Run, stage: str) -> list[Point]:
    manifest = need(made.store, made.task(stage))
    return [point for one in manifest.of(Kind.METRICS) for point in load_points(made.store.read_bytes(one.path))]


def result(made: Run, stage: str) -> tuple[object, ...]:
    """Digests of the weights and samples, and every curve but those of speed and memory."""
    manifest = need(made.store, made.task(stage))
    files = manifest.of(Kind.MODEL, Kind.CRITIC, Kind.SAMPLES)
    digests = [hashlib.sha256(made.store.read_bytes(one.path)).hexdigest() for one in files]
    rows = [
        (one.name, one.step, one.value) for one in points_of(made, stage) if one.name not in (*OF_MACHINE, "resumed")
    ]
    return *digests, *sorted(rows)
