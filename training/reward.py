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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn

from contract import results
from contract.conversation import Conversation, opening
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import Manifest
from contract.metrics import Progress
from contract.printable import printable
from contract.settings.training import Reward
from evals.calibration import reliability
from evals.rewards import Judged, comparisons, histograms, ranking_figures, regression_figures
from training.chat.template import Chat, Cut, open_chat
from training.data.branches import branched
from training.data.examples import read_pairs
from training.data.order import rows_of, share_of
from training.data.rankings import Ranking, Rankings
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.metrics import of_machine
from training.loss import pairwise_loss
from training.models import encoder, scalar, vocabulary
from training.models import llama as model
from training.models.causal import read_config
from training.models.encoder import EncoderReward, PairReader
from training.models.lm import finite
from training.models.scalar import RewardModel, last, normalised
from training.rollout import left_pad

__all__ = ["RewardModel", "last"]  # of the model, for those that use one

CALIBRATION = "calibration.json"
TASKS_TOLD = 10  # in a message
WORST, TEXT_CHARS = 50, 2000  # pairs that people read, and how much of each of their texts
AnyReward = RewardModel | EncoderReward
Reader = Chat | PairReader
"""What turns texts into a reward model's tokens: the policy's chat format, or an encoder's own."""
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
    """Replies to one prompt: both as tokens, the text of each reply, and people's scores.

    `pairs` are the places of (a better, a worse) reply, `weights` those of the pairs in the loss, 1 if none are given.
    `cuts`: what was taken so that they fit.
    """

    prompt: list[int]
    replies: list[list[int]]
    texts: list[str]
    scores: list[float | None]
    pairs: list[tuple[int, int]]
    cuts: frozenset[Cut]
    weights: tuple[float, ...] = ()

    @property
    def chats(self) -> list[list[int]]:
        """The prompt with each reply."""
        return [self.prompt + reply for reply in self.replies]

    @property
    def scored(self) -> bool:
        """Whether people scored any of the replies."""
        return any(score is not None for score in self.scores)


def ranked(chat: Reader, ranking: Ranking, max_tokens: int) -> Ranked:
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
        fit.prompt,
        [fit.replies[place] for place in whole],
        [ranking.replies[place] for place in whole],
        [ranking.scores[place] for place in whole],
        [(better, worse) for better, worse, _ in pairs],
        fit.cuts,
        tuple(weight for *_, weight in pairs),
    )


def unfit(found: Ranked, objective: Objective) -> Unfit | None:
    """Why replies cannot be learned from once they are cut; None if they can."""
    if objective == "regression" and found.replies:
        return None if found.scored else Unfit.NO_SCORES
    if found.pairs:
        return None
    return Unfit.LOST_END if Cut.REPLY in found.cuts else Unfit.EQUAL


@dataclass(frozen=True)
class Sifted:
    """The prompts that can be learned from, how many cannot, by reason, and how many of the former lost what."""

    kept: Rankings
    dropped: dict[str, int]
    cuts: dict[str, int]


def sift(job: Job, settings: Reward, chat: Reader, rankings: Rankings, objective: Objective) -> Sifted:
    """The prompts that can be learned from within `max_tokens`; on every process the same.

    Raises InputError if none can be.
    """
    own: dict[int, Unfit] = {}
    cuts: Counter[Cut] = Counter()
    for row in range(job.ranks.rank, len(rankings), job.ranks.world):
        found = ranked(chat, rankings[row], settings.max_tokens)
        if reason := unfit(found, objective):
            own[row] = reason
        else:
            cuts.update(found.cuts)
    parts = job.ranks.gather((own, cuts))
    dropped = {row: reason for part, _ in parts for row, reason in part.items()}
    counts = Counter(dropped.values())
    if rankings and len(dropped) == len(rankings):
        why = ", ".join(f"{reason.value} {count:,}" for reason, count in counts.most_common())
        raise InputError(
            f"{job.task.stage}: none of {len(rankings):,} prompts keeps replies that can be compared within "
            f"reward.max_tokens {settings.max_tokens} ({why}); raise it, or give preferences other data"
        )
    return Sifted(
        rankings.without(dropped),
        {reason.value: counts[reason] for reason in Unfit},
        {cut.value: sum(part[cut] for _, part in parts) for cut in Cut},
    )


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


