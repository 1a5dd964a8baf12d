"""PPO with InstructGPT's objective: E[r - beta log(pi_RL / pi_SFT)] + gamma E_pretrain[log pi_RL].

Each step in `run` samples replies, scores them, turns rewards into advantages, and improves policy and critic
(`training.experience` has the first two). All randomness follows from the recipe's seed and the step. A resume
therefore needs only weights, optimizers, the KL coefficient, the moments of the rewards and the step, and continues bit
for bit.
"""

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from contract import results
from contract.errors import InputError
from contract.kinds import Kind
from contract.metrics import Progress
from contract.mixture import schedule
from contract.settings.training import Ppo
from training import loss, reward
from training.chat.template import Chat, Cut, count_cuts, open_chat
from training.data.batch import Batch
from training.data.drawing import Draws
from training.data.order import share_of
from training.data.prompts import PromptSet, read_prompts
from training.data.reading import TokenData
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.metrics import of_machine
from training.experience import (
    Actors,
    Experience,
    anyone,
    assess,
    best_of,
    collect,
    critic_awake,
    dump_samples,
    ends,
    figures_of,
    gather,
    minibatches,
    questions,
    require_open_gate,
    sampler_of,
    speeds,
    updates_of_step,
)
from training.models import llama as model
from training.models.frozen import frozen
from training.models.lm import summed_nll
from training.models.policy import load_policy, reference_of, save_policy
from training.models.scalar import RewardModel, ScalarHead
from training.rollout import response_logits, trimmed

LEARNT = ("policy_loss", "entropy", "clip_fraction", "ratio", "kl_update", "ptx_loss", "value_loss")
NORMS = ("grad_norm", "value_grad_norm")


