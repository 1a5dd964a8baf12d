"""The reward model learns from preference pairs which of two replies people prefer.

It starts from the SFT model, with a scalar head in place of the unembedding. One convention holds everywhere: **the
reward of a chat is the head's output at its last token**, which is the end-of-text token of a complete response. The
saved head gives normalised rewards: on held-out preferred replies their mean is 0 and their standard deviation 1, so
that PPO's numbers mean the same in every run.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel

from contract import results
from contract.conversation import Preference, opening
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import Manifest
from contract.metrics import Progress
from contract.settings.training import Reward
from evals.calibration import calibration_error, reliability
from evals.intervals import effective_number, wilson
from training.chat.template import Chat, Cut, Fit, count_cuts, open_chat
from training.data.examples import Examples, read_pairs
from training.data.order import rows_of, share_of
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.engine.metrics import of_machine
from training.loss import pairwise_loss
from training.models import llama as model
from training.models.causal import class_of, read_config
from training.models.lm import finite
from training.rollout import left_pad, positions

CALIBRATION = "calibration.json"
WORST, TEXT_CHARS = 50, 2000  # pairs that people read, and how much of each of their texts


class Unfit(StrEnum):
    """Why a pair is left out: what its replies became when they were cut to `max_tokens`."""

    EQUAL = "equal"
    """The same tokens, so that nothing tells the better from the worse."""
    LOST_END = "lost_end"
    """One without its end-of-text, at which the reward is read."""


class ScalarHead(nn.Linear):
    """One number per position, computed in float32 whatever the decoder computes in: bf16 keeps 8 bits of a reward.

    Where nothing is learned, its weights stay in float32 as well.
    """

    keeps_float32 = True

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states (B, T, d_model) -> (B, T, 1)."""
        return nn.functional.linear(hidden.float(), self.weight.float(), self.bias.float())