def rewards_of_groups(module: Any, groups: Sequence[Ranked], pad: int, device: torch.device) -> Tensor:
    """The rewards of the replies to these prompts, one prompt after the other, with gradients: (replies,).

    Where the model can, each prompt runs through it once for all of its replies.
    """
    if not getattr(getattr(module, "module", module), "branches", False):  # an engine has the model as its module
        return rewards_of(module, [ids for one in groups for ids in one.chats], pad, device)
    made = branched([(one.prompt, one.replies) for one in groups], pad, device)
    values: Tensor = module(made.tokens, made.seen, made.positions)
    return values[made.rows, made.places]


def rewards_of_texts(
    module: EncoderReward, asked: Sequence[Conversation], replies: Sequence[str], device: torch.device
) -> Tensor:
    """The rewards of replies that a policy sampled, from an encoder, which reads their texts: (replies,)."""
    fits = [module.reader.fit(turns, [text], module.max_tokens) for turns, text in zip(asked, replies, strict=True)]
    return rewards_of(module, [fit.prompt + fit.replies[0] for fit in fits], module.reader.pad, device)


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
    starts = [0, *accumulate(len(one.replies) for one in groups[:-1])]
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
    job: Job, settings: Reward, module: nn.Module, chat: Reader, rankings: Sequence[Ranking]
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
        given = rewards_of_groups(module, groups, chat.pad, job.ranks.device)
        found = given.split([len(one.replies) for one in groups])
        if index < len(starts):
            own.update(enumerate((rewards.tolist() for rewards in found), start))
    return job.ranks.rows(own)


def judged(ranking: Ranking, found: Ranked, rewards: Sequence[float]) -> Judged:
    """The replies to a held-out prompt with their rewards, for `evals.rewards`.

    Dialogues with one opening stand on one side of the split, so their pairs were drawn together.
    """
    return Judged(
        tuple(found.pairs), tuple(rewards), tuple(map(len, found.replies)), opening(ranking.prompt), ranking.task
    )


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


def outside(job: Job, settings: Reward) -> Path | None:
    """The folder of the model that the recipe brings, if it is an encoder."""
    if not settings.start_from:
        return None
    folder = job.scratch.fetch(settings.start_from, vocabulary.READ)
    try:
        return folder if encoder.is_encoder(read_config(folder)) else None
    except model.LOADING:
        return None  # whoever loads it says what is wrong


def reader_of(job: Job, settings: Reward) -> Reader:
    """What reads texts for the reward model that is trained."""
    folder = outside(job, settings)
    return encoder.reader_of(folder) if folder else open_chat(job)


def fresh(job: Job, settings: Reward, train: Rankings) -> AnyReward:
    """The reward model before the first step: the SFT model, or the one that the recipe brings, with a new head."""
    dtype, where = settings.engine.dtype, f"reward.start_from: {settings.start_from}"
    module: AnyReward
    if folder := outside(job, settings):
        module = encoder.begun(folder, where, settings.max_tokens, settings.seed, dtype)
    else:
        if settings.start_from:
            chat, key = open_chat(job), "reward.start_from"
            found = vocabulary.brought_and_grown(job, chat, settings.start_from, dtype, key)
        else:
            found = model.load_model(job, job.manifest("sft"), dtype)
        module = RewardModel(found.base_model, settings.seed)
        module.share_prompts()
    if settings.objective != "pairwise":
        nn.init.constant_(module.head.bias, mean_score(train))
    return module


def load_reward_model(job: Job, manifest: Manifest, dtype: model.Dtype = "fp32") -> AnyReward:
    """The reward model that a stage committed, in float32 on the CPU, prepared to compute in `dtype`."""
    folder = model.fetch(job, manifest)
    try:
        own = encoder if encoder.is_encoder(read_config(folder)) else scalar
        found: AnyReward = own.load(folder, dtype)
    except model.LOADING as error:
        raise InputError(
            f"{job.store.full(manifest.path)}: its reward model cannot be loaded ({error}); run {manifest.stage} again"
        ) from error
    return found


