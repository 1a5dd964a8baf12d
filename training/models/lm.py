"""Next-token prediction on a batch of tokens, shared by pretrain, sft and the held-out measurements."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from contract.errors import InputError
from evals.heldout import HeldOut
from training.data.reading import Batch, TokenData
from training.engine.engine import Engine
from training.engine.job import Job
from training.loss import log_probs, masked_mean


def learn(job: Job, engine: Engine, batch: Batch) -> Tensor:
    """Forward and backward over one process's rows of a batch, part by part; returns their summed nll.

    The caller makes the step.
    The engine averages gradients over the parts of all processes. The divisor turns this into the mean over all tokens
    that the batch predicts, however unevenly they are spread over the parts.
    """
    count = batch.count / (engine.accumulation * job.ranks.world)
    total = torch.zeros((), dtype=torch.float64, device=job.ranks.device)
    for tokens, mask in _parts(batch, engine.micro_batch, job.ranks.device):
        logits = engine(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = masked_mean(-log_probs(logits, tokens[:, 1:]), mask, count)
        engine.backward(loss)
        total += loss.detach() * count
    return total


def finite(job: Job, value: float, what: str) -> float:
    """Return the value; raise InputError if it is NaN or infinite.

    A diverged model is never saved, and no retry repairs it.
    """
    if not math.isfinite(value):
        raise InputError(
            f"{job.task.stage}: the {what.format(value)}; training diverged, lower {job.task.stage}.optim.lr or .clip"
        )
    return value


@torch.no_grad()
def heldout_loss(
    job: Job, module: nn.Module, batches: Iterable[Batch], micro_batch: int, token_bytes: npt.NDArray[np.int64]
) -> HeldOut | None:
    """Sums over all processes' batches; None if they predict no token.

    Every process calls it with the same number of batches.
    """
    lengths = torch.from_numpy(token_bytes).to(job.ranks.device)
    nll = torch.zeros((), dtype=torch.float64, device=job.ranks.device)
    tokens_seen = bytes_seen = 0.0
    training = module.training
    module.eval()
    for batch in batches:
        for tokens, mask in _parts(batch, micro_batch, job.ranks.device):
            logits = module(input_ids=tokens[:, :-1], use_cache=False).logits
            nll -= (log_probs(logits, tokens[:, 1:]) * mask).sum()
            tokens_seen += float(mask.sum())
            bytes_seen += float((lengths[tokens[:, 1:]] * mask).sum())
    module.train(training)
    total = HeldOut(*job.ranks.sum(float(nll), tokens_seen, bytes_seen))
    return total if total.tokens else None


def note_heldout(
    job: Job, step: int, found: HeldOut | None, state: dict[str, Any]
) -> tuple[dict[str, Any], float | None]:
    """Add a held-out loss to the curves; returns the stage's state with the best one, and the loss if it is the best.

    The state's `best` is (step, loss) of the lowest held-out loss so far. A loss that is NaN is never the best.
    """
    if found is None:
        return state, None
    job.curves.read(job.ranks)
    job.curves.add(step, heldout_loss=found.loss)
    best = state.get("best")
    if not math.isfinite(found.loss) or (best and best[1] <= found.loss):
        return state, None
    return {**state, "best": [step, found.loss]}, found.loss


def best_of(state: dict[str, Any]) -> dict[str, Any]:
    """The figures of the best held-out loss, for a manifest; empty if nothing was held out."""
    step, loss = state.get("best") or (None, None)
    return {} if step is None else {"best_step": step, "best_heldout_loss": loss}


def heldout_text(job: Job, data: TokenData, sequences: int, micro_batch: int) -> Iterable[Batch]:
    """This process's part of the first `sequences` held-out sequences.

    Every process gets the same number of batches; the mask of filler rows in the last batch is 0.
    """
    count = min(sequences, len(data))
    for start in range(0, count, micro_batch * job.ranks.world):
        indices = list(range(start, start + micro_batch * job.ranks.world))[job.ranks.rank :: job.ranks.world]
        batch = data.rows([min(index, count - 1) for index in indices])
        for row, index in enumerate(indices):
            if index >= count:
                batch.mask[row] = 0  # a filler, so that every process makes the same calls
        yield batch


def _parts(batch: Batch, size: int, device: torch.device) -> Iterable[tuple[Tensor, Tensor]]:
    for tokens, mask in zip(batch.tokens.split(size), batch.mask.split(size), strict=True):
        yield tokens.to(device), mask.to(device)