class RewardModel(nn.Module):
    """A decoder without its unembedding, and a linear head that gives one number per position."""

    def __init__(self, decoder: Any, seed: int) -> None:
        """`decoder` maps tokens to hidden states.

        The head's weights start as N(0, 1 / (d_model + 1)) (Stiennon et al. 2020, appendix B.1).
        """
        super().__init__()
        width = int(decoder.config.hidden_size)
        self.decoder = decoder
        self.head = ScalarHead(width, 1)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            self.head.weight.copy_(torch.randn(1, width, generator=generator) * (width + 1) ** -0.5)
            self.head.bias.zero_()

    def forward(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """One number per position, in float32: tokens and attention (B, T) -> (B, T). A critic's are state values."""
        output: Any = self.decoder(
            input_ids=tokens, attention_mask=attention, position_ids=positions(attention), use_cache=False
        )
        values: Tensor = self.head(output.last_hidden_state).squeeze(-1)
        return values

    def save_pretrained(self, folder: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write model.safetensors and config.json, which `load_reward_model` reads; by default the own weights."""
        folder.mkdir(parents=True, exist_ok=True)
        own = self.state_dict() if state_dict is None else state_dict
        tensors = {name: value.detach().cpu().contiguous() for name, value in own.items()}
        save_file(tensors, folder / "model.safetensors")
        self.decoder.config.to_json_file(folder / "config.json")

    def activation_checkpointing_enable(self, options: dict[str, Any], offload: bool) -> None:
        self.decoder.activation_checkpointing_enable(options, offload=offload)


def normalised(weights: Mapping[str, Tensor], mean: float, deviation: float) -> dict[str, Tensor]:
    """A reward model's weights by name, with (reward - mean) / deviation folded into the head."""
    head = {"head.weight": weights["head.weight"] / deviation, "head.bias": (weights["head.bias"] - mean) / deviation}
    return {**weights, **head}


def last(values: Tensor, attention: Tensor) -> Tensor:
    """The value at each row's last real token: (B, T) -> (B,)."""
    index = (torch.arange(attention.shape[1], device=attention.device) * attention).argmax(-1, keepdim=True)
    return values.gather(1, index).squeeze(1)


def load_reward_model(job: Job, manifest: Manifest, dtype: model.Dtype = "fp32") -> RewardModel:
    """The reward model that `reward` committed, in float32 on the CPU, prepared to compute in `dtype`."""
    folder = model.fetch(job, manifest)
    try:
        config = read_config(folder)
        kind = model.attention(dtype, class_of(config))
        decoder = AutoModel.from_config(config, attn_implementation=kind, trust_remote_code=False)
        module = RewardModel(decoder, seed=0)
        module.load_state_dict(load_file(folder / "model.safetensors"))
    except model.LOADING as error:
        raise InputError(
            f"{job.store.full(manifest.path)}: its reward model cannot be loaded ({error}); run reward again"
        ) from error
    return module


def encode(chat: Chat, pairs: Sequence[Preference], max_tokens: int) -> list[list[int]]:
    """Token ids of the chats: first all with the chosen replies, then all with the rejected ones.

    Both replies of a pair follow the same tokens.
    """
    fits = [fitted(chat, pair, max_tokens) for pair in pairs]
    return [fit.prompt + fit.replies[side] for side in (0, 1) for fit in fits]


def fitted(chat: Chat, pair: Preference, max_tokens: int) -> Fit:
    """The prompt of a pair and its replies, the chosen one first."""
    return chat.fit(pair.prompt, (pair.chosen, pair.rejected), max_tokens)


def unfit(fit: Fit) -> Unfit | None:
    """Why a pair cannot be compared once it is cut; None if it can."""
    if fit.replies[0] == fit.replies[1]:
        return Unfit.EQUAL
    return Unfit.LOST_END if Cut.REPLY in fit.cuts else None


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
            f"reward: no reply of {len(pairs):,} pairs keeps its end within reward.max_tokens "
            f"{job.settings.max_tokens}; raise it"
        )
    return pairs.without(dropped), Counter(dropped.values())


def rewards_of(module: Any, chats: Sequence[Sequence[int]], pad: int, device: torch.device) -> Tensor:
    """The reward of each chat, with gradients: (rows,)."""
    tokens, attention = left_pad(chats, pad, device)
    return last(module(tokens, attention), attention)


@torch.no_grad()
def score_pairs(
    job: Job, module: nn.Module, chat: Chat, pairs: Sequence[Preference]
) -> tuple[list[float], list[float]]:
    """(rewards of the chosen replies, rewards of the rejected ones), in the order of the pairs, on every process."""
    settings: Reward = job.settings
    own: dict[int, tuple[float, float]] = {}
    starts = range(0, len(pairs), settings.engine.micro_batch)
    for turn in range(math.ceil(len(starts) / job.ranks.world)):
        # A process without work repeats the last part: under ZeRO 3, every process must join every forward pass.
        index = turn * job.ranks.world + job.ranks.rank
        start = starts[min(index, len(starts) - 1)]
        part = pairs[start : start + settings.engine.micro_batch]
        found = rewards_of(module, encode(chat, part, settings.max_tokens), chat.pad, job.ranks.device)
        if index < len(starts):
            own.update(enumerate(zip(*found.view(2, -1).tolist(), strict=True), start))
    rewards = job.ranks.rows(own)
    return [chosen for chosen, _ in rewards], [rejected for _, rejected in rewards]


def pair_metrics(
    chosen: Sequence[float], rejected: Sequence[float], prompts: Sequence[Hashable] | None = None
) -> dict[str, Any]:
    """Held-out figures; a tie counts as half right.

    `prompts` tells which pairs have one prompt, and so are not independent; None: no two have.
    `reward_mean` and `reward_std` describe the chosen replies before normalisation.
    """
    margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    right = [(margin > 0) + 0.5 * (margin == 0) for margin in margins]
    correct = sum(right)
    effective = effective_number(right, range(len(right)) if prompts is None else prompts)
    low, high = wilson(correct / len(margins) * effective, effective)
    rewards = torch.tensor(chosen, dtype=torch.float64)
    return {
        "accuracy": correct / len(margins),
        "accuracy_low": low,
        "accuracy_high": high,
        "heldout_correct": correct,
        "heldout_pairs": len(margins),
        "heldout_effective": effective,
        "heldout_loss": float(pairwise_loss(torch.tensor(chosen), torch.tensor(rejected)).mean()),
        "ece": calibration_error(margins),
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std(unbiased=False)),
    }