def estimate_advantages(
    experience: Experience, kl_coef: float, settings: Ppo, moments: loss.Moments | None = None
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Whitened advantages and returns, both (N, R), and the step's figures. A reply without end-of-text pays a penalty.

    Of the figures, `objective` is what PPO maximises, which includes the penalties and the KL term. `moments` are those
    of all rewards so far, by which they are normalised if the settings say so.
    """
    mask, scores = experience.mask, experience.scores
    if settings.normalise_rewards and moments:
        scores = moments.scaled(scores)
    if settings.reward_clip:
        scores = scores.clamp(-settings.reward_clip, settings.reward_clip)
    penalty = loss.kl_penalty if settings.kl_estimator == "k1" else loss.kl_k3
    scores = scores - settings.no_eot_penalty * (1 - experience.ended)
    rewards = loss.shape_rewards(scores, penalty(experience.log_probs, experience.reference), mask, kl_coef)
    figures = figures_of(experience, settings)
    figures |= {"objective": float(rewards.sum(-1).mean()), "kl_coef": kl_coef}
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
    """Make the updates of a step: the inner epochs over the experience, in minibatches.

    They end early where the policy is `kl_stop` from the one that sampled. `asked` has the row that each prompt was
    read from. Returns the LEARNT figures and the NORMS, as means over the updates that were made.
    """
    settings: Ppo = job.settings
    plan = minibatches(step, settings)
    learns = step >= settings.value_warmup_steps
    found: list[list[float]] = []
    for rows in plan:
        ptx = next(packed).counted(job.ranks) if packed and learns else None
        sums = job.ranks.sum(*update(job, actors, seen, targets, rows, ptx, learns).tolist())
        engines = {"policy": actors.policy, "critic": actors.critic} if learns else {"critic": actors.critic}
        for name, engine in engines.items():
            assert engine is not None
            engine.report_skip(step + 1, [("", asked[row]) for row in rows], f"{name} update", len(plan))
        norms = [engine.norm if engine else math.nan for engine in (engines.get("policy"), actors.critic)]
        found.append([*sums, *norms])
        if settings.kl_stop and sums[LEARNT.index("kl_update")] > settings.kl_stop:
            break
    means = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
    return {**dict(zip((*LEARNT, *NORMS), means, strict=True)), "updates": len(found)}


def update(
    job: Job,
    actors: Actors,
    seen: Experience,
    targets: tuple[Tensor, Tensor],
    rows: list[int],
    ptx: Batch | None,
    learns: bool = True,
) -> Tensor:
    """One update of policy and critic on a minibatch, `rows` of the experience. `targets` are advantages and returns.

    Losses are means over the tokens of the whole minibatch, and the PTX loss over those of the whole PTX batch; neither
    depends on the number of processes and parts. Returns this process's part of the LEARNT figures. Unless the policy
    `learns`, its figures are NaN.
    """
    settings: Ppo = job.settings
    assert actors.critic is not None
    count = float(seen.mask[rows].sum())
    scale = job.ranks.world * actors.policy.accumulation  # the engine averages over the parts of all processes
    mine = torch.tensor(share_of(rows, job.ranks.rank, job.ranks.world)).split(actors.policy.micro_batch)
    sums = torch.zeros(len(LEARNT), device=job.ranks.device)
    sums[:-1] = 0.0 if learns else math.nan
    with critic_awake(actors):
        for part, some in enumerate(mine):
            if learns:
                sums[:-1] += _policy_part(job, actors.policy, seen, targets[0], some, count, ptx, part)
            length = seen.mask.shape[1]
            values = actors.critic(*trimmed(seen.tokens[some], seen.attention[some], length))[:, -length - 1 : -1]
            missed = loss.value_loss(values, seen.values[some], targets[1][some], settings.value_clip)
            value_loss = loss.masked_mean(missed, seen.mask[some], count)
            actors.critic.backward(settings.value_coef * value_loss * scale)
            sums[-1] += value_loss.detach()
    if learns:
        actors.policy.step()
    actors.critic.step()
    return sums


def _policy_part(
    job: Job,
    policy: Engine,
    seen: Experience,
    advantages: Tensor,
    some: Tensor,
    count: float,
    ptx: Batch | None,
    part: int,
) -> Tensor:
    """Backward of the policy's losses on one part of a minibatch of `count` tokens; its part of the LEARNT figures."""
    settings: Ppo = job.settings
    length, temperature = seen.mask.shape[1], settings.temperature
    tokens, mask = seen.tokens[some], seen.mask[some]
    logits = response_logits(policy, tokens, seen.attention[some], length)
    new, old = loss.log_probs(logits, tokens[:, -length:], temperature), seen.log_probs[some]
    policy_loss = loss.masked_mean(loss.policy_loss(new, old, advantages[some], settings.clip), mask, count)
    with torch.set_grad_enabled(settings.entropy_coef > 0):
        entropy = loss.masked_mean(loss.entropy(logits, temperature), mask, count)
    pretraining = ptx_loss(policy, ptx, part, policy.accumulation, job.ranks.device)
    total = policy_loss - settings.entropy_coef * entropy + settings.ptx_coef * pretraining
    policy.backward(total * job.ranks.world * policy.accumulation)
    with torch.no_grad():
        told = (loss.clipped(new, old, settings.clip), (new - old).exp(), loss.kl_k3(old, new))
        means = [loss.masked_mean(one, mask, count) for one in told]
    return torch.stack([policy_loss, entropy, *means, pretraining]).detach()


def ptx_loss(policy: Engine, batch: Batch | None, part: int, parts: int, device: torch.device) -> Tensor:
    """One part's share of the pretraining loss; 0 without a PTX batch.

    The loss is -log pi_RL per token, a mean over the tokens of the whole PTX batch.
    """
    mine = batch.rows(slice(part, None, parts)) if batch else None
    if not mine or not len(mine.tokens):
        return torch.zeros((), device=device)
    return summed_nll(policy, mine, device) / mine.count


def updates(settings: Ppo) -> int:
    """The updates of the policy over all steps, if none is left out."""
    return (settings.steps - settings.value_warmup_steps) * updates_of_step(settings)


def pretraining_text(job: Job) -> Draws:
    """The draws of pretraining text, one batch for each update, from the recipe's `pretrain.mixture`."""
    settings: Ppo = job.settings
    data = TokenData(job, Kind.TOKENS, job.setting("pack.seq_len"), job.setting("pretrain.boundaries"))
    plan = schedule([(updates(settings), job.setting("pretrain.mixture"), data.sources)], settings.ptx_sequences)
    return Draws([data], plan, settings.seed)


def start(job: Job) -> Actors:
    """The models at the start: policy and reference from `sft`, critic and reward from `reward`."""
    settings: Ppo = job.settings
    engine, trained, dtype = settings.engine, job.manifest("reward"), settings.engine.dtype
    policy = load_policy(job)
    judge: reward.AnyReward | None = None
    if settings.critic == "head" or settings.reward != "answers":
        judge = reward.load_reward_model(job, trained, dtype)
    critic = headed(judge) if judge and settings.critic == "head" else reward.critic_of(job, dtype)
    every = settings.steps * updates_of_step(settings)
    learners = (
        Engine(job, policy, settings.policy_optim, engine, settings.minibatch, updates(settings)),
        Engine(job, critic, settings.value_optim, engine, settings.minibatch, every),
    )
    judging = frozen(job, judge, engine, settings.offload_frozen) if judge else None
    return Actors(
        *learners, reference_of(job, learners[0]), judging, shared=settings.critic == "head", sampler=sampler_of(job)
    )


def headed(judge: reward.AnyReward) -> RewardModel:
    """A critic whose decoder is the reward model's own, which is frozen; its head starts as the reward model's.

    Raises InputError if the reward model is an encoder, which sees a whole reply and so has no value of its beginning.
    """
    if not isinstance(judge, RewardModel):
        raise InputError("ppo.critic head: the reward model is an encoder, which gives tokens no values; use own")
    judge.decoder.requires_grad_(False)
    critic = RewardModel(judge.decoder, seed=0)
    critic.head = ScalarHead(judge.head.in_features, 1)
    critic.head.load_state_dict(judge.head.state_dict())
    return critic


class Learner:
    """PPO between two steps: the models, and what a checkpoint holds besides them."""

    def __init__(self, job: Job, chat: Chat, prompts: PromptSet, actors: Actors) -> None:
        self.job, self.chat, self.prompts, self.actors = job, chat, prompts, actors
        self.kl_coef = job.settings.kl_coef
        self.moments = loss.Moments()
        self.samples: list[dict[str, Any]] = []

    @property
    def engines(self) -> dict[str, Engine]:
        assert self.actors.critic is not None
        return {"policy": self.actors.policy, "critic": self.actors.critic}

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return {"kl_coef": self.kl_coef, "moments": list(vars(self.moments).values()), "samples": self.samples}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave; nothing if it is empty."""
        if state:
            self.kl_coef, self.samples = state["kl_coef"], state["samples"]
            self.moments = loss.Moments(*state["moments"])

    def step(self, step: int, packed: Iterator[Batch] | None) -> dict[str, float]:
        """One step, counted from 0; its figures."""
        job, settings = self.job, self.job.settings
        began = time.perf_counter()
        asked, rows = questions(self.prompts.training, self.chat, step, settings)
        mine, width = share_of(asked, job.ranks.rank, job.ranks.world), max(len(one.ids) for one in asked)
        own, sampling = collect(self.actors, mine, width, self.chat, settings, anyone(job))
        seen = gather(job, own)
        self.moments = self.moments.seen(seen.scores)
        advantages, returns, figures = estimate_advantages(seen, self.kl_coef, settings, self.moments)

        learning = time.perf_counter()
        figures |= improve(job, self.actors, seen, (advantages, returns), packed, step, rows)
        ended = time.perf_counter()
        if settings.kl_target:
            self.kl_coef = loss.adapt_kl_coef(self.kl_coef, figures["kl"], settings.kl_target)
        speed = speeds(seen, settings, figures["updates"], sampling, ended - learning, ended - began)
        return {**figures, **speed, **of_machine(job.ranks, ended - began)}

    def assess(self, step: int) -> dict[str, float]:
        """Held-out figures after so many steps, which go to the curves, and samples, which are kept."""
        found = assess(self.job, self.actors, self.prompts.heldout, self.chat, step)
        self.job.curves.add(step, **found.figures)
        self.samples += found.samples
        return found.figures


def run(job: Job) -> None:
    settings: Ppo = job.settings
    require_open_gate(job)
    learner = Learner(job, open_chat(job), read_prompts(job), start(job))
    actors = learner.actors

    note = ""
    step, extra = checkpoint.restore(job, learner.engines)
    learner.restore(extra)
    if step == 0:
        learner.assess(0)
    progress = Progress(job.task.stage, job.task.partition, "steps", settings.steps, step)
    job.curves.steps = settings.steps
    text = pretraining_text(job).stream(job.ranks, actors.policy.steps_done) if settings.ptx_coef else nullcontext()
    with text as packed:
        while step < settings.steps:
            figures = learner.step(step, packed)
            step += 1
            job.curves.add(step, **figures)
            if job.ranks.rank == 0:
                note = f"reward {figures['reward']:.3f} kl {figures['kl']:.3f}"
                progress.advance(1, note)
            if step % settings.eval_steps == 0 and step < settings.steps:
                learner.assess(step)
            checkpoint.save_when_due(job, step, settings.steps, learner.engines, learner.state())
    checkpoint.save_last(job, step, learner.engines, learner.state())
    heldout = learner.assess(step)
    if job.ranks.rank == 0:
        progress.finish(note)
    finish(learner, heldout)


def finish(learner: Learner, heldout: dict[str, float]) -> None:
    """Commit the policy as the model, the critic beside it, samples, and the figures of the first and last step.

    `heldout`: the figures of the last evaluation, which are compared with the best of n replies of the SFT model.
    """
    job, chat, actors, prompts = learner.job, learner.chat, learner.actors, learner.prompts
    settings: Ppo = job.settings
    assert actors.critic is not None
    folder, beside = job.scratch.fresh(f"result-{job.ranks.rank}"), job.scratch.fresh(f"critic-{job.ranks.rank}")
    save_policy(job, actors.policy, chat, folder)
    model.save(actors.critic.module, beside, chat, job.ranks.rank, critic_weights(actors))
    kinds = {"critic.safetensors": Kind.CRITIC, "critic.json": Kind.CRITIC, "samples.jsonl": Kind.SAMPLES}
    if job.ranks.rank == 0:
        os.replace(beside / "model.safetensors", folder / "critic.safetensors")
        os.replace(beside / "config.json", folder / "critic.json")
        (folder / "samples.jsonl").write_bytes(dump_samples(learner.samples))

    def cuts_of(row: int) -> frozenset[Cut]:
        return chat.fit_prompt(prompts.training[row].prompt, settings.max_prompt_tokens)[1]

    measured = baseline(learner, heldout) if settings.best_of > 1 else {}
    cuts = {"prompts": count_cuts(job, range(len(prompts.training)), cuts_of)}
    told = {**actors.policy.figures(), **ends(job.curves.points, results.Ppo), **measured}
    job.commit(folder, results.Ppo(cuts=cuts, **told), kinds)


def critic_weights(actors: Actors) -> dict[str, Tensor]:
    """The whole critic's float32 weights, on rank 0: also those of a decoder that is frozen."""
    assert actors.critic is not None
    learned = actors.critic.weights()
    if not learned or not actors.shared:
        return learned
    with critic_awake(actors):
        whole = {name: one.detach().float().cpu() for name, one in actors.critic.module.state_dict().items()}
    return {**whole, **learned}


def baseline(learner: Learner, heldout: dict[str, float]) -> dict[str, Any]:
    """Best of n beside PPO on the same held-out prompts. Its KL divergence from the SFT model is an upper bound."""
    job, count = learner.job, learner.job.settings.best_of
    found = best_of(job, learner.actors, learner.prompts.heldout, learner.chat, count)
    if found is None:
        return {}
    return {
        "best_of": count,
        "best_of_reward": found.reward,
        "best_of_kl": loss.best_of_kl(count),
        "sft_reward": found.single,
        "heldout_reward": heldout["heldout_reward"],
        "beats_best_of": heldout["heldout_reward"] > found.reward,
    }
