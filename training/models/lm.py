"""Next-token prediction on a batch of tokens, shared by pretrain, sft and the held-out measurements."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from contract.errors import InputError
from evals.heldout import HeldOut
from training.data.batch import Batch
from training.loss import head_loss, head_nll, log_probs
from training.models.documents import kept_apart

if TYPE_CHECKING:  # perf/gpu.py runs this where neither DeepSpeed nor pydantic are
    from training.data.reading import TokenData
    from training.engine.engine import Engine
    from training.engine.job import Job

PLAIN_HEADS = frozenset({"bloom", "gpt2", "gpt_neox", "llama", "mistral", "mixtral", "olmo2", "qwen2", "qwen3"})
"""Model types of transformers whose logits are what their last linear layer gives. Others may cap or scale these."""


def next_logits(model: Callable[..., Any], batch: Batch, device: torch.device) -> Tensor:
    """The logits of each next token, (B, T, V) on the device, from the tokens of its document alone."""
    config = _module(model).config
    known = {} if batch.positions is None else kept_apart(config, batch.positions, device)
    tokens = batch.tokens.to(device, non_blocking=True)
    logits: Tensor = model(input_ids=tokens[:, :-1], use_cache=False, **known).logits
    return logits


def token_nll(model: Callable[..., Any], batch: Batch, device: torch.device) -> Tensor:
    """Nats of each next token, (B, T) on the device, for measuring: call it where no gradient is wanted."""
    targets = batch.tokens.to(device, non_blocking=True)[:, 1:]
    if (head := plain_head(model)) is None:
        return -log_probs(next_logits(model, batch, device), targets)
    with _instead(head, lambda hidden: head_nll(hidden, head.weight, targets)):
        return next_logits(model, batch, device)


def summed_nll(model: Callable[..., Any], batch: Batch, device: torch.device) -> Tensor:
    """Nats of all next tokens where the mask is 1, added up: the loss that training takes, before its divisor."""
    targets = batch.tokens.to(device, non_blocking=True)[:, 1:]
    mask = batch.mask.to(device, non_blocking=True)
    if (head := plain_head(model)) is None:
        return (-log_probs(next_logits(model, batch, device), targets) * mask).sum()
    compiled = getattr(model, "compiled", False)
    with _instead(head, lambda hidden: head_loss(hidden, head.weight, targets, mask, compiled)):
        return next_logits(model, batch, device)


def _module(model: Any) -> Any:
    """The bare module of an engine, or the model itself."""
    return getattr(model, "module", model)


def plain_head(model: Any) -> nn.Linear | None:
    """The last layer of a model or of its engine, if the logits are its output; None if only the model can make them.

    Then the loss is made of what goes into the layer, and a batch's logits never lie in memory together.
    """
    module = _module(model)
    head = module.get_output_embeddings()
    plain = type(head) is nn.Linear and head.bias is None and module.config.model_type in PLAIN_HEADS
    return head if plain else None


@contextmanager
def _instead(head: nn.Linear, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer compute something else, inside the model's own forward pass: there ZeRO 3 has gathered its weight."""
    head.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del head.forward


def learn(job: "Job", engine: "Engine", batch: Batch) -> Tensor:
    """Forward and backward over one process's rows of a batch, part by part; returns their summed nll.

    The caller makes the step.
    The engine averages gradients over the parts of all processes. The divisor turns this into the mean over all tokens
    that the batch predicts, however unevenly they are spread over the parts.
    """
    count = batch.count / (engine.accumulation * job.ranks.world)
    total = torch.zeros((), dtype=torch.float64, device=job.ranks.device)
    for part in batch.split(engine.micro_batch):
        nll = summed_nll(engine, part, job.ranks.device)
        engine.backward(nll / count)
        total += nll.detach()
    return total


def finite(job: "Job", value: float, what: str) -> float:
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
    job: "Job", module: nn.Module, batches: Iterable[Batch], micro_batch: int, token_bytes: npt.NDArray[np.int64]
) -> HeldOut | None:
    """Sums over all processes' batches; None if they predict no token.

    Every process calls it with the same number of batches.
    """
    lengths = torch.from_numpy(token_bytes)
    nll = torch.zeros((), dtype=torch.float64, device=job.ranks.device)
    tokens_seen = bytes_seen = 0.0
    training = module.training
    module.eval()
    for batch in batches:
        for part in batch.split(micro_batch):
            nll += (token_nll(module, part, job.ranks.device) * part.mask.to(job.ranks.device)).sum()
            tokens_seen += float(part.mask.sum())
            bytes_seen += float((lengths[part.tokens[:, 1:]] * part.mask).sum())
    module.train(training)
    total = HeldOut(*job.ranks.sum(float(nll), tokens_seen, bytes_seen))
    return total if total.tokens else None


def note_heldout(
    job: "Job", step: int, found: HeldOut | None, state: dict[str, Any]
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


def heldout_text(job: "Job", data: "TokenData", sequences: int, micro_batch: int) -> Iterable[Batch]:
    """This process's part of a sample of `sequences` held-out sequences.

    Every process gets the same number of batches; the mask of filler rows in the last batch is 0.
    """
    rows = data.sample(sequences)
    for start in range(0, len(rows), micro_batch * job.ranks.world):
        mine = range(start + job.ranks.rank, start + micro_batch * job.ranks.world, job.ranks.world)
        batch = data.rows([rows[min(index, len(rows) - 1)] for index in mine])
        for row, index in enumerate(mine):
            if index >= len(rows):
                batch.mask[row] = 0  # a filler, so that every process makes the same calls
        yield batch
