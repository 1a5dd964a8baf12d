"""The reward model learns from preference pairs which of two replies people prefer.

It starts from the SFT model, with a scalar head in place of the unembedding. One convention holds everywhere: **the
reward of a chat is the head's output at its last token**, which is the end-of-text token of a complete response. The
saved head gives normalised rewards: on held-out preferred replies their mean is 0 and their standard deviation 1, so
that PPO's numbers mean the same in every run.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import deepspeed
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import Manifest, Rows
from contract.metrics import Progress
from contract.settings.training import Reward
from evals.calibration import calibration_error
from evals.intervals import wilson
from training.chat.template import Chat, Turn, open_chat
from training.data.reading import HH_RLHF, Bad, Preference, documents, parse_hh, read_examples, rows_of, share_of
from training.data.synthetic import synthetic_instructions, synthetic_preferences
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.job import Job
from training.loss import pairwise_loss
from training.models import llama as model
from training.models.lm import finite
from training.rollout import left_pad, positions


class RewardModel(nn.Module):
    """A decoder without its unembedding, and a linear head that gives one number per position."""

    def __init__(self, decoder: Any, seed: int) -> None:
        """`decoder` maps tokens to hidden states.

        The head's weights start as N(0, 1 / (d_model + 1)) (Stiennon et al. 2020, appendix B.1).
        """
        super().__init__()
        width = int(decoder.config.hidden_size)
        self.decoder = decoder
        self.head = nn.Linear(width, 1)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            self.head.weight.copy_(torch.randn(1, width, generator=generator) * (width + 1) ** -0.5)
            self.head.bias.zero_()

    def forward(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """One number per position, in float32: tokens and attention (B, T) -> (B, T). A critic's are state values."""
        output: Any = self.decoder(
            input_ids=tokens, attention_mask=attention, position_ids=positions(attention), use_cache=False
        )
        values: Tensor = self.head(output.last_hidden_state).squeeze(-1).float()
        return values

    def save_pretrained(self, folder: Path) -> None:
        """Write model.safetensors and config.json, which `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
        self.decoder.config.to_json_file(folder / "config.json")

    def gradient_checkpointing_enable(self, options: dict[str, Any]) -> None:
        self.decoder.gradient_checkpointing_enable(options)

    def normalise(self, mean: float, deviation: float) -> None:
        """Fold (reward - mean) / deviation into the head. Every process calls it."""
        with torch.no_grad(), deepspeed.zero.GatheredParameters(list(self.head.parameters()), modifier_rank=0):
            self.head.weight.div_(deviation)
            self.head.bias.sub_(mean).div_(deviation)


def last(values: Tensor, attention: Tensor) -> Tensor:
    """The value at each row's last real token: (B, T) -> (B,)."""
    index = (torch.arange(attention.shape[1], device=attention.device) * attention).argmax(-1, keepdim=True)
    return values.gather(1, index).squeeze(1)


@dataclass(frozen=True)
class Pairs:
    """Training pairs, held-out pairs, and the unusable rows."""

    train: list[Preference]
    heldout: list[Preference]
    bad: Bad


def is_heldout(turn: str, fraction: float) -> bool:
    """Whether the pairs whose dialogue opens with this turn are held out.

    The first turn decides, because data sets hold the same dialogue several times, at several lengths.
    """
    digest = hashlib.sha256(turn.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8]) < fraction * 2**64


def load(job: Job, manifest: Manifest, dtype: model.Dtype = "fp32") -> RewardModel:
    """The reward model that `reward` committed, in float32 on the CPU, prepared to compute in `dtype`."""
    folder = model.fetch(job, manifest)
    config = LlamaConfig.from_pretrained(folder, attn_implementation=model.attention(dtype), local_files_only=True)
    module = RewardModel(LlamaModel(config), seed=0)
    try:
        module.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{job.store.full(manifest.path)}: its reward model cannot be loaded ({error}); run reward again"
        ) from error
    return module


def read_pairs(job: Job) -> Pairs:
    """The recipe's preference pairs: from its file, split by their first turns, or synthetic ones from the corpus.

    Raises InputError if there is no training pair or no held-out pair.
    """
    settings: Reward = job.settings if job.task.stage == "reward" else job.setting("reward")
    if settings.data == "synthetic":
        return _synthetic(job, settings)
    pairs, bad = read_examples(settings.data, parse_hh, HH_RLHF, settings.max_examples)
    return Pairs(*split(pairs, settings.heldout_fraction), bad)


def split(pairs: Sequence[Preference], fraction: float) -> tuple[list[Preference], list[Preference]]:
    """(training pairs, held-out pairs), which share no first turn. Raises InputError if either list is empty."""
    train = [pair for pair in pairs if not is_heldout(pair.prompt[0].text, fraction)]
    heldout = [pair for pair in pairs if is_heldout(pair.prompt[0].text, fraction)]
    if not train or not heldout:
        raise InputError(
            f"{len(pairs)} preference pairs are too few to hold out {fraction:g} of their prompts; "
            "give reward.data more"
        )
    return train, heldout


def _synthetic(job: Job, settings: Reward) -> Pairs:
    """Training pairs from the mixture's training documents, held-out pairs from its held-out documents.

    The held-out pairs contain no prompt that SFT or the reward model learns from.
    """
    mixture, limit, share = job.manifest("mix"), settings.max_examples, settings.heldout_fraction
    wanted = None if limit is None else max(1, round(limit * share))
    made = synthetic_preferences(documents(job, mixture), settings.seed)
    train = list(islice(made, None if limit is None or wanted is None else limit - wanted))
    sft = job.setting("sft")
    tuned = islice(synthetic_instructions(documents(job, mixture), sft.seed), sft.max_examples)
    learned = {pair.prompt[0] for pair in train} | {ask for ask, _ in tuned}
    unseen = synthetic_preferences(documents(job, mixture, Kind.HELDOUT), settings.seed)
    heldout = list(islice((pair for pair in unseen if pair.prompt[0] not in learned), wanted))
    if not train or not heldout:
        raise InputError(
            f"the corpus gives {len(train)} synthetic preference pairs to learn from and {len(heldout)} to judge by;"
            " name a file in reward.data, raise mix.heldout_fraction or use more pages"
        )
    return Pairs(train, heldout, Bad())