def calibration(
    pairs: Sequence[Preference], numbers: Sequence[int], chosen: Sequence[float], rejected: Sequence[float]
) -> dict[str, list[dict[str, Any]]]:
    """What a person needs to see why the gate opened: `bins` of reliability, and the `worst` pairs with their texts.

    The worst are those whose rejected reply got the most more reward, at most WORST. Rewards are those before
    normalisation, so that sigmoid(chosen - rejected) is the probability that the model gives to the ranking. `row` is
    the pair's number, one of `numbers`, among all that are held out. Texts are cut to TEXT_CHARS characters.
    """
    margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    wrong = sorted((margin, row) for row, margin in enumerate(margins) if margin < 0)[:WORST]
    worst = []
    for margin, row in wrong:
        pair = pairs[row]
        prompt = "\n".join(f"{turn.role}: {turn.text}" for turn in pair.prompt)
        texts = {"prompt": prompt, "chosen": pair.chosen, "rejected": pair.rejected}
        cut = {name: text[:TEXT_CHARS] for name, text in texts.items()}
        worst.append(
            {
                "row": numbers[row],
                "margin": margin,
                "reward_chosen": chosen[row],
                "reward_rejected": rejected[row],
                **cut,
            }
        )
    return {"bins": [vars(one) for one in reliability(margins)], "worst": worst}


def run(job: Job) -> None:
    settings: Reward = job.settings
    chat = open_chat(job)
    train, dropped = sift(job, chat, read_pairs(job, Kind.PAIRS))
    steps = math.ceil(len(train) * settings.epochs / settings.batch)
    module = RewardModel(model.load_model(job, job.manifest("sft"), settings.engine.dtype).base_model, settings.seed)
    engine = Engine(job, module, settings.optim, settings.engine, settings.batch, steps)

    note = ""
    step, _ = checkpoint.restore(job, {"model": engine})
    progress = Progress(job.task.stage, job.task.partition, "steps", steps, step)
    job.curves.steps = steps
    while step < steps:
        began = time.perf_counter()
        rows = rows_of(step, settings.batch, len(train), settings.seed)
        mine = share_of([train[row] for row in rows], job.ranks.rank, job.ranks.world)
        loss, right = 0.0, 0.0
        for start in range(0, len(mine), engine.micro_batch):
            part = encode(chat, mine[start : start + engine.micro_batch], settings.max_tokens)
            chosen, rejected = rewards_of(engine, part, chat.pad, job.ranks.device).chunk(2)
            losses = pairwise_loss(chosen, rejected)
            engine.backward(losses.mean())
            loss += float(losses.detach().sum())
            right += float((chosen > rejected).sum())
        rate, norm = engine.lr, engine.step()
        step += 1
        loss, right = (value / settings.batch for value in job.ranks.sum(loss, right))
        machine = of_machine(job.ranks, time.perf_counter() - began)
        job.curves.add(step, loss=loss, accuracy=right, lr=rate, grad_norm=norm, **machine)
        engine.report_skip(step, (("", train.numbers[row]) for row in rows))
        if job.ranks.rank == 0:
            note = f"loss {loss:.3f} accuracy {right:.2f}"
            progress.advance(1, note)
        checkpoint.save_when_due(job, step, steps, {"model": engine}, {})
    checkpoint.save_last(job, step, {"model": engine}, {})
    if job.ranks.rank == 0:
        progress.finish(note)
    finish(job, engine, chat, train, dropped)


def finish(job: Job, engine: Engine, chat: Chat, train: Examples[Preference], dropped: Counter[Unfit]) -> None:
    """Measure on the held-out pairs, normalise, commit.

    It learned from the pairs `train`; `dropped` counts those that it could not learn from.
    """
    heldout, more = sift(job, chat, read_pairs(job, Kind.HELDOUT_PAIRS))
    chosen, rejected = score_pairs(job, engine.module, chat, heldout)
    # Dialogues with one opening stand on one side of the split, so their pairs were drawn together.
    metrics = pair_metrics(chosen, rejected, [opening(pair.prompt) for pair in heldout])
    finite(job, metrics["heldout_loss"], "held-out loss is {} at the end")
    weights = engine.weights()
    if weights:
        weights = normalised(weights, metrics["reward_mean"], max(metrics["reward_std"], 1e-6))
    folder = job.scratch.fresh(f"result-{job.ranks.rank}")
    model.save(engine.module, folder, chat, job.ranks.rank, weights)
    (folder / CALIBRATION).write_text(json.dumps(calibration(heldout, heldout.numbers, chosen, rejected)))
    cuts = {
        name: count_cuts(job, pairs, lambda pair: fitted(chat, pair, job.settings.max_tokens).cuts)
        for name, pairs in (("training", train), ("heldout", heldout))
    }
    left_out = {
        name: {reason.value: counts[reason] for reason in Unfit}
        for name, counts in (("training", dropped), ("heldout", more))
    }
    result = results.Reward(pairs=len(train), dropped=left_out, cuts=cuts, **metrics, **engine.figures())
    job.commit(folder, result, {CALIBRATION: Kind.CALIBRATION})
