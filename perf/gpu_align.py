"""SFT, the reward model and PPO on one GPU, for `python -m perf.gpu --only 500m`.

Models are fresh and chats are random ids, so nothing is downloaded and nothing is learned; all else is the stages' own:
engine, attention, losses, packing, sampling and the whole step of PPO. A fresh model hardly ever ends a reply, so every
reply has the most tokens that it may have, and no row leaves the batch early.
"""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from contract import recipe as recipes
from contract.accelerators import ACCELERATORS, Accelerator
from contract.conversation import Turn
from contract.recipe import Recipe
from contract.settings.training import Model, Optim
from contract.sizes import parameters
from perf.bars import Bars
from perf.gpu import memory, wait
from training import estimate, ppo
from training.data.batch import Batch
from training.data.prompts import Asked, Prompts, PromptSet
from training.data.rows import Encoded, dealt, several_each
from training.engine.engine import Engine
from training.engine.metrics import Curves
from training.engine.ranks import Ranks, join
from training.experience import Actors
from training.models import llama
from training.models.frozen import frozen
from training.models.lm import learn
from training.models.scalar import RewardModel
from training.reward import Ranked, losses_of, rewards_of

END = 0
Figures = dict[str, float | None]
"""What a process found, by name; None: not counted, as the memory of a CPU."""
SHARE = 0.5
"""Of a PPO step, at most so much is to be spent sampling."""
SPARED = ("ppo.critic=head", "ppo.offload_frozen=true", "ppo.engine.offload_optimizer=true")
"""What spares most memory on one GPU; see docs/alignment.md."""


@dataclass(frozen=True)
class Sizes:
    """A model, the rows that run at once, and the lengths of chats."""

    name: str
    model: str
    vocabulary: int
    seq_len: int
    rows: int
    """Of a micro-batch of SFT; half as many pairs of the reward model; as many replies of PPO."""
    replies: int
    """Of a step of PPO."""
    prompt: int
    reply: int
    deepest: int
    """The deepest policy that is tried for size."""

    def recipe(self, *overrides: str) -> Recipe:
        engine = f"{{dtype: bf16, zero_stage: 1, processes: 1, micro_batch: {self.rows}}}"
        return recipes.load(
            "base",
            (
                f"pretrain.model={self.model}", f"tokenizer.vocab_size={self.vocabulary}", f"pack.seq_len={self.seq_len}",
                *(f"{stage}.engine={engine}" for stage in ("pretrain", "sft", "reward", "judge", "ppo", "evaluate")),
                f"sft.max_tokens={self.seq_len}", f"sft.batch={2 * self.rows}", f"reward.max_tokens={self.seq_len // 2}",
                f"pretrain.batch={2 * self.rows}", f"reward.batch={2 * self.rows}", f"ppo.rollout_batch={self.replies}",
                f"ppo.minibatch={2 * self.rows}", f"ppo.max_prompt_tokens={self.prompt}",
                f"ppo.max_response_tokens={self.reply}", *overrides,
            ),
        )  # fmt: skip


SIZES = Sizes(
    "500m", "{layers: 24, d_model: 1280, heads: 20, kv_heads: 20, d_ff: 3456}", 50_304, 1024, 16, 256, 256, 256, 200
)
SMALL = Sizes("small-align", "{layers: 2, d_model: 32, heads: 2, kv_heads: 2, d_ff: 64}", 400, 64, 2, 8, 16, 12, 1)


def made(recipe: Recipe) -> Any:
    """A fresh model in the recipe's shape, in float32 on the CPU."""
    size = recipe.tokenizer.vocab_size
    return llama.build(recipe.pretrain.model, size, recipe.pack.seq_len, 0, "bf16", end_of_text=END, pad=END)


def job_of(stage: str, settings: Any, ranks: Ranks | None = None) -> Any:
    """What a stage's code asks of its job, but for a store."""
    return SimpleNamespace(task=SimpleNamespace(stage=stage), settings=settings, ranks=ranks or join(), curves=Curves())


