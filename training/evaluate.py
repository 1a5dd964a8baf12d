"""Every model of the run on the same held-out text and the same held-out prompts.

Perplexity and bits per byte of the pretrained, the instruction-tuned and the PPO model; how often the reward model prefers PPO's
reply to the SFT model's; a few chats to read. A figure that got worse than in the stage before, by more than chance explains, is
flagged.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, fmean, stdev
from typing import Any

import torch
from torch import nn

from contract.errors import Interrupted
from contract.manifest import Manifest
from contract.metrics import Progress
from contract.settings.training import Evaluate
from training import reward
from training.chat.template import Chat, Turn, open_chat
from training.data.reading import TokenData
from training.engine.job import Job
from training.gate import wilson
from training.loss import log_probs
from training.models import llama as model
from training.models.lm import HeldOut
from training.rollout import generate, row_seed

CONFIDENCE = 0.95
MIN_RISE = 0.01  # nats a token, 1 % of perplexity: a smaller rise can be certain and still mean nothing


@dataclass(frozen=True)
class Replies:
    """One model's replies to the prompts: their ids, and their normalised rewards."""

    ids: list[list[int]]
    rewards: list[float]


def got_worse(before: Sequence[float], after: Sequence[float], confidence: float = CONFIDENCE) -> bool:
    """Whether the loss rose beyond noise: the lower end of the paired mean difference's normal interval is above MIN_RISE.

    One loss a sequence, in nats a token; the same sequences in both. With fewer than two nothing can be said: False.
    """
    differences = [late - early for early, late in zip(before, after, strict=True)]
    if len(differences) < 2:
        return False
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return fmean(differences) - z * stdev(differences) / math.sqrt(len(differences)) > MIN_RISE


def wins(before: Sequence[float], after: Sequence[float]) -> float:
    """How many of the second rewards are higher than the first of the same prompt; a tie counts half."""
    return sum((late > early) + 0.5 * (late == early) for early, late in zip(before, after, strict=True))


def parts(job: Job, rows: int) -> Iterator[range]:
    """This process's micro-batches of `rows` rows; all processes together see every row once."""
    size = job.settings.engine.micro_batch
    for start in range(job.rank * size, rows, job.world * size):
        yield range(start, min(start + size, rows))


@torch.no_grad()
def heldout_losses(job: Job, module: nn.Module, data: TokenData, count: int) -> list[float]:
    """Mean negative log-likelihood, nats a token, of each of the first `count` held-out sequences, on every process."""
    nats = torch.zeros(count, dtype=torch.float64)
    for rows in parts(job, count):
        batch = data.rows(list(rows))
        tokens, mask = batch.tokens.to(job.device), batch.mask.to(job.device)
        logits = module(input_ids=tokens[:, :-1], use_cache=False).logits
        nll = -(log_probs(logits, tokens[:, 1:]) * mask).double().sum(-1) / mask.sum(-1).clamp(min=1)
        nats[rows.start : rows.stop] = nll.cpu()
    return job.sum(*nats.tolist())


def heldout_sizes(data: TokenData, count: int, chat: Chat) -> list[tuple[int, int]]:
    """Of each of the first `count` held-out sequences: the tokens that are predicted, and the bytes that they spell."""
    lengths = torch.from_numpy(chat.token_bytes())
    batches = (data.rows([row]) for row in range(count))
    return [(one.count, int((lengths[one.tokens[:, 1:]] * one.mask).sum())) for one in batches]


def totals(losses: Sequence[float], sizes: Sequence[tuple[int, int]]) -> HeldOut:
    """The sums over all sequences."""
    nats = sum(loss * tokens for loss, (tokens, _) in zip(losses, sizes, strict=True))
    return HeldOut(nats, sum(tokens for tokens, _ in sizes), sum(size for _, size in sizes))


@torch.no_grad()
def reply(job: Job, module: nn.Module, judge: reward.RewardModel, prompts: list[list[int]], chat: Chat) -> Replies:
    """One sampled reply to each prompt, the same random numbers for every model, and its reward. On every process."""
    settings: Evaluate = job.settings
    # What the processes found travels as sums: ids are exact in float64, and one more than they are, so that 0 is no token.
    ids = torch.zeros(len(prompts), settings.max_response_tokens, dtype=torch.float64)
    rewards = torch.zeros(len(prompts), dtype=torch.float64)
    for rows in parts(job, len(prompts)):
        seeds = [row_seed(settings.seed, row) for row in rows]
        some = prompts[rows.start : rows.stop]
        sampled = generate(module, some, seeds, settings.max_response_tokens, chat.end_of_text)
        scores = judge(sampled.tokens, sampled.attention)
        rewards[rows.start : rows.stop] = reward.last(scores, sampled.attention).double().cpu()
        for row, found in zip(rows, sampled.texts(), strict=True):
            ids[row, : len(found)] = torch.tensor(found, dtype=torch.float64) + 1
    whole = torch.tensor(job.sum(*ids.flatten().tolist()), dtype=torch.long).view(ids.shape)
    return Replies([(row[row > 0] - 1).tolist() for row in whole], job.sum(*rewards.tolist()))


