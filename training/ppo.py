"""PPO with InstructGPT's objective: E[r - beta log(pi_RL / pi_SFT)] + gamma E_pretrain[log pi_RL].

Each step in `run` samples replies, scores them, turns rewards into advantages, and improves policy and critic. Sampling
and scoring are split over the processes. Then every process gets the experience of the whole batch (a few numbers per
token), so whitening, minibatches and figures do not depend on the number of processes. All randomness follows from the
recipe's seed and the step. A resume therefore needs only weights, optimizers, the KL coefficient and the step, and
continues bit for bit.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from contract import results
from contract.errors import InputError
from contract.kinds import Kind
from contract.metrics import Point, Progress
from contract.mixture import schedule
from contract.settings.training import Ppo
from training import loss, reward
from training.chat.template import Chat, Cut, count_cuts, open_chat
from training.data.batch import Batch
from training.data.drawing import Draws
from training.data.examples import distinct_prompts, read_pairs
from training.data.order import rows_of, share_of
from training.data.reading import TokenData
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.metrics import of_machine
from training.models import llama as model
from training.models.llama import AnyModule
from training.models.lm import summed_nll
from training.reward import RewardModel
from training.rollout import generate, response_logits, row_seed

LEARNT = ("policy_loss", "value_loss", "entropy", "clip_fraction", "ptx_loss")


@dataclass(frozen=True)
class Experience:
    """One step's replies and their scores, with N rows, P prompt positions and R response positions.

    tokens, attention (N, P + R). mask (N, R). log_probs, reference, values (N, R): log-probabilities under the sampling
    policy and under the reference, and the critic's values, all 0 where the mask is 0. scores (N,): normalised rewards.
    ended (N,): 1 where the reply ended with end-of-text.
    """

    tokens: Tensor
    attention: Tensor
    mask: Tensor
    log_probs: Tensor
    reference: Tensor
    values: Tensor
    scores: Tensor
    ended: Tensor


@dataclass(frozen=True)
class Actors:
    """The four models: policy and critic learn, reference and reward model are frozen."""

    policy: Engine
    critic: Engine
    reference: nn.Module
    reward: RewardModel


@torch.no_grad()
def collect(
    actors: Actors,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    width: int,
    chat: Chat,
    settings: Ppo,
    anyone: Callable[[bool], bool] = bool,
) -> Experience:
    """Sample one reply to each prompt and evaluate it with every model.

    `rollout.generate` explains `width` and `anyone`.
    """
    policy, critic = actors.policy.module, actors.critic.module
    length, temperature = settings.max_response_tokens, settings.temperature
    sampled = generate(policy, prompts, seeds, length, chat.end_of_text, temperature, width, anyone)
    length = sampled.mask.shape[1]
    judged: list[tuple[Tensor, ...]] = []
    for tokens, attention in zip(
        *(whole.split(settings.engine.micro_batch) for whole in (sampled.tokens, sampled.attention)), strict=True
    ):
        seen = [response_logits(module, tokens, attention, length) for module in (policy, actors.reference)]
        both = [loss.log_probs(logits, tokens[:, -length:], temperature) for logits in seen]
        # The critic gives a state's value at the token before the one that is chosen in that state.
        values = critic(tokens, attention)[:, -length - 1 : -1]
        judged.append((*both, values, reward.last(actors.reward(tokens, attention), attention)))
    log_probs, reference, values, scores = (torch.cat(parts) for parts in zip(*judged, strict=True))
    mask, ended = sampled.mask, sampled.ended(chat.end_of_text).float()
    return Experience(
        sampled.tokens, sampled.attention, mask, log_probs * mask, reference * mask, values * mask, scores, ended
    )


def gather(job: Job, mine: Experience) -> Experience:
    """The rows of all processes, in the order of the ranks."""
    if job.ranks.world == 1:
        return mine

    def whole(part: Tensor) -> Tensor:  # as a tensor: pickled, 64 rows of 512 numbers take 3.6 ms instead of 0.8
        parts = [torch.empty_like(part) for _ in range(job.ranks.world)]
        torch.distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    return Experience(**{field.name: whole(getattr(mine, field.name)) for field in fields(mine)})


def estimate_advantages(
    experience: Experience, kl_coef: float, settings: Ppo
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Whitened advantages and returns, both (N, R), and the step's figures. A reply without end-of-text pays a penalty.

    Of the figures, `reward` is the normalised reward alone; `objective` is what PPO maximises, which includes the
    penalties and the KL term; `kl` is in nats per reply.
    """
    mask = experience.mask
    kl = loss.kl_penalty(experience.log_probs, experience.reference)
    scores = experience.scores - settings.no_eot_penalty * (1 - experience.ended)
    rewards = loss.shape_rewards(scores, kl, mask, kl_coef)
    figures = {
        "reward": float(experience.scores.mean()),
        "objective": float(rewards.sum(-1).mean()),
        "kl": float(loss.sequence_log_probs(kl, mask).mean()),
        "kl_coef": kl_coef,
        "response_length": float(mask.sum(-1).mean()),
        "eot_fraction": float(experience.ended.mean()),
    }
    if settings.whiten_rewards:
        rewards = loss.whiten(rewards, mask, shift_mean=False)
    advantages, returns = loss.gae(rewards, experience.values, mask, settings.gamma, settings.lam)
    figures["explained_variance"] = loss.explained_variance(experience.values, returns, mask)
    return loss.whiten(advantages, mask), returns, figures


