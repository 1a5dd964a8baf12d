"""Measure every model of the run on the same held-out text and the same held-out prompts.

The result holds perplexity and bits per byte of the pretrained, the instruction-tuned and the PPO model, the share of
prompts for which a reward model prefers PPO's reply to the SFT model's, in a round of feedback also to that of the last
round's model, and a few chats to read. Two reward models are
asked: the one that PPO optimised, and the judge, which PPO never saw. A model is flagged if it is worse than that of
the stage before by more than chance explains.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import nn

from contract import results
from contract.approval import without_ppo
from contract.conversation import Conversation, Turn, opening
from contract.errors import Interrupted
from contract.kinds import Kind
from contract.manifest import Manifest, need
from contract.metrics import Progress
from contract.settings.training import Evaluate
from evals.compare import drops, win_rate
from evals.heldout import totals
from training import reward
from training.chat.template import Chat, open_chat
from training.data.examples import distinct_prompts, own_pairs
from training.data.reading import TokenData
from training.engine.job import Job
from training.models import llama as model
from training.models.encoder import EncoderReward
from training.models.lm import token_nll
from training.rollout import generate, row_seed

JUDGES = ("reward", "judge")
"""The stages whose reward models are asked; PPO optimised the first, and never saw the second."""
LAST = "last"
"""The name of the last round's model beside those of the stages."""
WIN_RATES_HIGH = ("win_rate_high", "judge_win_rate_high")


@dataclass(frozen=True)
class Replies:
    """One model's replies to the prompts: their token ids, and the normalised rewards of each stage's reward model."""

    ids: list[list[int]]
    rewards: dict[str, list[float]] = field(default_factory=dict)


def parts(job: Job, rows: int) -> Iterator[range]:
    """This process's micro-batches of `rows` rows; all processes together cover every row once."""
    size = job.settings.engine.micro_batch
    for start in range(job.ranks.rank * size, rows, job.ranks.world * size):
        yield range(start, min(start + size, rows))


@torch.no_grad()
def heldout_losses(job: Job, module: nn.Module, data: TokenData, heldout: Sequence[int]) -> list[float]:
    """Mean negative log-likelihood in nats per token of each of these held-out sequences.

    Every process returns the losses of all sequences.
    """
    losses: dict[int, float] = {}
    for rows in parts(job, len(heldout)):
        batch = data.rows([heldout[row] for row in rows])
        mask = batch.mask.to(job.ranks.device)
        nll = (token_nll(module, batch, job.ranks.device) * mask).double().sum(-1) / mask.sum(-1).clamp(min=1)
        losses.update(zip(rows, nll.tolist(), strict=True))
    return job.ranks.rows(losses)


def heldout_sizes(data: TokenData, heldout: Sequence[int], chat: Chat) -> list[tuple[int, int]]:
    """(predicted tokens, bytes that they spell) of each of these held-out sequences."""
    lengths = torch.from_numpy(chat.token_bytes())
    batches = (data.rows([row]) for row in heldout)
    return [(batch.count, int((lengths[batch.tokens[:, 1:]] * batch.mask).sum())) for batch in batches]


@torch.no_grad()
def reply(job: Job, module: nn.Module, prompts: list[list[int]], chat: Chat) -> Replies:
    """One sampled reply to each prompt; every model gets the same random numbers. Every process returns all replies."""
    settings: Evaluate = job.settings
    own: dict[int, list[int]] = {}
    for rows in parts(job, len(prompts)):
        seeds = [row_seed(settings.seed, row) for row in rows]
        some = prompts[rows.start : rows.stop]
        sampled = generate(module, some, seeds, settings.max_response_tokens, chat.end_of_text)
        own.update(zip(rows, sampled.texts(), strict=True))
    return Replies(job.ranks.rows(own))


def of_last_round(job: Job, prompts: list[list[int]], chat: Chat) -> dict[str, Replies]:
    """The replies of the last round's model under its name; nothing if the recipe names none."""
    settings: Evaluate = job.settings
    if not settings.last:
        return {}
    module = load_for_evaluation(job, need(job.store, job.task.elsewhere[0]))
    return {LAST: reply(job, module, prompts, chat)}


@torch.no_grad()
def rewards(
    job: Job,
    module: nn.Module,
    asked: Sequence[Conversation],
    prompts: list[list[int]],
    ids: list[list[int]],
    chat: Chat,
) -> list[float]:
    """The reward of each reply to its prompt, which is given as turns and as tokens; on every process those of all."""
    own: dict[int, float] = {}
    for rows in parts(job, len(prompts)):
        if isinstance(module, EncoderReward):
            texts = [chat.decode(ids[row]) for row in rows]
            found = reward.rewards_of_texts(module, [asked[row] for row in rows], texts, job.ranks.device)
        else:
            chats = [prompts[row] + ids[row] for row in rows]
            found = reward.rewards_of(module, chats, chat.pad, job.ranks.device)
        own.update(zip(rows, found.tolist(), strict=True))
    return job.ranks.rows(own)


