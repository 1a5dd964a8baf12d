"""`three_rounds_rise`: three rounds of feedback end to end, with real stages and simulated people who know the true reward.

Each letter has a weight, and the true reward of a reply is the mean weight of its letters. What the DAG `feedback` does is done
here in the same order: `sample`, votes, `collect`, and the stages of the next run down to PPO. The replies that the next
round samples tell the true reward of the model that a round made. A round rises beyond noise if the difference of the means
to the round before is above 0 by NOISE standard errors; the figure is the share of all rounds of all seeds that do.
"""

import json
import os
import random
import statistics
import string
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from contract import feedback
from contract.assignment import order_of
from contract.feedback import Item, Round, Vote
from contract.manifest import find
from contract.plan import Run
from perf.align.chain import EXAMPLES, make_chain, make_examples, run_stage
from perf.bars import Bars
from perf.feedback.simulated import NOW, PEOPLE, ranks
from reports import rounds
from tests.training.conftest import THINGS

SEEDS, ROUNDS = 3, 3
EACH = 3  # votes on an item
NOISE = 1.645  # one-sided 95 %
PROMPTS = 400
WEIGHT = 3.0  # standard deviation of a letter's weight: the rewards of an untrained model's replies then have about 1
SETTINGS = (
    "sample.prompts=64", "sample.replies=4", "sample.max_response_tokens=12", "sample.engine.micro_batch=64",
    f"feedback.rating.people={EACH}", "feedback.rating.repeated=0", "judge.share=0", "gate.min_accuracy=0.3",
    "preferences.min_jaccard=null", "pretrain.steps=150", "reward.epochs=3", "reward.engine.micro_batch=16",
    "ppo.steps=16", "ppo.rollout_batch=64", "ppo.minibatch=32", "ppo.max_response_tokens=12", "ppo.kl_coef=0.1",
    "ppo.engine={micro_batch: 32, checkpoint_steps: 1000}", "ppo.best_of=1", "ppo.eval_steps=1000", "ppo.no_eot_penalty=0.0",
)  # fmt: skip


def run(bars: Bars) -> None:
    rose: list[bool] = []
    for seed in range(SEEDS):
        began = time.monotonic()
        with TemporaryDirectory() as folder:
            os.environ["GRISTMILL_SCRATCH"] = f"{folder}/scratch"
            found = of_seed(Path(folder), seed)
        means = ", ".join(f"{statistics.fmean(rewards):.3f} +- {error(rewards):.3f}" for rewards in found)
        print(
            f"  seed {seed}: true reward before and after each round {means}; {time.monotonic() - began:.0f} s",
            flush=True,
        )
        rose += [rises(one, other) for one, other in pairwise(found)]
    bars.exactly("three_rounds_rise", sum(rose) / len(rose), 1)


def error(rewards: Sequence[float]) -> float:
    """The standard error of a mean."""
    return statistics.stdev(rewards) / len(rewards) ** 0.5


def rises(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether the mean is higher beyond noise."""
    noise = NOISE * (error(before) ** 2 + error(after) ** 2) ** 0.5
    return statistics.fmean(after) - statistics.fmean(before) > noise


def of_seed(folder: Path, seed: int) -> list[list[float]]:
    """The true rewards of replies before the first round and after each."""
    random_of_seed = random.Random(seed)
    weights = {letter: random_of_seed.gauss(0, WEIGHT) for letter in string.ascii_lowercase}
    file = folder / "prompts.jsonl"
    rows = [{"prompt": f"{one} {number}"} for number, one in enumerate(random_of_seed.choices(THINGS, k=PROMPTS))]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made = make_chain(
        folder, *SETTINGS, f"prompts.data={file}", f"sample.seed={seed}", f"ppo.seed={seed}", name="round-0"
    )
    found = []
    for number in range(ROUNDS + 1):
        learn(made)
        assert run_stage(made, "sample") == 0
        opened = rounds.open_round(made, "feedback", NOW)
        items = feedback.items(made.store, opened)
        found.append([true_reward(reply.text, weights) for item in items.values() for reply in item.replies])
        if number < ROUNDS:
            vote(made, opened, [*items.values()], weights, seed)
            made = rounds.collect(made, opened, f"round-{number + 1}").run
    return found


def true_reward(reply: str, weights: dict[str, float]) -> float:
    """The mean weight of a reply's letters, in any case; 0 without one."""
    found = [weights[letter] for letter in reply.lower() if letter in weights]
    return statistics.fmean(found) if found else 0.0


def vote(made: Run, opened: Round, items: Sequence[Item], weights: dict[str, float], seed: int) -> None:
    """EACH of PEOPLE, in turns, rank the replies of every item by the true reward and their own noise."""
    noise, names = np.random.default_rng((seed, opened.number)), list(PEOPLE)
    for number, item in enumerate(items):
        rewards = np.array([true_reward(reply.text, weights) for reply in item.replies])
        for turn in range(EACH):
            name = names[(number + turn) % len(names)]
            spread, truth = PEOPLE[name]
            seen = truth * rewards + spread * noise.standard_normal(len(rewards))
            shown = order_of(len(rewards), item.id, name, 0)
            feedback.cast(
                made.store,
                opened,
                Vote(
                    round=opened.name, item=item.id, annotator=name, showing=0, shown=shown, ranks=ranks(seen, 0.1), when=NOW
                ),
            )  # fmt: skip


def learn(made: Run) -> None:
    """Run what of a run is not there yet, down to PPO."""
    for stage in (*EXAMPLES, "reward", "gate", "ppo"):
        if find(made.store, made.task(stage)) is None:
            done = make_examples(made, stage) if stage in EXAMPLES else run_stage(made, stage)
            assert done == 0, stage
