"""Direct preference optimisation: the policy learns from pairs, without sampling and without a reward model.

loss = -log sigmoid(r_w - r_l), r = beta log(pi(reply) / pi_SFT(reply)) (Rafailov et al. 2023, eq. 7). The policy starts
as the SFT model, so the log-probabilities under pi_SFT are its own before the first update: they are computed then, and
again when a run resumes, and no second model is in memory.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from contract import results
from contract.conversation import Preference, opening
from contract.errors import InputError
from contract.kinds import Kind
from contract.metrics import Progress
from contract.settings.training import Dpo
from evals.rewards import Judged, ranking_figures
from training.chat.template import Chat, Cut, Fit, count_cuts, open_chat
from training.data.examples import Examples, own_pairs
from training.data.order import rows_of, share_of
from training.data.rows import Encoded, one_each
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.metrics import of_machine
from training.experience import require_open_gate
from training.loss import dpo_loss, log_probs
from training.models.lm import finite, next_logits
from training.models.policy import load_policy, save_policy
from training.reward import Unfit, for_judge

LEARNT = ("loss", "accuracy", "reward_chosen", "reward_rejected", "margin")
Both = tuple[float, float]
"""A number of the chosen reply and one of the rejected."""


def fitted(chat: Chat, pair: Preference, max_tokens: int) -> Fit:
    """The prompt of a pair and its replies, the chosen one first."""
    return chat.fit(pair.prompt, (pair.chosen, pair.rejected), max_tokens)


def unfit(fit: Fit) -> Unfit | None:
    """Why a pair cannot be compared once it is cut; None if it can."""
    if fit.replies[0] == fit.replies[1]:
        return Unfit.EQUAL
    return Unfit.LOST_END if Cut.REPLY in fit.cuts else None


def for_policy(job: Job, pairs: Examples[Preference]) -> Examples[Preference]:
    """The pairs that are not the judge's: what `evaluate` asks it about the policy should be no memory of both."""
    share = job.setting("judge.share")
    kept = pairs.without({pairs.numbers[row] for row, one in enumerate(pairs) if for_judge(opening(one.prompt), share)})
    if pairs and not kept:
        raise InputError(f"dpo: judge.share {share:g} leaves it none of {len(pairs):,} pairs; lower it")
    return kept


def sift(job: Job, chat: Chat, pairs: Examples[Preference]) -> tuple[Examples[Preference], Counter[Unfit]]:
    """The pairs that can be compared within `max_tokens`, and how many cannot, by reason; on every process the same.

    Raises InputError if none can be.
    """
    own: dict[int, Unfit] = {}
    for row in range(job.ranks.rank, len(pairs), job.ranks.world):
        if reason := unfit(fitted(chat, pairs[row], job.settings.max_tokens)):
            own[pairs.numbers[row]] = reason
    dropped = {number: reason for part in job.ranks.gather(own) for number, reason in part.items()}
    if pairs and len(dropped) == len(pairs):
        raise InputError(
            f"dpo: no reply of {len(pairs):,} pairs keeps its end within dpo.max_tokens "
            f"{job.settings.max_tokens}; raise it"
        )
    return pairs.without(dropped), Counter(dropped.values())


def encode(chat: Chat, pairs: Sequence[Preference], max_tokens: int) -> list[Encoded]:
    """Ids and loss masks of the chats: first all with the chosen replies, then all with the rejected ones."""
    fits = [fitted(chat, pair, max_tokens) for pair in pairs]
    return [
        (fit.prompt + fit.replies[side], [0] * len(fit.prompt) + [1] * len(fit.replies[side]))
        for side in (0, 1)
        for fit in fits
    ]


