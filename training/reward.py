"""The reward model learns from people's preferences which of several replies they like better.

It starts from the SFT model, with a scalar head in place of the unembedding. One convention holds everywhere: **the
reward of a chat is the head's output at its last token**, which is the end-of-text token of a complete response. The
committed model gives normalised rewards: on held-out preferred replies their mean is 0 and their standard deviation 1,
so that PPO's numbers mean the same in every run.

All replies to one prompt go through the model together, and each two of which people prefer one are a pair: so a prompt
with K replies counts once, and not K (K - 1) / 2 times, which would overfit (InstructGPT, section 3.5).
"""

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn

from contract import results
from contract.conversation import opening
from contract.errors import InputError
from contract.kinds import Kind
from contract.metrics import Progress
from contract.settings.training import Reward
from evals.calibration import reliability
from evals.rewards import Judged, comparisons, histograms, ranking_figures, regression_figures
from training.chat.template import Chat, Cut, count_cuts, open_chat
from training.data.examples import read_pairs
from training.data.order import rows_of, share_of
from training.data.rankings import Ranking, Rankings
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.metrics import of_machine
from training.loss import pairwise_loss
from training.models import llama as model
from training.models import vocabulary
from training.models.lm import finite
from training.models.scalar import RewardModel, last, load_reward_model, normalised
from training.rollout import left_pad

__all__ = ["RewardModel", "last", "load_reward_model"]  # of the model, for those that use one

CALIBRATION = "calibration.json"
WORST, TEXT_CHARS = 50, 2000  # pairs that people read, and how much of each of their texts
Objective = Literal["pairwise", "regression", "both"]


class Unfit(StrEnum):
    """Why a prompt is left out: what its replies became when they were cut, or that nobody scored them."""

    EQUAL = "equal"
    """The same tokens, so that nothing tells the better from the worse."""
    LOST_END = "lost_end"
    """No pair is left of which both have their end-of-text, at which the reward is read."""
    NO_SCORES = "no_scores"
    """They are ranked and not scored, which regression cannot learn from."""


@dataclass(frozen=True)
class Ranked:
    """Replies to one prompt: whole chats as tokens, the tokens and the text of each reply, and people's scores.

    `pairs` are the places of (a better, a worse) reply, `weights` those of the pairs in the loss, 1 if none are given.
    `cuts`: what was taken so that they fit.
    """

    chats: list[list[int]]
    sizes: list[int]
    texts: list[str]
    scores: list[float | None]
    pairs: list[tuple[int, int]]
    cuts: frozenset[Cut]
    weights: tuple[float, ...] = ()

    @property
    def scored(self) -> bool:
        """Whether people scored any of the replies."""
        return any(score is not None for score in self.scores)


def ranked(chat: Chat, ranking: Ranking, max_tokens: int) -> Ranked:
    """The replies to a prompt as tokens, all after the same tokens of the prompt.

    Replies that lost their end are left out, and so are pairs of replies that became the same.
    """
    fit = chat.fit(ranking.prompt, ranking.replies, max_tokens)
    whole = [place for place, ids in enumerate(fit.replies) if ids[-1] == chat.end_of_text]
    places = {place: index for index, place in enumerate(whole)}
    pairs = [
        (places[better], places[worse], weight)
        for better, worse, weight in ranking.weighted
        if better in places and worse in places and fit.replies[better] != fit.replies[worse]
    ]
    return Ranked(
        [fit.prompt + fit.replies[place] for place in whole],
        [len(fit.replies[place]) for place in whole],
        [ranking.replies[place] for place in whole],
        [ranking.scores[place] for place in whole],
        [(better, worse) for better, worse, _ in pairs],
        fit.cuts,
        tuple(weight for *_, weight in pairs),
    )


def unfit(found: Ranked, objective: Objective) -> Unfit | None:
    """Why replies cannot be learned from once they are cut; None if they can."""
    if objective == "regression" and found.chats:
        return None if found.scored else Unfit.NO_SCORES
    if found.pairs:
        return None
    return Unfit.LOST_END if Cut.REPLY in found.cuts else Unfit.EQUAL