def reader_for(module: nn.Module, chat: Chat) -> Reader:
    """What turns texts into the tokens of a reward model: `chat`, unless it has its own."""
    return module.reader if isinstance(module, EncoderReward) else chat


def critic_of(job: Job, dtype: model.Dtype) -> RewardModel:
    """PPO's critic before the first step: the reward model. Beside an encoder, which gives no value to each token, it
    is the SFT model with a head that begins at 0."""
    found = load_reward_model(job, job.manifest("reward"), dtype)
    if isinstance(found, RewardModel):
        return found
    critic = RewardModel(model.load_model(job, job.manifest("sft"), dtype).base_model, seed=0)
    nn.init.zeros_(critic.head.weight)
    return critic


def run(job: Job) -> None:
    settings: Reward = job.settings
    rankings = divided(job, Rankings(read_pairs(job, Kind.PAIRS)), job.setting("judge.share"), judge=False)
    folder, figures = fit(job, settings, rankings)
    job.commit(folder, results.Reward(**figures), {CALIBRATION: Kind.CALIBRATION})


@dataclass(frozen=True)
class Phase:
    """The prompts of a part of training, and the steps at which it begins and ends."""

    train: Rankings
    first: int
    end: int


def phases_of(job: Job, settings: Reward, rankings: Rankings) -> list[Rankings]:
    """The prompts of preference model pre-training, if the recipe asks for it, and then all others.

    Raises InputError if there are none of either.
    """
    if not settings.pretrain_tasks:
        return [rankings]
    early = [row for row, one in enumerate(rankings) if one.task in settings.pretrain_tasks]
    found = [rankings.only(early), rankings.without({*early})]
    for some, what in zip(found, ("none", "nothing but these"), strict=True):
        if not len(some):
            known = printable(", ".join(sorted({one.task[:80] or "no task" for one in rankings})[:TASKS_TOLD]))
            raise InputError(
                f"reward.pretrain_tasks {', '.join(settings.pretrain_tasks)}: among the tasks of preferences are "
                f"{what} ({known}); name some of these, under which preferences.sources reads public comparisons"
            )
    return found


def fit(job: Job, settings: Reward, rankings: Rankings) -> tuple[Path, dict[str, Any]]:
    """Train a reward model on some of the training prompts.

    Returns the folder of its files and the figures of `results.Reward`.
    """
    chat = reader_of(job, settings)
    parts = [sift(job, settings, chat, one, settings.objective) for one in phases_of(job, settings, rankings)]
    held = read_pairs(job, Kind.HELDOUT_PAIRS, settings.pretrain_tasks)
    if not len(held):
        raise InputError("reward.pretrain_tasks has every task of the held-out pairs; keep preferences of other tasks")
    heldout = sift(job, settings, chat, Rankings(held), "pairwise")
    phases: list[Phase] = []
    for part, epochs in zip(parts, (settings.pretrain_epochs, settings.epochs)[-len(parts) :], strict=True):
        first = phases[-1].end if phases else 0
        phases.append(Phase(part.kept, first, first + math.ceil(len(part.kept) * epochs / settings.batch)))
    module = fresh(job, settings, phases[-1].train)
    engine = Engine(job, module, settings.optim, settings.engine, settings.batch, phases[-1].end)
    learn(job, settings, engine, chat, phases)
    folder, measured = finish(job, settings, engine, chat, heldout.kept)
    sides = {**dict(zip(("training", "pretraining"), reversed(parts), strict=False)), "heldout": heldout}
    told = {"dropped": {name: one.dropped for name, one in sides.items()}}
    told |= {"cuts": {name: one.cuts for name, one in sides.items()}}
    early = {"pretrain_pairs": len(phases[0].train), "pretrain_steps": phases[0].end} if len(phases) > 1 else {}
    return folder, {"pairs": len(phases[-1].train), **told, **early, **measured, **engine.figures()}


