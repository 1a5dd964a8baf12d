"""Next-token prediction on a batch of tokens, shared by pretrain, sft and the held-out measurements."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from contract.errors import InputError
from evals.heldout import HeldOut
from training.data.batch import Batch
from training.data.reading import TokenData
from training.engine import pipeline
from training.engine.engine import Engine
from training.engine.job import Job
from training.loss import log_probs, masked_mean


def next_logits(model: Callable[..., Any], batch: Batch, device: torch.device, hidden: Tensor | None = None) -> Tensor:
    """The logits of each next token, (B, T, V) on the device, from the tokens of its document alone.

    Positions that restart keep documents apart: transformers derives from them the mask of SDPA and of eager attention,
    if it gets no other mask and no cache. flash-attn takes no mask; it gets the ends of the documents.

    A stage of a pipeline goes on from the `hidden` states of the one before, (B, T, d); all but the last give theirs.
    """
    known: dict[str, Any] = {}
    if batch.positions is not None:
        known = {"position_ids": batch.positions.to(device), **_documents(batch.positions, device)}
    begin = {"input_ids": batch.tokens[:, :-1].to(device)} if hidden is None else {"inputs_embeds": hidden}
    logits: Tensor = model(**begin, use_cache=False, **known).logits
    return logits


def token_nll(model: Callable[..., Any], batch: Batch, device: torch.device, hidden: Tensor | None = None) -> Tensor:
    """Nats of each next token, (B, T) on the device; `hidden` as in `next_logits`."""
    return -log_probs(next_logits(model, batch, device, hidden), batch.tokens[:, 1:].to(device))


def _documents(positions: Tensor, device: torch.device) -> dict[str, Any]:
    """Where documents begin and end in the joined rows of a batch, and the longest one, as flash-attn takes them.

    Without these, transformers finds the documents only in a batch of one row, and lets those of more rows leak. They
    are counted on the CPU, because on a GPU every layer would wait for the count.
    """
    starts = (positions.flatten() == 0).nonzero().flatten()
    edges = torch.cat([starts, torch.tensor([positions.numel()])]).to(torch.int32)
    longest = int(edges.diff().max())
    edges = edges.to(device)
    return {"cu_seq_lens_q": edges, "cu_seq_lens_k": edges, "max_length_q": longest, "max_length_k": longest}


def learn(job: Job, engine: Engine, batch: Batch) -> Tensor:
    """Forward and backward over one process's rows of a batch, part by part; returns its share of the summed nll.

    The caller makes the step. Of processes that have the same rows, one has the whole share.
    The engine averages gradients over the parts of all processes. The divisor turns this into the mean over all tokens
    that the batch predicts, however unevenly they are spread over the parts.
    """
    count = batch.count / (engine.accumulation * job.ranks.replicas)
    total = torch.zeros((), dtype=torch.float64, device=job.ranks.device)
    parts = list(batch.split(engine.micro_batch))
    if engine.pipeline:
        return _learn_in_stages(engine, engine.pipeline, parts, count) + total
    for part in parts:
        loss = masked_mean(token_nll(engine, part, job.ranks.device), part.mask.to(job.ranks.device), count)
        engine.backward(loss)
        total += loss.detach() * count * job.ranks.speaks
    return total


def _learn_in_stages(engine: Engine, line: pipeline.Pipeline, parts: Sequence[Batch], count: float) -> Tensor:
    """`learn` where this process has one stage of the model: it takes turns with the stages before and after it."""
    device = line.ranks.device
    total = torch.zeros((), device=device)
    held: dict[int, tuple[Tensor | None, Tensor]] = {}  # of each part under way: what came in, and what went out
    line.lend(engine.module)
    for turn, number in pipeline.turns(line.stage, line.stages, len(parts)):
        part = parts[number]
        if turn == "forward":
            came = line.receive(*part.mask.shape)
            came = None if came is None else came.requires_grad_()
            if line.last:
                went = masked_mean(token_nll(engine, part, device, came), part.mask.to(device), count)
                total += went.detach() * count
            else:
                went = next_logits(engine, part, device, came)
                line.send(went)
            held[number] = came, went
            continue
        came, went = held.pop(number)
        if not line.last:
            # The gradient of this sum is the one that came back, with the weight that the last stage gave its loss.
            went = (went * line.receive_gradient(went)).sum()
            if number == len(parts) - 1:
                went = went + line.given_back(engine.module)
        engine.backward(went, weighted=not line.last)
        if came is not None and came.grad is not None:
            line.send_gradient(came.grad)
    line.give_back(engine.module)
    line.settle()
    return total


def _heldout_nll(module: nn.Module, part: Batch, device: torch.device) -> Tensor:
    """`token_nll` of a whole model, or of one in stages, where all but the last stage give zeros."""
    line = pipeline.of(module)
    if line is None:
        return token_nll(module, part, device)
    came = line.receive(*part.mask.shape)
    if line.last:
        return token_nll(module, part, device, came)
    line.send(next_logits(module, part, device, came))
    return torch.zeros(part.mask.shape, device=device)


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
    lengths = torch.from_numpy(token_bytes)
    nll = torch.zeros((), dtype=torch.float64, device=job.ranks.device)
    tokens_seen = bytes_seen = 0.0
    training = module.training
    module.eval()
    if line := pipeline.of(module):
        line.lend(module)
    for batch in batches:
        for part in batch.split(micro_batch):
            nll += (_heldout_nll(module, part, job.ranks.device) * part.mask.to(job.ranks.device)).sum()
            tokens_seen += float(part.mask.sum())
            bytes_seen += float((lengths[part.tokens[:, 1:]] * part.mask).sum())
    module.train(training)
    if line:
        line.settle()
    total = HeldOut(*job.ranks.sum_rows(float(nll), tokens_seen, bytes_seen))
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
    """This process's part of a sample of `sequences` held-out sequences.

    Every process gets the same number of batches; the mask of filler rows in the last batch is 0.
    """
    rows = data.sample(sequences)
    for start in range(0, len(rows), micro_batch * job.ranks.replicas):
        mine = range(start + job.ranks.replica, start + micro_batch * job.ranks.replicas, job.ranks.replicas)
        batch = data.rows([rows[min(index, len(rows) - 1)] for index in mine])
        for row, index in enumerate(mine):
            if index >= len(rows):
                batch.mask[row] = 0  # a filler, so that every process makes the same calls
        yield batch
