"""Next-token prediction on a batch of tokens, shared by pretrain, sft and the held-out measurements."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from contract.errors import InputError
from evals.heldout import HeldOut, together
from training.data.batch import Batch
from training.engine.pipeline import Lent
from training.loss import distilled, head_loss, head_nll, kl_divergence, log_probs
from training.models.documents import kept_apart
from training.models.experts import routing_of
from training.models.infilling import span_inputs

if TYPE_CHECKING:  # perf/gpu.py runs this where neither DeepSpeed nor pydantic are
    from training.data.blanks import HeldOutRows
    from training.data.reading import TokenData
    from training.engine.engine import Engine
    from training.engine.job import Job
    from training.engine.pipeline import Pipeline
    from training.models.teacher import Teacher

PLAIN_HEADS = frozenset({"bloom", "gpt2", "gpt_neox", "llama", "mistral", "mixtral", "olmo2", "qwen2", "qwen3"})
"""Model types of transformers whose logits are what their last linear layer gives. Others may cap or scale these."""


def next_logits(model: Callable[..., Any], batch: Batch, device: torch.device, hidden: Tensor | None = None) -> Tensor:
    """The logits of each next token, (B, T, V) on the device, from the tokens of its document alone.

    `model` is a model, or the engine that trains it. In a batch with blanks, it is the next token of a span, from the
    text around the blanks and the spans before it.

    A stage of a pipeline goes on from the `hidden` states of the one before, (B, T, d); all but the last give theirs.
    """
    known: dict[str, Any] = {}
    if batch.places is not None:
        known = span_inputs(batch, device)
    elif batch.positions is not None:
        known = kept_apart(_module(model), batch.positions, device)
    begin = {"inputs_embeds": hidden}
    if hidden is None:
        begin = {"input_ids": batch.tokens.to(device, non_blocking=True)[:, :-1]}
    logits: Tensor = model(**begin, use_cache=False, **known).logits
    return logits


def token_nll(model: Callable[..., Any], batch: Batch, device: torch.device, hidden: Tensor | None = None) -> Tensor:
    """Nats of each next token, (B, T) on the device, for measuring: call it where no gradient is wanted.

    `hidden` as in `next_logits`.
    """
    targets = batch.tokens.to(device, non_blocking=True)[:, 1:]
    if (head := plain_head(model)) is None:
        return -log_probs(next_logits(model, batch, device, hidden), targets)
    with _instead(head, lambda last: head_nll(last, head.weight.to(last.dtype), targets)):
        return next_logits(model, batch, device, hidden)


def summed_nll(model: Callable[..., Any], batch: Batch, device: torch.device, hidden: Tensor | None = None) -> Tensor:
    """Nats of all next tokens where the mask is 1, added up: the loss that training takes, before its divisor.

    `hidden` as in `next_logits`.
    """
    targets = batch.tokens.to(device, non_blocking=True)[:, 1:]
    mask = batch.mask.to(device, non_blocking=True)
    if (head := plain_head(model)) is None:
        return (-log_probs(next_logits(model, batch, device, hidden), targets) * mask).sum()
    compiled = getattr(model, "compiled", False)
    with _instead(head, lambda last: head_loss(last, head.weight.to(last.dtype), targets, mask, compiled)):
        return next_logits(model, batch, device, hidden)


def _module(model: Any) -> Any:
    """The bare module of an engine, or the model itself."""
    return getattr(model, "module", model)


def plain_head(model: Any) -> nn.Linear | Lent | None:
    """The last layer of a model or of its engine, if the logits are its output; None if only the model can make them.

    Then the loss is made of what goes into the layer, and a batch's logits never lie in memory together. A lent layer
    has float32 weights, whatever the model computes in.
    """
    module = _module(model)
    head = module.get_output_embeddings()
    plain = type(head) is Lent or (type(head) is nn.Linear and head.bias is None)
    return head if plain and module.config.model_type in PLAIN_HEADS else None


@contextmanager
def _instead(head: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer compute something else, inside the model's own forward pass: there ZeRO 3 has gathered its weight."""
    head.forward = forward
    try:
        yield
    finally:
        del head.forward


def learn(job: "Job", engine: "Engine", batch: Batch, teacher: "Teacher | None" = None) -> dict[str, Tensor]:
    """Forward and backward over one process's rows of a batch, part by part; returns its shares of the curves.

    `loss` is the mean nll; `distill_kl` the divergence from a teacher, from whose logits the model then learns, too;
    `balance_loss` the balancing loss of a model with experts, which is added with the coefficient of the model's
    configuration. The caller makes the step. Of processes that have the same rows, one has the whole share.
    The engine averages gradients over the parts of all processes. The divisor turns this into the mean over all tokens
    that the batch predicts, however unevenly they are spread over the parts. Balance is judged within each part, over
    its predicted tokens: every process sees other tokens, so whole batches would take another exchange in each layer.
    """
    parts = engine.accumulation * job.ranks.replicas
    count, routing = batch.count / parts, routing_of(engine.module)
    if engine.pipeline:
        return {"loss": _learn_in_stages(engine, engine.pipeline, parts_of(engine, batch), count) / parts}
    shares: dict[str, Tensor] = {}
    for part in parts_of(engine, batch):
        summed, told = _losses(engine, part, teacher, job.ranks.device)
        loss = summed / count
        figures = {name: one.detach() / batch.count for name, one in told.items()}
        if (balance := routing.balance(part.mask)) is not None:
            loss = loss + routing.coef * balance
            figures["balance_loss"] = balance.detach() / parts
        shares = {name: shares.get(name, 0) + one.double() * job.ranks.speaks for name, one in figures.items()}
        engine.backward(loss)
    return shares