def sift(
    job: Job, settings: Reward, chat: Chat, rankings: Rankings, objective: Objective
) -> tuple[Rankings, Counter[Unfit]]:
    """The prompts that can be learned from within `max_tokens`, and how many cannot, by reason; the same everywhere.

    Raises InputError if none can be.
    """
    own: dict[int, Unfit] = {}
    for row in range(job.ranks.rank, len(rankings), job.ranks.world):
        if reason := unfit(ranked(chat, rankings[row], settings.max_tokens), objective):
            own[row] = reason
    dropped = {row: reason for part in job.ranks.gather(own) for row, reason in part.items()}
    counts = Counter(dropped.values())
    if rankings and len(dropped) == len(rankings):
        why = ", ".join(f"{reason.value} {count:,}" for reason, count in counts.most_common())
        raise InputError(
            f"{job.task.stage}: none of {len(rankings):,} prompts keeps replies that can be compared within "
            f"reward.max_tokens {settings.max_tokens} ({why}); raise it, or give preferences other data"
        )
    return rankings.without(dropped), counts


def for_judge(prompt: str, share: float) -> bool:
    """Whether the replies to dialogues that open with this prompt are the judge's. A larger share only adds prompts."""
    return int.from_bytes(hashlib.sha256(f"judge\0{prompt}".encode()).digest()[:8]) < share * 2**64


def divided(job: Job, rankings: Rankings, share: float, judge: bool) -> Rankings:
    """The training prompts of the reward model, or those of the judge, which are others.

    Raises InputError if there are none.
    """
    others = {row for row, one in enumerate(rankings) if for_judge(opening(one.prompt), share) != judge}
    mine = rankings.without(others)
    if not len(mine):
        raise InputError(
            f"{job.task.stage}: judge.share {share:g} leaves it none of {len(rankings):,} training prompts; "
            f"{'raise' if judge else 'lower'} it, or set it to 0 to do without a second reward model"
        )
    return mine


def rewards_of(module: Any, chats: Sequence[Sequence[int]], pad: int, device: torch.device) -> Tensor:
    """The reward of each chat, with gradients: (rows,)."""
    tokens, attention = left_pad(chats, pad, device)
    return last(module(tokens, attention), attention)


@dataclass(frozen=True)
class Losses:
    """Of some prompts, as sums over them: what is minimised, its parts, and the share of their pairs ranked right."""

    total: Tensor
    pairwise: Tensor
    regression: Tensor
    right: Tensor


def losses_of(rewards: Tensor, groups: Sequence[Ranked], objective: Objective, coef: float) -> Losses:
    """The loss of each prompt, summed. `rewards` (rows,) has those of the replies of all groups, one after the other.

    pairwise: -log sigmoid(r_better - r_worse) times the pair's weight, a mean over a prompt's pairs (InstructGPT, eq.
    1). The share of pairs that are ranked right is not weighted. regression: the mean squared error of a prompt's
    rewards as scores. both: the former plus `coef` times the latter.
    """
    starts = [sum(len(one.chats) for one in groups[:number]) for number in range(len(groups))]
    pairs = [
        (start + better, start + worse, 1 / len(one.pairs), weight)
        for start, one in zip(starts, groups, strict=True)
        for (better, worse), weight in zip(one.pairs, one.weights or (1.0,) * len(one.pairs), strict=True)
    ]
    known = [
        (start + place, score, 1 / sum(other is not None for other in one.scores))
        for start, one in zip(starts, groups, strict=True)
        for place, score in enumerate(one.scores)
        if score is not None
    ]
    values = rewards.float()
    chosen, rejected = (values[[pair[side] for pair in pairs]] for side in (0, 1))
    share, weight = (torch.tensor([pair[at] for pair in pairs], device=rewards.device) for at in (2, 3))
    pairwise = (pairwise_loss(chosen, rejected) * share * weight).sum()
    right = (((chosen > rejected).float() + 0.5 * (chosen == rejected).float()) * share).sum()
    scores, each = (torch.tensor([one[at] for one in known], device=rewards.device) for at in (1, 2))
    regression = ((values[[one[0] for one in known]] - scores) ** 2 * each).sum()
    total = {"pairwise": pairwise, "regression": regression, "both": pairwise + coef * regression}[objective]
    return Losses(total, pairwise.detach(), regression.detach(), right.detach())


