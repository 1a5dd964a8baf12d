"""`three_rounds_rise`: three rounds of feedback end to end, with real stages and simulated people who know the true reward.

Each letter has a weight, and the true reward of a reply is the mean weight of its characters. What the DAG `feedback` does
is done here in the same order: `sample`, votes, `collect`, and the stages of the next run down to PPO. The first run stops
at its gate, since its pairs are made by rule and nobody's preference; so people first compare replies of the SFT model.

The replies that the next round samples tell the true reward of the model that a round made. A round rises beyond noise if
the difference of the means to the round before is above 0 by NOISE standard errors; the figure is the share of all rounds
of all seeds that do.
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
from contract.approval import without_ppo
from contract.assignment import order_of
from contract.feedback import Item, Round, Vote
from contract.manifest import find, need
from contract.plan import Run, vary
from contract.results import Ppo, Reward
from perf.align.chain import EXAMPLES, make_chain, make_examples, run_stage
from perf.bars import Bars
from perf.feedback.simulated import NOW, PEOPLE, ranks
from reports import rounds
from tests.training.conftest import THINGS

SEEDS, ROUNDS = 3, 3
EACH = 3  # votes on an item
NOISE = 1.645  # one-sided 95 %
PROMPTS = 400
WEIGHT = 5.0  # standard deviation of a letter's weight: the rewards of the first model's replies then have about 1
WORST = -2 * WEIGHT  # the weight of what is no letter, and the reward of an empty reply
PLAIN = " .,!?'\n"  # characters without a weight
CLOSED, OPEN = "gate.min_accuracy=1.0", "gate.min_accuracy=0.5"
SETTINGS = (
    "sample.prompts=128", "sample.replies=4", "sample.max_response_tokens=32",
    "sample.engine.micro_batch=128", f"feedback.rating.people={EACH}", "feedback.rating.repeated=0", "judge.share=0",
    "preferences.min_jaccard=null", "pretrain.steps=150", "sft.epochs=12", "reward.epochs=6", "reward.engine.micro_batch=16",
    "ppo.steps=7", "ppo.entropy_coef=0.02", "ppo.rollout_batch=64", "ppo.minibatch=32", "ppo.max_response_tokens=32",
    "ppo.engine={micro_batch: 32, checkpoint_steps: 1000}", "ppo.best_of=1", "ppo.eval_steps=1000",
)  # fmt: skip


def run(bars: Bars) -> None:
    rose: list[bool] = []
    with TemporaryDirectory() as folder:
        os.environ["GRISTMILL_SCRATCH"] = f"{folder}/scratch"
        for seed in range(SEEDS):
            began = time.monotonic()
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
    """The true rewards of the newest model's replies before the first round and after each. Seeds share an SFT model."""
    drawn = random.Random(seed)
    weights = {letter: drawn.gauss(0, WEIGHT) for letter in string.ascii_lowercase}
    settings = (*SETTINGS, CLOSED, f"prompts.data={prompts(folder)}", f"sample.seed={seed}", f"ppo.seed={seed}")
    made = make_chain(folder, *settings, name=f"seed-{seed}")
    found = []
    for number in range(ROUNDS + 1):
        learn(made)
        assert run_stage(made, "sample") == 0
        opened = rounds.open_round(made, "feedback", NOW)
        items = [*feedback.items(made.store, opened).values()]
        newest = rounds.last_model(made)
        replies = [reply for item in items for reply in item.replies if reply.model == newest]
        found.append([true_reward(reply.text, weights) for reply in replies])
        print(f"    round {number}: {told(made, found[-1])}", flush=True)
        if number < ROUNDS:
            vote(made, opened, items, weights, seed)
            made = rounds.collect(made, opened, f"seed-{seed}-{number}").run
        if number == 0:  # what a person sets once there are votes
            made = vary(made, f"seed-{seed}-open", [OPEN])
    return found


def prompts(folder: Path) -> Path:
    """A file of PROMPTS prompts that no pair has."""
    file = folder / "prompts.jsonl"
    things = random.Random(0).choices(THINGS, k=PROMPTS)
    rows = [{"prompt": f"{one} {number}"} for number, one in enumerate(things)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def told(made: Run, rewards: Sequence[float]) -> str:
    """What made a round's model: how well its reward model ranks, and how far the policy went."""
    judge, policy = Reward.of(need(made.store, made.task("reward"))), find(made.store, made.task("ppo"))
    went = f"KL {Ppo.of(policy).kl_last:.1f} nats" if policy else "no PPO"
    mean = statistics.fmean(rewards)
    return f"accuracy {judge.accuracy:.2f} of {judge.pairs} prompts, {went}; {len(rewards)} replies, reward {mean:.3f}"


def true_reward(reply: str, weights: dict[str, float]) -> float:
    """The mean weight of a reply's characters but those of PLAIN, in any case; what is no letter weighs WORST."""
    found = [weights.get(letter, WORST) for letter in reply.lower() if letter not in PLAIN]
    return statistics.fmean(found) if found else WORST


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
    """Run what of a run is not there yet, down to PPO if the gate is open."""
    for stage in (*EXAMPLES, "reward", "gate"):
        if find(made.store, made.task(stage)) is None:
            done = make_examples(made, stage) if stage in EXAMPLES else run_stage(made, stage)
            assert done == 0, stage
    if not without_ppo(made.store, need(made.store, made.task("gate")), made.task("ppo")):
        assert run_stage(made, "ppo") == 0