def learn(job: Job, settings: Reward, engine: Engine, chat: Reader, phases: Sequence[Phase]) -> None:
    """Make every step, from the last checkpoint on; one schedule of the learning rate goes over all phases."""
    note, steps = "", phases[-1].end
    step, _ = checkpoint.restore(job, {"model": engine})
    progress = Progress(job.task.stage, job.task.partition, "steps", steps, step)
    job.curves.steps = steps
    while step < steps:
        began = time.perf_counter()
        phase = next(one for one in phases if step < one.end)
        rows = rows_of(step - phase.first, settings.batch, len(phase.train), settings.seed)
        mine = share_of([phase.train[row] for row in rows], job.ranks.rank, job.ranks.world)
        rate = engine.lr
        sums, norm = update(job, settings, engine, chat, mine)
        step += 1
        loss, ranking, error, right = (value / settings.batch for value in job.ranks.sum(*sums.tolist()))
        parts = {} if settings.objective == "pairwise" else {"pairwise_loss": ranking, "regression_loss": error}
        machine = of_machine(job.ranks, time.perf_counter() - began)
        job.curves.add(step, loss=loss, accuracy=right, lr=rate, grad_norm=norm, **parts, **machine)
        engine.report_skip(step, (("", phase.train.numbers[row]) for row in rows))
        if job.ranks.rank == 0:
            note = f"loss {loss:.3f} accuracy {right:.2f}"
            progress.advance(1, note)
        checkpoint.save_when_due(job, step, steps, {"model": engine}, {})
    checkpoint.save_last(job, step, {"model": engine}, {})
    if job.ranks.rank == 0:
        progress.finish(note)


def update(job: Job, settings: Reward, engine: Engine, chat: Reader, mine: Sequence[Ranking]) -> tuple[Tensor, float]:
    """One update on this process's prompts of a batch: the sums of `Losses`, and the norm of the gradients."""
    sums = torch.zeros(4, dtype=torch.float64)
    for start in range(0, len(mine), engine.micro_batch):
        groups = [ranked(chat, one, settings.max_tokens) for one in mine[start : start + engine.micro_batch]]
        rewards = rewards_of_groups(engine, groups, chat.pad, job.ranks.device)
        found = losses_of(rewards, groups, settings.objective, settings.regression_coef)
        engine.backward(found.total / len(groups))
        sums += torch.stack([found.total.detach(), found.pairwise, found.regression, found.right]).double().cpu()
    return sums, engine.step()


def finish(job: Job, settings: Reward, engine: Engine, chat: Reader, heldout: Rankings) -> tuple[Path, dict[str, Any]]:
    """Measure on held-out prompts, normalise, and write what is to be committed: the folder, and what was measured."""
    rewards = score_groups(job, settings, engine.module, chat, heldout)
    groups = [ranked(chat, one, settings.max_tokens) for one in heldout]
    seen = [judged(*one) for one in zip(heldout, groups, rewards, strict=True)]
    metrics = ranking_figures(seen)
    metrics |= regression_figures(
        [both for one, given in zip(groups, rewards, strict=True) for both in zip(one.scores, given, strict=True)]
    )
    finite(job, metrics["heldout_loss"], "held-out loss is {} at the end")
    folder = save(job, engine, chat, metrics)
    (folder / CALIBRATION).write_text(json.dumps(calibration(heldout, heldout.numbers, groups, seen)))
    return folder, metrics


def save(job: Job, engine: Engine, chat: Reader, metrics: Mapping[str, Any]) -> Path:
    """Write the model, so that its rewards of preferred replies have mean 0 and standard deviation 1; the folder."""
    folder, weights = job.scratch.fresh(f"result-{job.ranks.rank}"), engine.weights()
    if weights:
        deviation = max(metrics["reward_std"], 1e-6)
        weights = normalised(weights, metrics["reward_mean"], deviation, str(engine.module.head_name))
    if isinstance(chat, Chat):
        model.save(engine.module, folder, chat, job.ranks.rank, weights)
    elif job.ranks.rank == 0:
        encoder.save(engine.module, folder, weights)
    return folder