def reply_log_probs(
    policy: Callable[..., Any], chats: Sequence[Encoded], pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """log pi(reply) of the chosen and of the rejected replies, (pairs,) each, with gradients."""
    batch = one_each(chats, pad)
    found = log_probs(next_logits(policy, batch, device), batch.tokens.to(device)[:, 1:])
    chosen, rejected = (found * batch.mask.to(device)).sum(-1).chunk(2)
    return chosen, rejected


@torch.no_grad()
def judge(job: Job, engine: Engine, chat: Chat, pairs: Sequence[Preference]) -> list[Both]:
    """log pi(reply) of both replies of each pair under the policy as it is, in their order, on every process."""
    settings: Dpo = job.settings
    own: dict[int, Both] = {}
    starts = range(0, len(pairs), settings.engine.micro_batch)
    for turn in range(math.ceil(len(starts) / job.ranks.world)):
        # A process without work repeats the last part: under ZeRO 3, every process must join every forward pass.
        index = turn * job.ranks.world + job.ranks.rank
        start = starts[min(index, len(starts) - 1)]
        part = encode(chat, pairs[start : start + settings.engine.micro_batch], settings.max_tokens)
        chosen, rejected = reply_log_probs(engine.module, part, chat.pad, job.ranks.device)
        if index < len(starts):
            own.update(enumerate(zip(chosen.tolist(), rejected.tolist(), strict=True), start))
    return job.ranks.rows(own)


def update(
    job: Job, engine: Engine, chat: Chat, pairs: Sequence[Preference], references: Sequence[Both]
) -> dict[str, float]:
    """One update on the pairs of a step, of which each process takes its share; the LEARNT figures, as means.

    The loss of a pair is multiplied by its weight.
    """
    settings: Dpo = job.settings
    rows = share_of(list(range(len(pairs))), job.ranks.rank, job.ranks.world)
    sums = torch.zeros(len(LEARNT), device=job.ranks.device)
    for start in range(0, len(rows), engine.micro_batch):
        some = rows[start : start + engine.micro_batch]
        chats = encode(chat, [pairs[row] for row in some], settings.max_tokens)
        ours = reply_log_probs(engine, chats, chat.pad, job.ranks.device)
        chosen, rejected = torch.tensor([references[row] for row in some], device=job.ranks.device).T
        losses, better, worse = dpo_loss(ours, (chosen, rejected), settings.beta, settings.label_smoothing)
        losses = losses * torch.tensor([pairs[row].weight for row in some], device=job.ranks.device)
        engine.backward(losses.mean())
        right = (better > worse).float() + 0.5 * (better == worse).float()
        sums += torch.stack([one.sum() for one in (losses, right, better, worse, better - worse)]).detach()
    engine.step()
    return dict(zip(LEARNT, (value / len(pairs) for value in job.ranks.sum(*sums.tolist())), strict=True))


def run(job: Job) -> None:
    settings: Dpo = job.settings
    require_open_gate(job)
    chat = open_chat(job)
    train, dropped = sift(job, chat, for_policy(job, own_pairs(job, Kind.PAIRS)))
    heldout, more = sift(job, chat, own_pairs(job, Kind.HELDOUT_PAIRS))
    steps = math.ceil(len(train) * settings.epochs / settings.batch)
    engine = Engine(job, load_policy(job), settings.optim, settings.engine, settings.batch, steps)
    references, apart = judge(job, engine, chat, train), judge(job, engine, chat, heldout)

    note = ""
    step, _ = checkpoint.restore(job, {"model": engine})
    progress = Progress(job.task.stage, job.task.partition, "steps", steps, step)
    job.curves.steps = steps
    while step < steps:
        began = time.perf_counter()
        rows = rows_of(step, settings.batch, len(train), settings.seed)
        rate = engine.lr
        figures = update(job, engine, chat, [train[row] for row in rows], [references[row] for row in rows])
        step += 1
        machine = of_machine(job.ranks, time.perf_counter() - began)
        job.curves.add(step, **figures, lr=rate, grad_norm=engine.norm, **machine)
        engine.report_skip(step, (("", train.numbers[row]) for row in rows))
        if job.ranks.rank == 0:
            note = f"loss {figures['loss']:.3f} accuracy {figures['accuracy']:.2f}"
            progress.advance(1, note)
        checkpoint.save_when_due(job, step, steps, {"model": engine}, {})
    checkpoint.save_last(job, step, {"model": engine}, {})
    if job.ranks.rank == 0:
        progress.finish(note)
    measured = measure(job, engine, chat, heldout, apart)
    finish(job, engine, chat, {"training": (train, dropped), "heldout": (heldout, more)}, measured)


def measure(
    job: Job, engine: Engine, chat: Chat, heldout: Examples[Preference], references: Sequence[Both]
) -> dict[str, Any]:
    """Figures on the held-out pairs: a pair is right if the chosen reply gained more of the policy's probability."""
    settings: Dpo = job.settings
    pairs = zip(judge(job, engine, chat, heldout), references, strict=True)
    gains = [(settings.beta * (now[0] - then[0]), settings.beta * (now[1] - then[1])) for now, then in pairs]
    chosen, rejected = [gain[0] for gain in gains], [gain[1] for gain in gains]
    found = ranking_figures(
        [
            Judged(
                ((0, 1),), both, tuple(map(len, fitted(chat, pair, settings.max_tokens).replies)), opening(pair.prompt)
            )
            for both, pair in zip(gains, heldout, strict=True)
        ]
    )
    wanted = ("accuracy", "accuracy_low", "accuracy_high", "heldout_pairs", "heldout_effective", "heldout_loss")
    finite(job, found["heldout_loss"], "held-out loss is {} at the end")
    return {
        **{name: found[name] for name in wanted},
        "reward_chosen": fmean(chosen),
        "reward_rejected": fmean(rejected),
    }


def finish(
    job: Job,
    engine: Engine,
    chat: Chat,
    parts: dict[str, tuple[Examples[Preference], Counter[Unfit]]],
    measured: dict[str, Any],
) -> None:
    """Commit the policy. `parts` has the pairs that were used, and counts those that could not be."""
    most = job.settings.max_tokens
    cuts = {
        name: count_cuts(job, pairs, lambda pair: fitted(chat, pair, most).cuts) for name, (pairs, _) in parts.items()
    }
    left_out = {name: {reason.value: counts[reason] for reason in Unfit} for name, (_, counts) in parts.items()}
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    save_policy(job, engine, chat, folder)
    result = results.Dpo(pairs=len(parts["training"][0]), dropped=left_out, cuts=cuts, **measured, **engine.figures())
    job.commit(folder, result)