def improve(
    job: Job,
    actors: Actors,
    seen: Experience,
    targets: tuple[Tensor, Tensor],
    packed: Iterator[Batch] | None,
    step: int,
    asked: Sequence[int],
) -> dict[str, float]:
    """Make all updates of a step: the inner epochs over the experience, in minibatches.

    `asked` has the number of the pair that each row of the experience took its prompt from. Returns the LEARNT figures,
    as means over the updates.
    """
    settings: Ppo = job.settings
    plan = minibatches(step, settings)
    sums = torch.zeros(len(LEARNT), device=job.ranks.device)
    for rows in plan:
        ptx = next(packed).counted(job.ranks) if packed else None
        sums += update(job, actors, seen, targets, rows, ptx) / len(plan)
        for name, engine in (("policy", actors.policy), ("critic", actors.critic)):
            engine.report_skip(step + 1, [("", asked[row]) for row in rows], f"{name} update", len(plan))
    return dict(zip(LEARNT, job.ranks.sum(*sums.tolist()), strict=True))


def update(
    job: Job, actors: Actors, seen: Experience, targets: tuple[Tensor, Tensor], rows: list[int], ptx: Batch | None
) -> Tensor:
    """One update of policy and critic on a minibatch, `rows` of the experience. `targets` are advantages and returns.

    Losses are means over the tokens of the whole minibatch, and the PTX loss over those of the whole PTX batch; neither
    depends on the number of processes and parts. Returns this process's part of the LEARNT figures.
    """
    settings: Ppo = job.settings
    policy, critic = actors.policy, actors.critic
    length, temperature = seen.mask.shape[1], settings.temperature
    parts = policy.accumulation
    count = float(seen.mask[rows].sum())
    scale = job.ranks.world * parts  # the engine averages over the parts of all processes
    sums = torch.zeros(len(LEARNT), device=job.ranks.device)
    for part, mine in enumerate(
        torch.tensor(share_of(rows, job.ranks.rank, job.ranks.world)).split(policy.micro_batch)
    ):
        tokens, attention, mask = seen.tokens[mine], seen.attention[mine], seen.mask[mine]
        logits = response_logits(policy, tokens, attention, length)
        new, old = loss.log_probs(logits, tokens[:, -length:], temperature), seen.log_probs[mine]
        policy_loss = loss.masked_mean(loss.policy_loss(new, old, targets[0][mine], settings.clip), mask, count)
        with torch.set_grad_enabled(settings.entropy_coef > 0):
            entropy = loss.masked_mean(loss.entropy(logits, temperature), mask, count)
        pretraining = ptx_loss(policy, ptx, part, parts, job.ranks.device)
        total = policy_loss - settings.entropy_coef * entropy + settings.ptx_coef * pretraining
        policy.backward(total * scale)

        values = critic(tokens, attention)[:, -length - 1 : -1]
        missed = loss.value_loss(values, seen.values[mine], targets[1][mine], settings.value_clip)
        value_loss = loss.masked_mean(missed, mask, count)
        critic.backward(settings.value_coef * value_loss * scale)
        clipped = loss.masked_mean(loss.clipped(new, old, settings.clip), mask, count)
        sums += torch.stack([policy_loss, value_loss, entropy, clipped, pretraining]).detach()
    policy.step()
    critic.step()
    return sums


def ptx_loss(policy: Engine, batch: Batch | None, part: int, parts: int, device: torch.device) -> Tensor:
    """One part's share of the pretraining loss; 0 without a PTX batch.

    The loss is -log pi_RL per token, a mean over the tokens of the whole PTX batch.
    """
    mine = batch.rows(slice(part, None, parts)) if batch else None
    if not mine or not len(mine.tokens):
        return torch.zeros((), device=device)
    return summed_nll(policy, mine, device) / mine.count


def minibatches(step: int, settings: Ppo) -> list[list[int]]:
    """The rows of each update of a step: every inner epoch uses every row once, in its own order."""
    count = settings.rollout_batch // settings.minibatch
    seed = row_seed(settings.seed, step)
    return [
        rows_of(index, settings.minibatch, settings.rollout_batch, seed)
        for index in range(settings.inner_epochs * count)
    ]


