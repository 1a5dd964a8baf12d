"""How near a reward model comes to the best accuracy that anybody could have, where the true reward is known.

Every reply is a few words, each word has a weight, and the true reward of a reply is the sum of its words' weights. Which
of two replies is preferred is drawn with the probability sigmoid(r_1 - r_2) of Bradley and Terry. So even the true
reward ranks only a share of the held-out pairs right: the Bayes ceiling. The stage `reward` learns from such pairs,
from a decoder with random weights, and is judged by the pairs that it commits figures of.
"""

import math
import random
from pathlib import Path
from tempfile import TemporaryDirectory

from contract.conversation import Preference, Turn
from contract.plan import Run
from contract.results import Reward, result_of
from perf.align.rewarded import commit_pairs, job_of, make, make_run
from perf.bars import Bars
from tests.training.conftest import THINGS

TRAIN, HELDOUT = 12_000, 4000
SHORT, LONG = 3, 8  # words of a reply
SPREAD = 0.8  # standard deviation of a word's weight
GAP = 0.02
RECIPE = """
name: known-reward
pack: {seq_len: 64}
judge: {share: 0}
pretrain: {model: {layers: 2, d_model: 64, heads: 4, kv_heads: 4, d_ff: 128}}
sft: {max_tokens: 64}
reward:
  max_tokens: 64
  epochs: 2
  batch: 64
  optim: {lr: 2.0e-3, weight_decay: 0.0, warmup_fraction: 0.05}
  engine: {micro_batch: 64, checkpoint_steps: 10000}
ppo: {max_prompt_tokens: 24, max_response_tokens: 24}
"""


def run(bars: Bars, data: Path) -> None:
    with TemporaryDirectory() as folder:
        made = make_run(Path(folder), RECIPE)
        _commit_decoder(made)
        weights = word_weights(random.Random(1))
        train, heldout = (pairs(count, seed, weights) for count, seed in ((TRAIN, 2), (HELDOUT, 3)))
        commit_pairs(made, train, heldout)
        found = Reward.of(make(made, "reward"))
        ceiling = sum(true_reward(one.chosen, weights) > true_reward(one.rejected, weights) for one in heldout) / len(
            heldout
        )
        print(
            f"accuracy {found.accuracy:.4f} of the model, {ceiling:.4f} of the true reward on the same "
            f"{found.heldout_pairs:,} pairs; calibration error {found.ece:.4f}"
        )
        bars.at_most("reward_bayes_gap", ceiling - found.accuracy, GAP)


def word_weights(rng: random.Random) -> dict[str, float]:
    """The weight of each word."""
    return {word: rng.gauss(0, SPREAD) for word in THINGS}


def true_reward(reply: str, weights: dict[str, float]) -> float:
    """The sum of the weights of a reply's words."""
    return sum(weights[word] for word in reply.split())


def pairs(count: int, seed: int, weights: dict[str, float]) -> list[Preference]:
    """Pairs of unlike replies to prompts that all differ, each ranked by a draw."""
    rng, made = random.Random(seed), []
    while len(made) < count:
        both = [" ".join(rng.choices(THINGS, k=rng.randint(SHORT, LONG))) for _ in range(2)]
        one, other = (true_reward(reply, weights) for reply in both)
        if one == other:
            continue
        if rng.random() > 1 / (1 + math.exp(other - one)):
            both.reverse()
        made.append(Preference((Turn("user", f"Say {seed} {len(made)}"),), *both))
    return made


def _commit_decoder(made: Run) -> None:
    """Commit a decoder with random weights as the SFT model."""
    from training.chat.template import open_chat
    from training.models import llama as model

    job = job_of(made, "sft")
    chat = open_chat(job)
    shape = made.recipe.pretrain.model
    module = model.build(shape, chat.vocab_size, 64, seed=0, end_of_text=chat.end_of_text, pad=chat.pad)
    folder = job.scratch.fresh("decoder")
    model.save(module, folder, chat)
    job.commit(folder, result_of("sft").model_construct())