def sample_rows(asked: Sequence[Sequence[Turn]], replies: dict[str, Replies], chat: Chat, count: int) -> bytes:
    """The first `count` prompts with the replies before and after PPO, as JSON lines; null without PPO."""
    lines = []
    for row, turns in enumerate(asked[:count]):
        shown: dict[str, Any] = {"prompt": "\n\n".join(turn.text for turn in turns)}
        for name, stage in (("before", "sft"), ("after", "ppo")):
            found = replies.get(stage)
            shown[name] = chat.decode(found.ids[row]).strip() if found else None
            for judge in JUDGES:
                given = found.rewards.get(judge) if found else None
                shown[f"{judge}_{name}"] = given[row] if given else None
        lines.append(json.dumps(shown, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def run(job: Job) -> None:
    settings: Evaluate = job.settings
    chat = open_chat(job)
    data = TokenData(job, Kind.HELDOUT_TOKENS, job.setting("pack.seq_len"), job.setting("pretrain.boundaries"))
    aligned: str = job.setting("align")
    tuned_is_last = without_ppo(job.store, job.manifest("gate"), job.task.read(aligned)[0])
    stages = ["pretrain", "sft", *([] if tuned_is_last else ["ppo"])]
    heldout = data.sample(settings.sequences)
    sizes = heldout_sizes(data, heldout, chat)
    tokens = sum(predicted for predicted, _ in sizes)
    pairs = own_pairs(job, Kind.HELDOUT_PAIRS)
    asked = [pairs[row].prompt for row in distinct_prompts(pairs, settings.prompts)]
    prompts = [chat.prompt(turns, job.setting("ppo.max_prompt_tokens")) for turns in asked]

    metrics: dict[str, Any] = {
        "heldout_sequences": len(heldout),
        "heldout_tokens": tokens,
        "prompts": len(prompts),
        "aligned_by": aligned,
    }
    replies = of_last_round(job, prompts, chat)
    losses: dict[str, list[float]] = {}
    progress = Progress(job.task.stage, job.task.partition, "models", len(stages))
    for stage in stages:
        module = load_for_evaluation(job, job.manifest(aligned if stage == "ppo" else stage))
        if tokens:
            losses[stage] = heldout_losses(job, module, data, heldout)
            found = totals(losses[stage], sizes)
            metrics |= {f"perplexity_{stage}": found.perplexity, f"bits_per_byte_{stage}": found.bits_per_byte}
        if stage != "pretrain":
            replies[stage] = reply(job, module, prompts, chat)
        if job.ranks.rank == 0:
            progress.advance(1, stage)
        if job.ranks.stopping():
            raise Interrupted(f"{job.task.stage}: stopped after {stage}; nothing is kept, run again to start afresh")
    if job.ranks.rank == 0:
        progress.finish()
    for judge, module in judges(job):
        clusters = [opening(turns) for turns in asked]
        metrics |= judged(
            judge, module, replies, clusters, lambda one, ids: rewards(job, one, asked, prompts, ids, chat)
        )
    dropped = drops(stages, losses, [metrics[name] for name in WIN_RATES_HIGH if name in metrics])
    metrics |= {f"worse_{stage}": stage in dropped for stage in stages[1:]}
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    (folder / "samples.jsonl").write_bytes(sample_rows(asked, replies, chat, settings.samples))
    job.commit(folder, results.Evaluate(**metrics), {"samples.jsonl": Kind.SAMPLES})


def judges(job: Job) -> Iterator[tuple[str, nn.Module]]:
    """The reward model that PPO optimised, and the judge if the recipe asks for one: one at a time on the device."""
    dtype = job.settings.engine.dtype
    asked = results.Judge.of(job.manifest("judge")).pairs
    for judge in JUDGES if asked else JUDGES[:1]:
        module = reward.load_reward_model(job, job.manifest(judge), dtype)
        yield judge, model.cast(module, dtype).to(job.ranks.device).eval()


def judged(
    judge: str,
    module: nn.Module,
    replies: dict[str, Replies],
    clusters: Sequence[str],
    rewards_of: Callable[[nn.Module, list[list[int]]], list[float]],
) -> dict[str, float]:
    """The mean reward of each model's replies by one reward model, and PPO's win rate by it; it also notes the rewards.

    In a round of feedback, also the win rate of the newest model over that of the last round. clusters: how each prompt
    opens; dialogues with one opening are not independent. Figures of the reward model that PPO optimised have its plain
    names, those of the judge begin with `judge`.
    """
    figures: dict[str, float] = {}
    for stage, one in replies.items():
        one.rewards[judge] = rewards_of(module, one.ids)
        if stage != LAST:
            figures[f"{judge}_{stage}"] = fmean(one.rewards[judge])
    newest = "ppo" if "ppo" in replies else "sft"
    whose = "" if judge == "reward" else f"{judge}_"
    for early, prefix in (("sft", whose), (LAST, f"{whose}last_")):
        if early in replies and early != newest:
            won = win_rate(replies[early].rewards[judge], replies[newest].rewards[judge], clusters)
            figures |= {f"{prefix}{name}": value for name, value in won.items()}
    return figures


def load_for_evaluation(job: Job, manifest: Manifest) -> nn.Module:
    """A committed model in the recipe's precision, on the device and in evaluation mode."""
    dtype = job.settings.engine.dtype
    module: nn.Module = model.cast(model.load_model(job, manifest, dtype), dtype)
    return module.to(job.ranks.device).eval()