def updates(settings: Ppo) -> int:
    """The updates of the policy over all steps."""
    return settings.steps * settings.inner_epochs * (settings.rollout_batch // settings.minibatch)


def pretraining_text(job: Job) -> Draws:
    """The draws of pretraining text, one batch for each update, from the recipe's `pretrain.mixture`."""
    settings: Ppo = job.settings
    data = TokenData(job, Kind.TOKENS, job.setting("pack.seq_len"), job.setting("pretrain.boundaries"))
    plan = schedule([(updates(settings), job.setting("pretrain.mixture"), data.sources)], settings.ptx_sequences)
    return Draws([data], plan, settings.seed)


def start(job: Job) -> Actors:
    """The four models at the start: policy and reference from `sft`, critic and reward from `reward`."""
    settings: Ppo = job.settings
    sft, judge = job.manifest("sft"), job.manifest("reward")
    learning, dtype = (settings.engine, settings.minibatch, updates(settings)), settings.engine.dtype
    return Actors(
        Engine(job, model.load_model(job, sft, dtype), settings.policy_optim, *learning),
        Engine(job, reward.load_reward_model(job, judge, dtype), settings.value_optim, *learning),
        frozen(job, model.load_model(job, sft, dtype), settings),
        frozen(job, reward.load_reward_model(job, judge, dtype), settings),
    )


def frozen(job: Job, module: AnyModule, settings: Ppo) -> AnyModule:
    """A frozen model, in the precision of those that learn; its buffers keep their own precision."""
    return model.cast(module, settings.engine.dtype).to(job.ranks.device).eval().requires_grad_(False)


def run(job: Job) -> None:
    settings: Ppo = job.settings
    gate = results.Gate.of(job.manifest("gate"))
    if not gate.open:
        raise InputError(
            f"gate is closed: the reward model's held-out accuracy is {gate.low:.3f} at the interval's lower end, "
            f"under gate.min_accuracy {gate.threshold:g}; give reward more or better pairs"
        )
    chat = open_chat(job)
    pairs = read_pairs(job, Kind.PAIRS)  # the held-out pairs are left for `evaluate`
    prompts = distinct_prompts(pairs)
    actors = start(job)
    engines = {"policy": actors.policy, "critic": actors.critic}

    def anyone(flag: bool) -> bool:
        return job.ranks.sum(float(flag))[0] > 0

    note = ""
    step, extra = checkpoint.restore(job, engines)
    kl_coef = extra.get("kl_coef", settings.kl_coef)
    progress = Progress(job.task.stage, job.task.partition, "steps", settings.steps, step)
    job.curves.steps = settings.steps
    text = pretraining_text(job).stream(job.ranks, actors.policy.steps_done) if settings.ptx_coef else nullcontext()
    with text as packed:
        while step < settings.steps:
            began = time.perf_counter()
            rows = [prompts[row] for row in rows_of(step, settings.rollout_batch, len(prompts), settings.seed)]
            asked = [chat.prompt(pairs[row].prompt, settings.max_prompt_tokens) for row in rows]
            seeds = [row_seed(settings.seed, step, row) for row in range(len(asked))]
            mine, my_seeds = (share_of(whole, job.ranks.rank, job.ranks.world) for whole in (asked, seeds))
            seen = gather(job, collect(actors, mine, my_seeds, max(map(len, asked)), chat, settings, anyone))
            advantages, returns, figures = estimate_advantages(seen, kl_coef, settings)

            figures |= improve(job, actors, seen, (advantages, returns), packed, step, rows)
            if settings.kl_target:
                kl_coef = loss.adapt_kl_coef(kl_coef, figures["kl"], settings.kl_target)
            step += 1

            job.curves.add(step, **figures, **of_machine(job.ranks, time.perf_counter() - began))
            if job.ranks.rank == 0:
                note = f"reward {figures['reward']:.3f} kl {figures['kl']:.3f}"
                progress.advance(1, note)
            checkpoint.save_when_due(job, step, settings.steps, engines, {"kl_coef": kl_coef})
    checkpoint.save_last(job, step, engines, {"kl_coef": kl_coef})
    if job.ranks.rank == 0:
        progress.finish(note)

    def cuts_of(row: int) -> frozenset[Cut]:
        return chat.fit_prompt(pairs[row].prompt, settings.max_prompt_tokens)[1]

    finish(job, actors, chat, count_cuts(job, prompts, cuts_of))


def finish(job: Job, actors: Actors, chat: Chat, cuts: dict[str, int]) -> None:
    """Commit the policy as the model, the critic beside it, and the figures of the first and last step.

    `cuts` counts the prompts that were cut, by kind.
    """
    folder, beside = job.scratch.fresh(f"result-{job.ranks.rank}"), job.scratch.fresh(f"critic-{job.ranks.rank}")
    model.save(actors.policy.module, folder, chat, job.ranks.rank, actors.policy.weights())
    model.save(actors.critic.module, beside, chat, job.ranks.rank, actors.critic.weights())
    kinds = {"critic.safetensors": Kind.CRITIC, "critic.json": Kind.CRITIC}
    if job.ranks.rank == 0:
        os.replace(beside / "model.safetensors", folder / "critic.safetensors")
        os.replace(beside / "config.json", folder / "critic.json")
    job.commit(folder, results.Ppo(cuts={"prompts": cuts}, **actors.policy.figures() | ends(job.curves.points)), kinds)


def ends(points: Sequence[Point]) -> dict[str, float]:
    """The first and the last value of every curve that `results.Ppo` has, as `<name>_first` and `<name>_last`."""
    return {
        f"{point.name}_{end}": point.value
        for end, order in (("first", reversed(points)), ("last", points))
        for point in order
        if f"{point.name}_{end}" in results.Ppo.model_fields
    }
