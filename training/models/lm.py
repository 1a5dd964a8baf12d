"""Next-token prediction on a batch of tokens, shared by pretrain, sft and the held-out measurements."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from contract.errors import InputError
from evals.heldout import HeldOut, together
from training.data.batch import Batch
from training.data.reading import TokenData
from training.engine.engine import Engine
from training.engine.job import Job
from training.loss import log_probs, masked_mean
from training.models.causal import TAKES_A_MASK, document_mask
from training.models.experts import routing_of


def next_logits(model: Callable[..., Any], batch: Batch, device: torch.device) -> Tensor:
    """The logits of each next token, (B, T, V) on the device, from the tokens of its document alone.

    `model` is a model, or the engine that trains it.
    """
    bare = getattr(model, "module", model)
    known = known_documents(bare, batch.positions, device) if batch.positions is not None else {}
    logits: Tensor = model(input_ids=batch.tokens[:, :-1].to(device), use_cache=False, **known).logits
    return logits


def known_documents(model: Any, positions: Tensor, device: torch.device) -> dict[str, Any]:
    """What tells a model's attention where documents begin: positions, (B, T), count from 0 in each.

    Positions that restart keep documents apart: transformers derives from them the mask of SDPA and of eager attention,
    if it gets no other mask and no cache. flash-attn takes no mask; it gets the ends of the documents. A few types
    need the mask itself.
    """
    there = positions.to(device)
    if model.config.model_type in TAKES_A_MASK:
        return {"position_ids": there, "attention_mask": document_mask(there, model.dtype)}
    return {"position_ids": there, **_documents(positions, device)}


def token_nll(model: Callable[..., Any], batch: Batch, device: torch.device) -> Tensor:
    """Nats of each next token, (B, T) on the device."""
    return -log_probs(next_logits(model, batch, device), batch.tokens[:, 1:].to(device))


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


def learn(job: Job, engine: Engine, batch: Batch) -> dict[str, Tensor]:
    """Forward and backward over one process's rows of a batch, part by part; returns its shares of the curves.

    `loss` is the mean nll, `balance_loss` the balancing loss of a model with experts, which is added to it with the
    coefficient of the model's configuration. The caller makes the step.
    The engine averages gradients over the parts of all processes. The divisor turns this into the mean over all tokens
    that the batch predicts, however unevenly they are spread over the parts. Balance is judged within each part, over
    its predicted tokens: every process sees other tokens, so whole batches would take another exchange in each layer.
    """
    parts = engine.accumulation * job.ranks.world
    count, routing = batch.count / parts, routing_of(engine.module)
    shares = {"loss": torch.zeros((), dtype=torch.float64, device=job.ranks.device)}
    for part in batch.split(engine.micro_batch):
        mask = part.mask.to(job.ranks.device)
        loss = masked_mean(token_nll(engine, part, job.ranks.device), mask, count)
        shares["loss"] += loss.detach() / parts
        balance = routing.balance(mask)
        if balance is not None:
            shares["balance_loss"] = shares.get("balance_loss", 0) + balance.detach() / parts
            loss = loss + routing.coef * balance
        engine.backward(loss)
    return shares


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
    job: Job,
    module: nn.Module,
    batches: Iterable[Batch],
    micro_batch: int,
    token_bytes: npt.NDArray[np.int64],
    sources: Sequence[str] = ("",),
) -> dict[str, HeldOut]:
    """Each source's sums over all processes' batches, without the sources of which no token is predicted.

    `sources` names what `Batch.sources` numbers. Every process calls it with the same number of batches.
    """
    lengths = torch.from_numpy(token_bytes)
    sums = torch.zeros(len(sources), 3, dtype=torch.float64)
    training = module.training
    module.eval()
    for batch in batches:
        for part in batch.split(micro_batch):
            nll = (token_nll(module, part, job.ranks.device) * part.mask.to(job.ranks.device)).sum(1).cpu()
            spelled = (lengths[part.tokens[:, 1:]] * part.mask).sum(1)
            rows = torch.zeros(len(nll), dtype=torch.int64) if part.sources is None else part.sources
            sums.index_add_(0, rows, torch.stack([nll, part.mask.sum(1), spelled], 1).double())
    module.train(training)
    found = zip(sources, torch.tensor(job.ranks.sum(*sums.flatten().tolist())).view_as(sums).tolist(), strict=True)
    return {source: HeldOut(*one) for source, one in found if one[1]}


def note_heldout(
    job: Job, step: int, found: Mapping[str, HeldOut], state: dict[str, Any]
) -> tuple[dict[str, Any], float | None]:
    """Add held-out losses to the curves; returns the stage's state with the best one, and the loss if it is the best.

    `found` is that of each source. The state's `best` is (step, loss) of the lowest loss over all of them so far. A
    loss that is NaN is never the best, nor is that of step 0: nothing was trained yet, and nothing is saved there.
    """
    after = together(found)
    if after is None:
        return state, None
    job.curves.read(job.ranks)
    apart = {f"heldout_loss/{source}": one.loss for source, one in found.items()} if len(found) > 1 else {}
    job.curves.add(step, heldout_loss=after.loss, **apart)
    best = state.get("best")
    if step == 0 or not math.isfinite(after.loss) or (best and best[1] <= after.loss):
        return state, None
    return {**state, "best": [step, after.loss]}, after.loss


def best_of(state: dict[str, Any]) -> dict[str, Any]:
    """The figures of the best held-out loss, for a manifest; empty if nothing was held out."""
    step, loss = state.get("best") or (None, None)
    return {} if step is None else {"best_step": step, "best_heldout_loss": loss}


def heldout_text(job: Job, data: TokenData, sequences: int, micro_batch: int) -> Iterable[Batch]:
    """This process's part of a sample of `sequences` held-out sequences, with the numbers of their sources.

    Every process gets the same number of batches; the mask of filler rows in the last batch is 0.
    """
    rows = data.sample(sequences)
    numbers = {source: number for number, source in enumerate(data.sources)}
    for start in range(0, len(rows), micro_batch * job.ranks.world):
        mine = range(start + job.ranks.rank, start + micro_batch * job.ranks.world, job.ranks.world)
        chosen = [rows[min(index, len(rows) - 1)] for index in mine]
        of_rows = torch.tensor([numbers[data.source(row)] for row in chosen])
        batch = replace(data.rows(chosen), sources=of_rows)
        for row, index in enumerate(mine):
            if index >= len(rows):
                batch.mask[row] = 0  # a filler, so that every process makes the same calls
        yield batch