def encode(chat: Chat, pairs: Sequence[Preference], max_tokens: int) -> list[list[int]]:
    """Token ids of the chats: first all with the chosen replies, then all with the rejected ones."""
    replies = [(pair, pair.chosen) for pair in pairs] + [(pair, pair.rejected) for pair in pairs]
    return [chat.encode([*pair.prompt, Turn("assistant", reply)], max_tokens)[0] for pair, reply in replies]


def rewards_of(module: Any, chats: Sequence[Sequence[int]], pad: int, device: torch.device) -> Tensor:
    """The reward of each chat, with gradients: (rows,)."""
    tokens, attention = left_pad(chats, pad, device)
    return last(module(tokens, attention), attention)


@torch.no_grad()
def judge(job: Job, module: nn.Module, chat: Chat, pairs: Sequence[Preference]) -> tuple[list[float], list[float]]:
    """(rewards of the chosen replies, rewards of the rejected ones), in the order of the pairs, on every process."""
    settings: Reward = job.settings
    own: dict[int, tuple[float, float]] = {}
    starts = range(0, len(pairs), settings.engine.micro_batch)
    for turn in range(math.ceil(len(starts) / job.world)):
        # A process without work repeats the last part: under ZeRO 3, every process must join every forward pass.
        index = turn * job.world + job.rank
        start = starts[min(index, len(starts) - 1)]
        part = pairs[start : start + settings.engine.micro_batch]
        found = rewards_of(module, encode(chat, part, settings.max_tokens), chat.pad, job.device)
        if index < len(starts):
            own.update(enumerate(zip(*found.view(2, -1).tolist(), strict=True), start))
    rewards = job.rows(own)
    return [chosen for chosen, _ in rewards], [rejected for _, rejected in rewards]


def measure(chosen: Sequence[float], rejected: Sequence[float]) -> dict[str, float | int]:
    """Held-out figures; a tie counts as half right.

    `reward_mean` and `reward_std` describe the chosen replies before normalisation.
    """
    margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    correct = sum((margin > 0) + 0.5 * (margin == 0) for margin in margins)
    low, high = wilson(correct, len(margins))
    rewards = torch.tensor(chosen, dtype=torch.float64)
    return {
        "accuracy": correct / len(margins),
        "accuracy_low": low,
        "accuracy_high": high,
        "heldout_correct": correct,
        "heldout_pairs": len(margins),
        "heldout_loss": float(pairwise_loss(torch.tensor(chosen), torch.tensor(rejected)).mean()),
        "ece": calibration_error(margins),
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std(unbiased=False)),
    }


def run(job: Job) -> None:
    settings: Reward = job.settings
    chat = open_chat(job)
    pairs = read_pairs(job)
    train = pairs.train
    steps = math.ceil(len(train) * settings.epochs / settings.batch)
    module = RewardModel(model.load(job, job.manifest("sft"), settings.engine.dtype).model, settings.seed)
    engine = Engine(job, module, settings.optim, settings.engine, settings.batch, steps)

    note = ""
    step, _ = checkpoint.restore(job, {"model": engine})
    progress = Progress(job.task.stage, job.task.partition, "steps", steps, step)
    while step < steps:
        rows = rows_of(step, settings.batch, len(train), settings.seed)
        mine = share_of([train[row] for row in rows], job.rank, job.world)
        loss, right = 0.0, 0.0
        for start in range(0, len(mine), engine.micro_batch):
            part = encode(chat, mine[start : start + engine.micro_batch], settings.max_tokens)
            chosen, rejected = rewards_of(engine, part, chat.pad, job.device).chunk(2)
            losses = pairwise_loss(chosen, rejected)
            engine.backward(losses.mean())
            loss += float(losses.detach().sum())
            right += float((chosen > rejected).sum())
        rate, norm = engine.lr, engine.step()
        step += 1
        loss, right = (value / settings.batch for value in job.sum(loss, right))
        if job.rank == 0:
            job.curves.add(step, loss=loss, accuracy=right, lr=rate, grad_norm=norm)
            note = f"loss {loss:.3f} accuracy {right:.2f}"
            progress.advance(1, note)
        checkpoint.save_when_due(job, step, steps, {"model": engine}, {})
    if job.rank == 0:
        progress.finish(note)
    finish(job, engine, chat, pairs)


def finish(job: Job, engine: Engine, chat: Chat, pairs: Pairs) -> None:
    """Measure on the held-out pairs, normalise, commit."""
    chosen, rejected = judge(job, engine.module, chat, pairs.heldout)
    metrics = measure(chosen, rejected)
    finite(job, metrics["heldout_loss"], "held-out loss is {} at the end")
    engine.module.normalise(metrics["reward_mean"], max(metrics["reward_std"], 1e-6))  # type: ignore[operator]
    folder = job.fresh(f"result-{job.rank}")
    model.save(engine.module, folder, chat.path, job.rank)
    count, unusable = len(pairs.train) + len(pairs.heldout), pairs.bad.reasons.total()
    rows = Rows(read=count + unusable, kept=count, dropped=unusable, reasons=dict(pairs.bad.reasons))
    job.commit(folder, {"pairs": count, **metrics}, rows=rows)