def parts_of(engine: "Engine", batch: Batch) -> list[Batch]:
    """The rows of one process as the equal parts that the engine accumulates: micro-batches, or less if packed."""
    rows = -(-len(batch.tokens) // engine.accumulation)
    return list(batch.filled(rows * engine.accumulation).split(rows))


def _losses(
    engine: "Engine", batch: Batch, teacher: "Teacher | None", device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to minimise, and its parts by curve name. Each is summed over the tokens whose mask is 1."""
    if teacher is None:
        nll = summed_nll(engine, batch, device)
        return nll, {"loss": nll}
    with torch.no_grad():
        theirs = next_logits(teacher.module, batch, device)
    ours, mask = next_logits(engine, batch, device), batch.mask.to(device, non_blocking=True)
    nll = -log_probs(ours, batch.tokens.to(device, non_blocking=True)[:, 1:])
    kl = kl_divergence(theirs[..., : ours.shape[-1]], ours, teacher.temperature)
    learned = distilled(nll, kl, teacher.weight, teacher.temperature)
    return (learned * mask).sum(), {"loss": (nll * mask).sum(), "distill_kl": (kl * mask).sum()}


def _learn_in_stages(engine: "Engine", line: "Pipeline", parts: Sequence[Batch], count: float) -> Tensor:
    """The sum of the parts' losses, where this process has one stage of the model; all but the last stage return 0.

    It takes turns with the stages before and after it.
    """
    device = line.ranks.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    held: dict[int, tuple[Tensor | None, Tensor]] = {}  # of each part under way: what came in, and what went out
    line.lend(engine.module)
    for turn, number in line.turns(len(parts)):
        part = parts[number]
        if turn == "forward":
            came = line.receive(*part.mask.shape)
            came = None if came is None else came.requires_grad_()
            if line.last:
                went = summed_nll(engine, part, device, came) / count
                total += went.detach()
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
    line: Pipeline | None = getattr(module, "pipeline", None)
    if line is None:
        return token_nll(module, part, device)
    came = line.receive(*part.mask.shape)
    if line.last:
        return token_nll(module, part, device, came)
    line.send(next_logits(module, part, device, came))
    return torch.zeros(part.mask.shape, device=device)


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
    job: "Job",
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
    line: Pipeline | None = getattr(module, "pipeline", None)
    if line:
        line.lend(module)
    for batch in batches:
        for part in batch.split(micro_batch):
            nll = (_heldout_nll(module, part, job.ranks.device) * part.mask.to(job.ranks.device)).sum(1).cpu()
            spelled = (lengths[part.tokens[:, 1:]] * part.mask).sum(1)
            rows = torch.zeros(len(nll), dtype=torch.int64) if part.sources is None else part.sources
            sums.index_add_(0, rows, torch.stack([nll, part.mask.sum(1), spelled], 1).double())
    module.train(training)
    if line:
        line.settle()
    whole = torch.tensor(job.ranks.sum_rows(*sums.flatten().tolist())).view_as(sums)
    found = zip(sources, whole.tolist(), strict=True)
    return {source: HeldOut(*one) for source, one in found if one[1]}


def note_heldout(
    job: "Job", step: int, found: Mapping[str, HeldOut], state: dict[str, Any]
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


def heldout_text(job: "Job", data: "TokenData | HeldOutRows", sequences: int, micro_batch: int) -> Iterable[Batch]:
    """This process's part of a sample of `sequences` held-out sequences, with the numbers of their sources.

    Every process gets the same number of batches; the mask of filler rows in the last batch is 0.
    """
    rows = data.sample(sequences)
    numbers = {source: number for number, source in enumerate(data.sources)}
    for start in range(0, len(rows), micro_batch * job.ranks.replicas):
        mine = range(start + job.ranks.replica, start + micro_batch * job.ranks.replicas, job.ranks.replicas)
        chosen = [rows[min(index, len(rows) - 1)] for index in mine]
        of_rows = torch.tensor([numbers[data.source(row)] for row in chosen])
        batch = replace(data.rows(chosen), sources=of_rows)
        for row, index in enumerate(mine):
            if index >= len(rows):
                batch.mask[row] = 0  # a filler, so that every process makes the same calls
        yield batch