@torch.no_grad()
def score_groups(
    job: Job, settings: Reward, module: nn.Module, chat: Chat, rankings: Sequence[Ranking]
) -> list[list[float]]:
    """The rewards of the replies to each prompt, in the order of `ranked`, on every process."""
    own: dict[int, list[float]] = {}
    size = settings.engine.micro_batch
    starts = range(0, len(rankings), size)
    for turn in range(math.ceil(len(starts) / job.ranks.world)):
        # A process without work repeats the last part: under ZeRO 3, every process must join every forward pass.
        index = turn * job.ranks.world + job.ranks.rank
        start = starts[min(index, len(starts) - 1)]
        groups = [ranked(chat, one, settings.max_tokens) for one in rankings[start : start + size]]
        chats = [ids for one in groups for ids in one.chats]
        found = rewards_of(module, chats, chat.pad, job.ranks.device).split([len(one.chats) for one in groups])
        if index < len(starts):
            own.update(enumerate((rewards.tolist() for rewards in found), start))
    return job.ranks.rows(own)


def judged(ranking: Ranking, found: Ranked, rewards: Sequence[float]) -> Judged:
    """The replies to a held-out prompt with their rewards, for `evals.rewards`.

    Dialogues with one opening stand on one side of the split, so their pairs were drawn together.
    """
    return Judged(tuple(found.pairs), tuple(rewards), tuple(found.sizes), opening(ranking.prompt), ranking.task)


def calibration(
    rankings: Sequence[Ranking], numbers: Sequence[int], groups: Sequence[Ranked], seen: Sequence[Judged]
) -> dict[str, Any]:
    """What a person needs to see why the gate opened.

    `bins` of reliability, `histograms` of the rewards of better and worse replies, and the `worst` pairs with their
    texts: those whose worse reply got the most more reward, at most WORST. Rewards are those before normalisation, so
    that sigmoid(better - worse) is the probability that the model gives to the ranking. `row` is the example's number,
    one of `numbers`, among all that are held out. Texts are cut to TEXT_CHARS characters.
    """
    both = [(row, better, worse) for row, one in enumerate(seen) for better, worse in one.pairs]
    rewards = [(seen[row].rewards[better], seen[row].rewards[worse]) for row, better, worse in both]
    wrong = sorted((better - worse, at) for at, (better, worse) in enumerate(rewards) if better < worse)[:WORST]
    worst = []
    for margin, at in wrong:
        row, better, worse = both[at]
        prompt = "\n".join(f"{turn.role}: {turn.text}" for turn in rankings[row].prompt)
        texts = {"prompt": prompt, "chosen": groups[row].texts[better], "rejected": groups[row].texts[worse]}
        figures = {"row": numbers[row], "margin": margin}
        figures |= {"reward_chosen": rewards[at][0], "reward_rejected": rewards[at][1]}
        worst.append({**figures, **{name: text[:TEXT_CHARS] for name, text in texts.items()}})
    return {
        "bins": [vars(one) for one in reliability([one.margin for one in comparisons(seen)])],
        "histograms": histograms([one for one, _ in rewards], [one for _, one in rewards]),
        "worst": worst,
    }


def mean_score(rankings: Rankings) -> float:
    """The mean of all scores that people gave, at which a head that learns them starts; 0 without any."""
    return fmean([score for one in rankings for score in one.scores if score is not None] or [0.0])


def fresh(job: Job, settings: Reward, train: Rankings) -> RewardModel:
    """The reward model before the first step: the SFT model, or the one that the recipe brings, with a new head."""
    dtype = settings.engine.dtype
    if settings.start_from:
        found = vocabulary.brought_and_grown(job, open_chat(job), settings.start_from, dtype, "reward.start_from")
    else:
        found = model.load_model(job, job.manifest("sft"), dtype)
    module = RewardModel(found.base_model, settings.seed)
    if settings.objective != "pairwise":
        nn.init.constant_(module.head.bias, mean_score(train))
    return module


def run(job: Job) -> None:
    settings: Reward = job.settings
    rankings = divided(job, Rankings(read_pairs(job, Kind.PAIRS)), job.setting("judge.share"), judge=False)
    folder, figures = fit(job, settings, rankings)
    job.commit(folder, results.Reward(**figures), {CALIBRATION: Kind.CALIBRATION})