def compare(before: Replies, after: Replies) -> dict[str, float]:
    """How often the second model's reply has the higher reward."""
    won, count = wins(before.rewards, after.rewards), len(before.rewards)
    low, high = wilson(won, count, CONFIDENCE)
    return {"win_rate": won / count, "win_rate_low": low, "win_rate_high": high}


def sample_rows(asked: Sequence[Sequence[Turn]], replies: dict[str, Replies], chat: Chat, count: int) -> bytes:
    """The first prompts with the reply before PPO and the one after it, null where there was no PPO; JSON lines."""
    lines = []
    for row, turns in enumerate(asked[:count]):
        shown: dict[str, Any] = {"prompt": "\n\n".join(turn.text for turn in turns)}
        for name, stage in (("before", "sft"), ("after", "ppo")):
            found = replies.get(stage)
            shown[name] = chat.decode(found.ids[row]).strip() if found else None
            shown[f"reward_{name}"] = found.rewards[row] if found else None
        lines.append(json.dumps(shown, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def run(job: Job) -> None:
    settings: Evaluate = job.settings
    chat, data = open_chat(job), TokenData(job, "heldout_tokens")
    stages = ["pretrain", "sft", *(["ppo"] if job.manifest("gate").metrics["open"] else [])]
    count = min(settings.sequences, len(data))
    sizes = heldout_sizes(data, count, chat)
    tokens = sum(one for one, _ in sizes)
    asked = list(dict.fromkeys(pair.prompt for pair in reward.read_pairs(job).heldout))[: settings.prompts]
    prompts = [chat.prompt(turns, job.run.recipe.ppo.max_prompt_tokens) for turns in asked]
    dtype = settings.engine.dtype
    judge = model.cast(reward.load(job, job.manifest("reward"), dtype), dtype).to(job.device).eval()

    metrics: dict[str, Any] = {"heldout_sequences": count, "heldout_tokens": tokens, "prompts": len(prompts)}
    replies: dict[str, Replies] = {}
    losses: dict[str, list[float]] = {}
    progress = Progress(job.task.stage, job.task.partition, "models", len(stages))
    for stage in stages:
        module = load(job, job.manifest(stage))
        if tokens:
            losses[stage] = heldout_losses(job, module, data, count)
            found = totals(losses[stage], sizes)
            metrics |= {f"perplexity_{stage}": found.perplexity, f"bits_per_byte_{stage}": found.bits_per_byte}
        if stage != "pretrain":
            replies[stage] = reply(job, module, judge, prompts, chat)
            metrics[f"reward_{stage}"] = fmean(replies[stage].rewards)
        if job.rank == 0:
            progress.advance(1, stage)
        if job.stopping():
            raise Interrupted(f"{job.task.stage}: stopped after {stage}; nothing is kept, run again to start afresh")
    if job.rank == 0:
        progress.finish()
    if "ppo" in replies:
        metrics |= compare(replies["sft"], replies["ppo"])
    dropped = drops(stages, losses, metrics.get("win_rate_high"))
    metrics |= {f"worse_{stage}": stage in dropped for stage in stages[1:]}
    folder = job.fresh(f"result-{job.rank}")
    (folder / "samples.jsonl").write_bytes(sample_rows(asked, replies, chat, settings.samples))
    job.commit(folder, metrics, {"samples.jsonl": "samples"})


def load(job: Job, manifest: Manifest) -> nn.Module:
    """A committed model, in the recipe's precision, ready to be measured."""
    dtype = job.settings.engine.dtype
    return model.cast(model.load(job, manifest, dtype), dtype).to(job.device).eval()


def drops(stages: Sequence[str], losses: dict[str, list[float]], win_rate_high: float | None) -> set[str]:
    """The models that fell behind the stage before beyond noise, in held-out perplexity or, after PPO, in the reward."""
    found = {late for early, late in pairwise(stages) if early in losses and got_worse(losses[early], losses[late])}
    return found | ({"ppo"} if win_rate_high is not None and win_rate_high < 0.5 else set())