def chats(count: int, most: int, vocabulary: int, seed: int) -> list[Encoded]:
    """Chats of an eighth of `most` tokens up to all of them, of which the second half are a reply."""
    random = np.random.default_rng(seed)
    sizes = random.integers(max(2, most // 8), most, size=count, endpoint=True)
    return [
        (random.integers(1, vocabulary, size=size).tolist(), [0] * (size // 2) + [1] * (size - size // 2))
        for size in map(int, sizes)
    ]


def timed(step: Callable[[int], int], steps: int, device: torch.device) -> Figures:
    """Tokens a second of `steps` steps, each of which returns its tokens, after as many to warm up."""
    for number in range(steps):
        step(number)
    wait(device)
    began = time.perf_counter()
    tokens = sum(step(steps + number) for number in range(steps))
    wait(device)
    return {"tokens_per_s": tokens / (time.perf_counter() - began), "memory": memory(device)}


def sft(sizes: Sizes, steps: int, compiled: bool) -> Figures:
    """Packed chats, which do not see each other; padding counts as nothing."""
    settings = sizes.recipe("sft.packing=true", f"sft.engine.compile={str(compiled).lower()}").sft
    job, module = job_of("sft", settings), made(sizes.recipe())
    llama.set_attention(job, module, settings.engine.dtype, apart=True)
    engine = Engine(job, module, _constant(settings.optim), settings.engine, settings.batch, 1000)

    def step(number: int) -> int:
        examples = chats(3 * settings.batch, settings.max_tokens, sizes.vocabulary, number)
        rows = dealt(examples, settings.max_tokens)[: settings.batch]
        batch: Batch = several_each(rows, END)
        learn(job, engine, batch)
        engine.step()
        return sum(len(ids) for row in rows for ids, _ in row)

    return timed(step, steps, job.ranks.device)


def reward(sizes: Sizes, steps: int, compiled: bool) -> Figures:
    """Pairs of replies to a prompt."""
    recipe = sizes.recipe(
        f"reward.engine.compile={str(compiled).lower()}", f"reward.engine.micro_batch={max(1, sizes.rows // 2)}"
    )
    settings, module = recipe.reward, RewardModel(made(recipe).model, 0)
    job = job_of("reward", settings)
    engine = Engine(job, module, _constant(settings.optim), settings.engine, settings.batch, 1000)

    def step(number: int) -> int:
        found = [ids for ids, _ in chats(2 * settings.batch, settings.max_tokens, sizes.vocabulary, number)]
        both = zip(found[::2], found[1::2], strict=True)
        pairs = [Ranked([], [*two], ["", ""], [None, None], [(0, 1)], frozenset()) for two in both]
        for start in range(0, len(pairs), engine.micro_batch):
            part = pairs[start : start + engine.micro_batch]
            rewards = rewards_of(engine, [ids for one in part for ids in one.chats], END, job.ranks.device)
            engine.backward(losses_of(rewards, part, "pairwise", 1.0).total / len(part))
        engine.step()
        return sum(map(len, found))

    return timed(step, steps, job.ranks.device)


def replying(sizes: Sizes, steps: int, *overrides: str, depth: int | None = None) -> Figures:
    """Whole steps of PPO: what they sample and learn a second, and the share of their time that sampling takes."""
    more = () if depth is None else (f"pretrain.model={{depth: {depth}}}",)
    recipe = sizes.recipe(*overrides, *more)
    job = job_of("ppo", recipe.ppo)
    learner = ppo.Learner(job, _chat(sizes), _prompts(recipe.ppo.rollout_batch), actors_of(job, recipe))
    warm = learner.step(0, None)
    found = [learner.step(1 + number, None) for number in range(steps)] or [warm]
    told = ("sampled_tokens_per_s", "learned_tokens_per_s", "sampling_share", "step_s", "response_length")
    return {name: fmean(one[name] for one in found) for name in told} | {"memory": memory(job.ranks.device)}


def actors_of(job: Any, recipe: Recipe) -> Actors:
    """The four models of PPO, all fresh."""
    settings, module = recipe.ppo, made(recipe)
    critic = judge = RewardModel(deepcopy(module.model), 0)
    critic = ppo.headed(judge) if settings.critic == "head" else deepcopy(judge)
    reference, engine = deepcopy(module), settings.engine
    learners = (
        Engine(job, module, settings.policy_optim, engine, settings.minibatch, ppo.updates(settings)),
        Engine(job, critic, settings.value_optim, engine, settings.minibatch, ppo.updates(settings)),
    )
    still = [frozen(job, one, engine, settings.offload_frozen) for one in (reference, judge)]
    return Actors(*learners, *still, shared=settings.critic == "head")


def _chat(sizes: Sizes) -> Any:
    """Prompts of half their most tokens up to all of them; replies are not read."""

    def prompt(turns: Sequence[Turn], most: int) -> list[int]:
        random = np.random.default_rng(int(turns[0].text))
        return random.integers(1, sizes.vocabulary, size=random.integers(most // 2, most, endpoint=True)).tolist()

    return SimpleNamespace(end_of_text=END, prompt=prompt)


def _prompts(count: int) -> PromptSet:
    asked = Prompts(range(4 * count), lambda row: Asked((Turn("user", str(row)),), (), row))
    return PromptSet(asked, Prompts((), lambda row: asked[row]))


def _constant(optim: Optim) -> Optim:
    return optim.model_copy(update={"schedule": "constant", "warmup_fraction": 0.0})


def fits(sizes: Sizes, depth: int, *overrides: str) -> Figures:
    """Whether a step of PPO with a policy of this depth fits the device: 1 or 0."""
    more = ("ppo.engine.activation_checkpointing=true", "ppo.engine.zero_stage=2", *overrides)
    try:
        return {"fits": 1, **replying(sizes, 0, *more, depth=depth)}
    except torch.OutOfMemoryError:
        return {"fits": 0}


def deepest(does_fit: Callable[[int], bool], guess: int, most: int) -> int:
    """The largest depth up to `most` that fits, 0 if none does. Each try takes minutes, so they begin at the guess."""
    low, high, at = 0, most + 1, min(max(guess, 1), most)
    step = max(1, guess // 8)
    while high - low > 1:
        low, high = (at, high) if does_fit(at) else (low, at)
        middle = max(high - step, 1) if low == 0 else (low + high) // 2
        at = min(low + step, most) if high == most + 1 else middle
    return low


def estimated(sizes: Sizes, *overrides: str) -> int:
    """The depth that `python -m training estimate` thinks the deepest that fits this device; an H100 without one."""
    gpu: Accelerator = ACCELERATORS["h100"]
    if torch.cuda.is_available():
        gpu = replace(gpu, memory=float(torch.cuda.get_device_properties(0).total_memory))
    more = ("ppo.engine.activation_checkpointing=true", "ppo.engine.zero_stage=2", *overrides)
    found = estimate.largest(sizes.recipe(*more), gpu)
    return _depth_of(found.parameters, sizes.vocabulary) if found else 0


def _depth_of(count: int, vocabulary: int) -> int:
    return next(depth for depth in range(1, 1025) if policy_of(depth, vocabulary) >= count)


def policy_of(depth: int, vocabulary: int) -> int:
    """The parameters of a policy of this depth."""
    return parameters(Model(depth=depth), vocabulary) if depth else 0


KINDS: dict[str, Callable[[Sizes, int, bool], Figures]] = {
    "sft": sft,
    "reward": reward,
    "ppo": lambda sizes, steps, compiled: replying(sizes, max(1, steps // 5), "ppo.cuda_graphs=true"),
    "ppo without CUDA graphs": lambda sizes, steps, compiled: replying(sizes, max(1, steps // 5)),
}
LARGEST: dict[str, tuple[str, ...]] = {"largest policy": (), "largest policy, spared": SPARED}


def measure(kind: str, sizes: Sizes, steps: int, compiled: bool, depth: int | None) -> Figures:
    """What one process finds."""
    if kind in LARGEST:
        assert depth is not None, "the depth to try"
        return fits(sizes, depth, *LARGEST[kind])
    return KINDS[kind](sizes, steps, compiled)


def report(bars: Bars, sizes: Sizes, run: Callable[[str, int | None], Figures | None]) -> None:
    """Print what is measured of a model, and hold PPO against its bar.

    `run` measures a kind, at a depth if it asks for one, in a process of its own; it returns None if that failed.
    """
    count, share = parameters(sizes.recipe().pretrain.model, sizes.vocabulary), 1.0
    for kind in KINDS:
        found = run(kind, None)
        print(f"{sizes.name}, {count:,} parameters, {kind}: {described(found) if found else 'failed'}", flush=True)
        share = min(share, (found or {}).get("sampling_share") or 1.0)
    bars.at_most(f"ppo_sampling_share_{sizes.name}", share, SHARE)
    for kind, overrides in LARGEST.items():
        guess = estimated(sizes, *overrides)

        def does_fit(depth: int, kind: str = kind) -> bool:
            found = run(kind, depth)
            if found is None:
                raise ChildProcessError(f"failed at depth {depth}")
            return bool(found["fits"])

        try:
            depth = deepest(does_fit, guess, sizes.deepest)
        except ChildProcessError as error:
            print(f"{sizes.name}, {kind}: {error}", flush=True)
            bars.exactly(f"{kind.replace(', ', '_').replace(' ', '_')}_measured", 0, 1)
            continue
        print(f"{sizes.name}, {kind}: {told(depth, guess, sizes)}", flush=True)


def told(depth: int, guess: int, sizes: Sizes) -> str:
    """The deepest policy that fits, beside the one of the estimate."""
    most = ", the deepest that was tried" if depth == sizes.deepest else ""
    own, theirs = (f"{policy_of(one, sizes.vocabulary):,} parameters" for one in (depth, guess))
    return f"{own} at depth {depth}{most}; by the estimate {theirs} at depth {guess}"


def described(found: Figures) -> str:
    """What was measured of a kind, in a line."""
    if "sampling_share" in found:
        said = (
            f"{found['sampled_tokens_per_s']:,.0f} sampled and {found['learned_tokens_per_s']:,.0f} learned tokens/s, "
            f"{found['sampling_share']:.0%} of a step of {found['step_s']:.1f} s spent sampling, "
            f"{found['response_length']:.0f} tokens a reply"
        )
    else:
        said = f"{found['tokens_per_s']:,.0f} tokens/s"
    most = found["memory"]
    return f"{said}, memory not counted" if most is None else f"{said}, {most / 1e9:.1f} GB"