def fit(job: Job, settings: Reward, rankings: Rankings) -> tuple[Path, dict[str, Any]]:
    """Train a reward model on some of the training prompts.

    Returns the folder of its files and the figures of `results.Reward`.
    """
    chat = open_chat(job)
    train, dropped = sift(job, settings, chat, rankings, settings.objective)
    numbers = train.numbers
    steps = math.ceil(len(train) * settings.epochs / settings.batch)
    engine = Engine(job, fresh(job, settings, train), settings.optim, settings.engine, settings.batch, steps)

    note = ""
    step, _ = checkpoint.restore(job, {"model": engine})
    progress = Progress(job.task.stage, job.task.partition, "steps", steps, step)
    job.curves.steps = steps
    while step < steps:
        began = time.perf_counter()
        rows = rows_of(step, settings.batch, len(train), settings.seed)
        mine = share_of([train[row] for row in rows], job.ranks.rank, job.ranks.world)
        sums = torch.zeros(4, dtype=torch.float64)
        for start in range(0, len(mine), engine.micro_batch):
            part = mine[start : start + engine.micro_batch]
            groups = [ranked(chat, one, settings.max_tokens) for one in part]
            chats = [ids for one in groups for ids in one.chats]
            rewards = rewards_of(engine, chats, chat.pad, job.ranks.device)
            found = losses_of(rewards, groups, settings.objective, settings.regression_coef)
            engine.backward(found.total / len(part))
            sums += torch.stack([found.total.detach(), found.pairwise, found.regression, found.right]).double().cpu()
        rate, norm = engine.lr, engine.step()
        step += 1
        loss, ranking, error, right = (value / settings.batch for value in job.ranks.sum(*sums.tolist()))
        parts = {} if settings.objective == "pairwise" else {"pairwise_loss": ranking, "regression_loss": error}
        machine = of_machine(job.ranks, time.perf_counter() - began)
        job.curves.add(step, loss=loss, accuracy=right, lr=rate, grad_norm=norm, **parts, **machine)
        engine.report_skip(step, (("", numbers[row]) for row in rows))
        if job.ranks.rank == 0:
            note = f"loss {loss:.3f} accuracy {right:.2f}"
            progress.advance(1, note)
        checkpoint.save_when_due(job, step, steps, {"model": engine}, {})
    checkpoint.save_last(job, step, {"model": engine}, {})
    if job.ranks.rank == 0:
        progress.finish(note)
    return finish(job, settings, engine, chat, train, dropped)


def finish(
    job: Job, settings: Reward, engine: Engine, chat: Chat, train: Rankings, dropped: Counter[Unfit]
) -> tuple[Path, dict[str, Any]]:
    """Measure on the held-out pairs, normalise, and write what is to be committed: the folder, and the figures.

    It learned from the prompts `train`; `dropped` counts those that it could not learn from.
    """
    heldout, more = sift(job, settings, chat, Rankings(read_pairs(job, Kind.HELDOUT_PAIRS)), "pairwise")
    rewards = score_groups(job, settings, engine.module, chat, heldout)
    groups = [ranked(chat, one, settings.max_tokens) for one in heldout]
    seen = [judged(*one) for one in zip(heldout, groups, rewards, strict=True)]
    metrics = ranking_figures(seen)
    metrics |= regression_figures(
        [both for one, given in zip(groups, rewards, strict=True) for both in zip(one.scores, given, strict=True)]
    )
    finite(job, metrics["heldout_loss"], "held-out loss is {} at the end")
    weights = engine.weights()
    if weights:
        weights = normalised(weights, metrics["reward_mean"], max(metrics["reward_std"], 1e-6))
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    model.save(engine.module, folder, chat, job.ranks.rank, weights)
    (folder / CALIBRATION).write_text(json.dumps(calibration(heldout, heldout.numbers, groups, seen)))
    sides = {"training": (train, dropped), "heldout": (heldout, more)}
    cuts = {
        name: count_cuts(job, some, lambda one: ranked(chat, one, settings.max_tokens).cuts)
        for name, (some, _) in sides.items()
    }
    left_out = {name: {reason.value: counts[reason] for reason in Unfit} for name, (_, counts) in sides.items()}
    return folder, {"pairs": len(train), "dropped": left_out, "cuts": cuts, **metrics, **engine.figures()}
