"""Group relative policy optimisation: PPO without a critic. A reply is as good as it is beside others to its prompt.

maximise E[min(ratio A, clip(ratio) A) - beta KL(pi || pi_SFT)], each reply's mean over its tokens (Shao et al. 2024,
DeepSeekMath, eq. 3 and 4). The rewards are the reward model's or those of known answers.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from contract import results
from contract.kinds import Kind
from contract.metrics import Progress
from contract.settings.training import Grpo
from training import loss, reward
from training.chat.template import Chat, Cut, count_cuts, open_chat
from training.data.order import share_of
from training.data.prompts import PromptSet, read_prompts
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.metrics import of_machine
from training.experience import (
    Actors,
    Experience,
    anyone,
    assess,
    collect,
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
from training.models.frozen import frozen
from training.models.policy import load_policy, reference_of, save_policy
from training.rollout import response_logits

LEARNT = ("policy_loss", "kl_loss", "entropy", "clip_fraction", "ratio", "kl_update")


def advantages_of(seen: Experience, settings: Grpo) -> Tensor:
    """The advantage of each reply, (N,), which all of its tokens have. One without end-of-text pays a penalty first."""
    scores = seen.scores - settings.no_eot_penalty * (1 - seen.ended)
    return loss.group_advantages(scores, settings.group_size, settings.by_deviation)


def update(job: Job, policy: Engine, seen: Experience, advantages: Tensor, rows: list[int]) -> Tensor:
    """One update of the policy on a minibatch, `rows` of the experience; this process's part of the LEARNT figures.

    The loss is a mean over the replies of the minibatch, of each reply's mean over its tokens.
    """
    settings: Grpo = job.settings
    length, temperature = seen.mask.shape[1], settings.temperature
    scale = job.ranks.world * policy.accumulation  # the engine averages over the parts of all processes
    sums = torch.zeros(len(LEARNT), device=job.ranks.device)
    for mine in torch.tensor(share_of(rows, job.ranks.rank, job.ranks.world)).split(policy.micro_batch):
        tokens, mask = seen.tokens[mine], seen.mask[mine]
        weight = mask / mask.sum(-1, keepdim=True).clamp(min=1) / len(rows)
        logits = response_logits(policy, tokens, seen.attention[mine], length)
        new, old = loss.log_probs(logits, tokens[:, -length:], temperature), seen.log_probs[mine]
        policy_loss = (loss.policy_loss(new, old, advantages[mine, None], settings.clip) * weight).sum()
        kl = (loss.kl_k3(new, seen.reference[mine]) * weight).sum()
        policy.backward((policy_loss + settings.kl_coef * kl) * scale)
        with torch.no_grad():
            told = (
                loss.entropy(logits, temperature),
                loss.clipped(new, old, settings.clip),
                (new - old).exp(),
                loss.kl_k3(old, new),
            )
            sums += torch.stack([policy_loss, kl, *((one * weight).sum() for one in told)]).detach()
    policy.step()
    return sums


def improve(
    job: Job, policy: Engine, seen: Experience, advantages: Tensor, step: int, asked: Sequence[int]
) -> dict[str, float]:
    """Make the updates of a step, which end early at `kl_stop`; the LEARNT figures, as means over the updates.

    `asked` has the row that each prompt was read from.
    """
    settings: Grpo = job.settings
    plan = minibatches(step, settings)
    found: list[list[float]] = []
    for rows in plan:
        sums = job.ranks.sum(*update(job, policy, seen, advantages, rows).tolist())
        policy.report_skip(step + 1, [("", asked[row]) for row in rows], "update", len(plan))
        found.append([*sums, policy.norm])
        if settings.kl_stop and sums[LEARNT.index("kl_update")] > settings.kl_stop:
            break
    means = torch.tensor(found, dtype=torch.float64).mean(0).tolist()
    return {**dict(zip((*LEARNT, "grad_norm"), means, strict=True)), "updates": len(found)}


def start(job: Job) -> Actors:
    """The models at the start: policy and reference from `sft`, and the reward model, if it gives rewards."""
    settings: Grpo = job.settings
    engine, dtype = settings.engine, settings.engine.dtype
    total = settings.steps * updates_of_step(settings)
    policy = Engine(job, load_policy(job), settings.optim, engine, settings.minibatch, total)
    judge = None
    if settings.reward != "answers":
        loaded = reward.load_reward_model(job, job.manifest("reward"), dtype)
        judge = frozen(job, loaded, engine, settings.offload_frozen)
    return Actors(policy, None, reference_of(job, policy), judge, sampler=sampler_of(job))


def learn(job: Job, actors: Actors, chat: Chat, prompts: PromptSet, step: int) -> dict[str, float]:
    """One step, counted from 0; its figures."""
    settings: Grpo = job.settings
    began = time.perf_counter()
    asked, rows = questions(prompts.training, chat, step, settings, settings.group_size)
    mine, width = share_of(asked, job.ranks.rank, job.ranks.world), max(len(one.ids) for one in asked)
    own, sampling = collect(actors, mine, width, chat, settings, anyone(job))
    seen = gather(job, own)
    advantages = advantages_of(seen, settings)
    learning = time.perf_counter()
    figures = figures_of(seen, settings) | improve(job, actors.policy, seen, advantages, step, rows)
    ended = time.perf_counter()
    speed = speeds(seen, settings, figures["updates"], sampling, ended - learning, ended - began)
    equal = float((advantages.view(-1, settings.group_size) == 0).all(1).float().mean())
    return {**figures, "equal_groups": equal, **speed, **of_machine(job.ranks, ended - began)}


def run(job: Job) -> None:
    settings: Grpo = job.settings
    require_open_gate(job)
    chat, prompts, actors = open_chat(job), read_prompts(job), start(job)
    engines, note = {"policy": actors.policy}, ""
    step, extra = checkpoint.restore(job, engines)
    samples: list[dict[str, Any]] = extra.get("samples", [])

    def look(step: int) -> None:
        found = assess(job, actors, prompts.heldout, chat, step)
        job.curves.add(step, **found.figures)
        samples.extend(found.samples)

    if step == 0:
        look(0)
    progress = Progress(job.task.stage, job.task.partition, "steps", settings.steps, step)
    job.curves.steps = settings.steps
    while step < settings.steps:
        figures = learn(job, actors, chat, prompts, step)
        step += 1
        job.curves.add(step, **figures)
        if job.ranks.rank == 0:
            note = f"reward {figures['reward']:.3f} kl {figures['kl']:.3f}"
            progress.advance(1, note)
        if step % settings.eval_steps == 0 and step < settings.steps:
            look(step)
        checkpoint.save_when_due(job, step, settings.steps, engines, {"samples": samples})
    checkpoint.save_last(job, step, engines, {"samples": samples})
    look(step)
    if job.ranks.rank == 0:
        progress.finish(note)
    finish(job, actors, chat, prompts, samples)


def finish(job: Job, actors: Actors, chat: Chat, prompts: PromptSet, samples: list[dict[str, Any]]) -> None:
    """Commit the policy, samples, and the figures of the first and last step."""
    settings: Grpo = job.settings
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    save_policy(job, actors.policy, chat, folder)
    if job.ranks.rank == 0:
        (folder / "samples.jsonl").write_bytes(dump_samples(samples))

    def cuts_of(row: int) -> frozenset[Cut]:
        return chat.fit_prompt(prompts.training[row].prompt, settings.max_prompt_tokens)[1]

    cuts = {"prompts": count_cuts(job, range(len(prompts.training)), cuts_of)}
    told = {**actors.policy.figures(), **ends(job.curves.points, results.Grpo)}
    result = results.Grpo(cuts=cuts, **told)
    job.commit(folder, result, {"samples.jsonl": Kind.SAMPLES})
